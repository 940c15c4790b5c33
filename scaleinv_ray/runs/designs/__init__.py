"""A design: what was evaluated, and the search that goes on from it."""
