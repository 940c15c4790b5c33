"""Spectra of weight matrices: one family.

spectra: the invariants. power_tail, marchenko_pastur: tail fits and the null's edge.
"""

from scaleinv_ray.invariants.weights.spectra import (
    fixed_aspect_tail,
    shuffle_null,
    weight_spikes,
    weight_tail,
)

__all__ = ["fixed_aspect_tail", "shuffle_null", "weight_spikes", "weight_tail"]
