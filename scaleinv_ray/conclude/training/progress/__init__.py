"""Kinds of progress: in which directions runs move between checkpoints, and how many there are."""
