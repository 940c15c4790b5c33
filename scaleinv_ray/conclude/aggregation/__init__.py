"""Which rows count at a place, and the value of each replicate there."""
