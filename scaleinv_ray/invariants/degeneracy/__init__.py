"""Degeneracy, seen by chains around a minimum: one family in two files, by what is asked of them.

coefficients: how much the loss rises. responses: how losses move together.
"""

from scaleinv_ray.invariants.degeneracy.coefficients import learning_coefficient
from scaleinv_ray.invariants.degeneracy.responses import bayesian_influences, susceptibilities

__all__ = ["bayesian_influences", "learning_coefficient", "susceptibilities"]
