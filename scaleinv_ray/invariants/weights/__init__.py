"""Spectra of weight matrices: one family.

tails: power laws of the eigenvalues. spikes: eigenvalues above the random bulk. power_tail,
marchenko_pastur: the fit, and the edge of the null.
"""

from scaleinv_ray.invariants.weights.spikes import weight_spikes
from scaleinv_ray.invariants.weights.tails import fixed_aspect_tail, shuffle_null, weight_tail

__all__ = ["fixed_aspect_tail", "shuffle_null", "weight_spikes", "weight_tail"]
