"""What effects of components say, in numbers that do not hang on names of heads."""

from scaleinv_ray.invariants.circuits import graph, onset, quantities
from scaleinv_ray.invariants.circuits.faithfulness import (
    FRACTIONS,
    areas,
    auroc,
    circuit_metrics,
    faithfulness,
    precision_at,
    random_areas,
)
from scaleinv_ray.invariants.circuits.matching import Match, match
from scaleinv_ray.invariants.circuits.modules import Modularity, modularity
from scaleinv_ray.invariants.circuits.readings import probe_depth, rule_fidelity
from scaleinv_ray.invariants.circuits.spread import (
    GAUSSIAN_PARTICIPATION,
    HALF_NORMAL_N90,
    depth_profile,
    n90,
    participation,
    redundancy,
    signal_share,
    sorted_effects,
)
from scaleinv_ray.invariants.circuits.task import check_done, check_enough

assert quantities and onset and graph, "importing them registers the invariants"

__all__ = [
    "FRACTIONS",
    "GAUSSIAN_PARTICIPATION",
    "HALF_NORMAL_N90",
    "Match",
    "Modularity",
    "areas",
    "auroc",
    "check_done",
    "check_enough",
    "circuit_metrics",
    "depth_profile",
    "faithfulness",
    "match",
    "modularity",
    "n90",
    "participation",
    "precision_at",
    "probe_depth",
    "random_areas",
    "redundancy",
    "rule_fidelity",
    "signal_share",
    "sorted_effects",
]
