"""Whose doing an answer is: components, tokens of the input, and what drives single units."""
