"""Topology of activation clouds: one family in three files, by what is computed.

rips: persistent homology of the Vietoris-Rips filtration. shape: merge tree, spectral distance,
alpha complex. distances: between the diagrams of two models.
"""

from scaleinv_ray.invariants.topology.distances import diagram_distance
from scaleinv_ray.invariants.topology.rips import (
    order_complex,
    persistence,
    significant_betti,
    torsion_check,
)
from scaleinv_ray.invariants.topology.shape import (
    euler_characteristic,
    merge_tree,
    spectral_persistence,
)

__all__ = [
    "diagram_distance",
    "euler_characteristic",
    "merge_tree",
    "order_complex",
    "persistence",
    "significant_betti",
    "spectral_persistence",
    "torsion_check",
]
