"""What the figures of the page are drawn of: slices of values, curves, diagrams and single rows."""
