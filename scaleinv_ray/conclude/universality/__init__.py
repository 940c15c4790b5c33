"""Do curves of different sizes fall onto one: collapses, classes, pairs of models."""
