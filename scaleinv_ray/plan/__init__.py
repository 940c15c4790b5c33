"""From a config to units, captures and measurements, each with its key. Computes no invariant.

A unit is (series, model, step, seed, variant). A capture is keyed by its content (weights, variant,
tokens, protocol, kind), so equal contents are captured once. A measurement is keyed by its unit (or
two of them), its capture and the invariant with version and parameters.
"""

from scaleinv_ray.plan.grouping import pairs_of, trajectories_of
from scaleinv_ray.plan.making import make_plan, plan_rows, token_rows
from scaleinv_ray.plan.units import Measurement, Plan, ProbeTokens, Reading, Unit, digest, rng_seed

__all__ = [
    "Measurement",
    "Plan",
    "ProbeTokens",
    "Reading",
    "Unit",
    "digest",
    "make_plan",
    "pairs_of",
    "plan_rows",
    "rng_seed",
    "token_rows",
    "trajectories_of",
]
