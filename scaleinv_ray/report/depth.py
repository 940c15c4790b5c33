"""Depth profiles: the value at every relative depth, per size, beside its nulls."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.report.pack import rounded
from scaleinv_ray.report.series import (
    NO_STEP,
    SLICE,
    named,
    single_units,
    summarised,
    with_replicates,
    with_sites,
)

PROFILE: tuple[str, ...] = SLICE[:-1]
"""What one profile figure shows; there is no depth bin in it."""
DIGITS = 4


def depth_profiles(measurements: pa.Table) -> list[dict[str, Any]]:
    """Means over seeds at every depth, per variant, size and step.

    Rows of one seed at one depth (roles, heads) are averaged first; a seed counts at a depth only
    with a value at every location there, as in `series.over_seeds`.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        One dict a profile: the names of `PROFILE` and `points`: variant -> list of [n_params,
        step, depth, mean, sd over seeds or None, number of seeds]. Profiles of one depth only are
        left out.
    """
    usable, _ = single_units(measurements)
    placed = usable.filter(pc.is_valid(usable["depth"]))
    whole = named(with_sites(placed), (*PROFILE, "variant"))
    place = [*PROFILE, "variant", "n_params", "step", "depth"]
    profiles: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in summarised(with_replicates(whole, place), place):
        if not row["value_count"]:
            continue
        key = tuple(row[name] for name in PROFILE)
        empty = {**dict(zip(PROFILE, key, strict=True)), "points": {}}
        points = profiles.setdefault(key, empty)["points"].setdefault(row["variant"], [])
        points.append([
            row["n_params"],
            None if row["step"] == NO_STEP else row["step"],
            rounded(row["depth"], DIGITS),
            rounded(row["value_mean"], DIGITS),
            rounded(row["value_stddev"], DIGITS),
            row["value_count"],
        ])
    return [entry for entry in profiles.values() if _num_depths(entry) > 1]


def _num_depths(profile: dict[str, Any]) -> int:
    return len({point[2] for points in profile["points"].values() for point in points})
