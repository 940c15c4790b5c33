"""Weights out of checkpoint folders into live models and matrices, and their nulls (torch)."""
