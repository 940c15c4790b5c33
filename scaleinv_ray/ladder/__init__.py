"""A size series of one's own: models by width and depth, trained from a few lines of YAML."""
