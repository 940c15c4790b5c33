"""The driver: which task goes when and where, and what becomes of it."""
