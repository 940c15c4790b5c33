"""Models with a wanted invariant: what theory says, the search, and what certifies a design."""
