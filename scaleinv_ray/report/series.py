"""From measurements to the points of the figures: means and deviations over seeds.

A slice is one (series, family, invariant, quantity, probe, site, depth bin). Its points are given
per variant, number of parameters and step, so that a page stays small however many rows a run has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

DEPTH_BINS: tuple[str, ...] = ("all", "early", "middle", "late")
SLICE: tuple[str, ...] = ("series", "family", "invariant", "quantity", "probe", "site", "bin")
_COLUMNS = (
    *SLICE[:-1],
    "role",
    "law",
    "variant",
    "n_params",
    "model",
    "step",
    "seed",
    "depth",
    "value",
)


class Slices(NamedTuple):
    """Points of all figures, and how many rows were left out.

    Attributes:
        slices: one dict a slice: the names of `SLICE`, law, and `points`: variant -> list of
            [n_params, step, mean, sd over seeds or None, number of seeds].
        paired: rows that compare two units; they have no place on an axis of sizes.
    """

    slices: list[dict[str, Any]]
    paired: int


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Value to so many significant digits; None where it is missing or not finite.

    Args:
        value: a number or none.
        digits: significant decimal digits.

    Returns:
        The nearest such number.

    >>> rounded(1234.5678, 3), rounded(float("nan"))
    (1230.0, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def with_depth_bins(table: pa.Table) -> pa.Table:
    """Every row under bin `all`, and once more under the third of the depth it lies in.

    Args:
        table: any table with a column depth; a depth of exactly 1/3 is early, 2/3 is middle.

    Returns:
        The table with a further column `bin`; rows without a depth are only under `all`.

    >>> with_depth_bins(pa.table({"depth": [0.25, 1.0, None]}))["bin"].to_pylist()
    ['all', 'all', 'all', 'early', 'late']
    """
    everything = table.append_column("bin", pa.array(["all"] * table.num_rows, pa.string()))
    placed = table.filter(pc.is_valid(table["depth"]))
    depth = placed["depth"]
    third = pc.if_else(
        pc.less_equal(depth, 1 / 3 + 1e-9),
        "early",
        pc.if_else(pc.less_equal(depth, 2 / 3 + 1e-9), "middle", "late"),
    )
    return pa.concat_tables([everything, placed.append_column("bin", third)])


def with_sites(table: pa.Table) -> pa.Table:
    """Rows without a site (weights) once under their role as site, and once under `all`.

    Args:
        table: any table with columns site and role.

    Returns:
        The table with more rows; rows with a site, or with neither, stay as they are.

    >>> with_sites(pa.table({"site": ["mlp", None], "role": [None, "up"]}))["site"].to_pylist()
    ['mlp', 'up', 'all']
    """
    by_role = pc.and_(pc.is_null(table["site"]), pc.is_valid(table["role"]))
    roles, site = table.filter(by_role), table.schema.get_field_index("site")
    together = pa.array(["all"] * roles.num_rows, pa.string())
    return pa.concat_tables([
        table.filter(pc.invert(by_role)),
        roles.set_column(site, "site", roles["role"]),
        roles.set_column(site, "site", together),
    ])


def named(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """The table with missing names in these columns as empty strings."""
    for name in columns:
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, pc.fill_null(table[name], ""))
    return table


def _usable(measurements: pa.Table) -> tuple[pa.Table, int]:
    ok = measurements.filter(
        pc.and_(
            pc.equal(measurements["status"], "ok"),
            pc.and_(
                pc.fill_null(pc.is_finite(measurements["value"]), False),
                pc.is_valid(measurements["n_params"]),
            ),
        )
    )
    single = ok.filter(pc.is_null(ok["unit_b"]))
    return single.select(_COLUMNS), ok.num_rows - single.num_rows


def over_seeds(measurements: pa.Table) -> Slices:
    """Mean and standard deviation (ddof = 1) over seeds of every slice, variant, size and step.

    Rows of one seed (layers, roles, heads) are averaged first, so that seeds are the replicates.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        The slices in the order of their names.
    """
    usable, paired = _usable(measurements)
    binned = with_depth_bins(named(with_sites(usable), (*SLICE[:-1], "law", "variant")))
    place = [*SLICE, "law", "variant", "n_params", "step"]
    seeds = binned.group_by([*place, "model", "seed"]).aggregate([("value", "mean")])
    options = pc.VarianceOptions(ddof=1)
    points = seeds.group_by(place).aggregate([
        ("value_mean", "mean"),
        ("value_mean", "stddev", options),
        ("value_mean", "count"),
    ])
    points = points.sort_by([(name, "ascending") for name in place])
    slices: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in points.to_pylist():
        key = tuple(row[name] for name in SLICE)
        entry = slices.setdefault(
            key, {**dict(zip(SLICE, key, strict=True)), "law": row["law"], "points": {}}
        )
        entry["points"].setdefault(row["variant"], []).append([
            row["n_params"],
            row["step"],
            rounded(row["value_mean_mean"]),
            rounded(row["value_mean_stddev"]),
            row["value_mean_count"],
        ])
    return Slices(list(slices.values()), paired)
