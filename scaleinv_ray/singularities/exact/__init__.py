"""Learning coefficients that are known exactly: by Newton polyhedra, weights, widths."""
