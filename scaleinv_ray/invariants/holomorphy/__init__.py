"""Poles and residues: one family in two files, by what has the poles.

resolvents: Jacobians, weights, covariances and maps over depth. curvature: Hessian and GGN.
"""

from scaleinv_ray.invariants.holomorphy.curvature import ggn_poles, hessian_poles
from scaleinv_ray.invariants.holomorphy.of_layers import (
    covariance_poles,
    depth_modes,
    logit_residues,
    residue_overlap,
    resolvent_counts,
    stieltjes_poles,
)

__all__ = [
    "covariance_poles",
    "depth_modes",
    "ggn_poles",
    "hessian_poles",
    "logit_residues",
    "residue_overlap",
    "resolvent_counts",
    "stieltjes_poles",
]
