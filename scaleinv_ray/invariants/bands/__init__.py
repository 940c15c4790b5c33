"""Bands of the Hessian and the GGN over training: one family.

over_training: the invariants. discovery: bands of one spectrum. tracks: the same band over steps.
"""

from scaleinv_ray.invariants.bands.over_training import ggn_bands, hessian_bands

__all__ = ["ggn_bands", "hessian_bands"]
