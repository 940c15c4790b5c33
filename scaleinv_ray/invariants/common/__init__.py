"""Numerical kernels that several families of invariants share."""
