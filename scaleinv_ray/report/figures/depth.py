"""Depth profiles: the value at every relative depth, per size, beside its nulls."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.matched_checkpoints import step_or_none
from scaleinv_ray.report.figures.over_scale import (
    NO_STEP,
    POINT,
    SLICE,
    at_equal_steps,
    named,
    summarised,
)
from scaleinv_ray.report.figures.places import WHERE, placed
from scaleinv_ray.report.pack import among, rounded

PROFILE: tuple[str, ...] = SLICE[:-1]
"""What one profile figure shows; there is no depth bin in it."""
RUN: tuple[str, ...] = ("model", "seed")
DIGITS = 4


def depth_profiles(measurements: pa.Table, values: pa.Table) -> list[dict[str, Any]]:
    """Means over seeds at every depth, per variant, size and step.

    Rows of one seed at one depth (roles, heads) are averaged first; they are those of the
    replicates that count in that third of the depth.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.
        values: a table of `ValueRow`, which says what counts.

    Returns:
        One dict a profile: the names of `PROFILE` and `points`: variant -> list of [n_params,
        step, depth, mean, sd over seeds or None, number of seeds]. Profiles of one depth only are
        left out.
    """
    place = [name for name in POINT if name != "bin"] + ["depth"]
    seeds = _counted(measurements, values).group_by([*place, *RUN]).aggregate([("value", "mean")])
    seeds = seeds.rename_columns([*place, *RUN, "value"])
    profiles: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in summarised(seeds, place):
        key = tuple(row[name] for name in PROFILE)
        empty = {**dict(zip(PROFILE, key, strict=True)), "points": {}}
        points = profiles.setdefault(key, empty)["points"].setdefault(row["variant"], [])
        points.append([
            row["n_params"],
            step_or_none(row["step"]),
            rounded(row["depth"], DIGITS),
            rounded(row["value_mean"], DIGITS),
            rounded(row["value_stddev"], DIGITS),
            row["value_count"],
        ])
    return [entry for entry in profiles.values() if _num_depths(entry) > 1]


def _counted(measurements: pa.Table, values: pa.Table) -> pa.Table:
    """Rows with a depth, of the replicates that count at their site in their third."""
    rows = measurements.filter(
        pc.and_(
            pc.and_(pc.is_valid(measurements["depth"]), pc.is_null(measurements["unit_b"])),
            pc.equal(measurements["status"], "ok"),
        )
    )
    whole = [n for n in dict.fromkeys((*POINT, *RUN, *WHERE, "value")) if n != "bin"]
    rows = placed(named(rows.select(whole), [n for n in PROFILE if n != "site"]), thirds_only=True)
    step = rows.schema.get_field_index("step")
    rows = rows.set_column(step, "step", pc.fill_null(rows["step"], NO_STEP))
    counting = at_equal_steps(values.filter(values["counted"]))
    return rows.filter(among(rows, counting, (*POINT, *RUN))).unify_dictionaries()


def _num_depths(profile: dict[str, Any]) -> int:
    return len({point[2] for points in profile["points"].values() for point in points})
