"""From measurements to the points of the figures: means and deviations over seeds.

A slice is one (series, family, invariant, quantity, probe, site, depth bin). Its points are given
per variant, number of parameters and step, so that a page stays small however many rows a run has.

A replicate is one (model, seed). It counts at a size only with a value at every location (layer,
role, head, site) where any replicate of that size has one: else the mean of one seed would be over
other layers than that of the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.report.pack import distinct_rows, rounded
from scaleinv_ray.tables import plain

DEPTH_BINS: tuple[str, ...] = ("all", "early", "middle", "late")
SLICE: tuple[str, ...] = ("series", "family", "invariant", "quantity", "probe", "site", "bin")
_COLUMNS = (
    *SLICE[:-1],
    "layer",
    "role",
    "head",
    "law",
    "variant",
    "n_params",
    "model",
    "step",
    "seed",
    "depth",
    "value",
    "status",
)
LOCATION: tuple[str, ...] = ("layer", "role", "head", "site")
NO_STEP = -1


class Slices(NamedTuple):
    """Points of all figures, and how many rows were left out.

    Attributes:
        slices: one dict a slice: the names of `SLICE`, law, `points`: variant -> list of
            [n_params, step, mean, sd over seeds or None, number of seeds, geometric mean or None
            (values of both signs, or zero), sd of ln|value| or None], `left_out`: list of
            [variant, n_params, step, number of replicates left out], and `runs`: list of [model,
            seed, n_params, step, value], the trained replicates.
        paired: rows that compare two units; they have no place on an axis of sizes.
    """

    slices: list[dict[str, Any]]
    paired: int


def with_depth_bins(table: pa.Table) -> pa.Table:
    """Every row under bin `all`, and once more under the third of the depth it lies in.

    Args:
        table: any table with a column depth; a depth of exactly 1/3 is early, 2/3 is middle.

    Returns:
        The table with a further column `bin`; rows without a depth are only under `all`.

    >>> with_depth_bins(pa.table({"depth": [0.25, 1.0, None]}))["bin"].to_pylist()
    ['all', 'all', 'all', 'early', 'late']
    """
    everything = table.append_column("bin", _of_bins(np.zeros(table.num_rows, dtype=np.int32)))
    placed = table.filter(pc.is_valid(table["depth"]))
    depth_R = placed["depth"].to_numpy()
    third_R = 1 + np.searchsorted([1 / 3 + 1e-9, 2 / 3 + 1e-9], depth_R)
    return pa.concat_tables([
        everything,
        placed.append_column("bin", _of_bins(third_R.astype(np.int32))),
    ])


def _of_bins(place_R: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(place_R), pa.array(DEPTH_BINS))


def with_sites(table: pa.Table) -> pa.Table:
    """Rows without a site (weights) once under their role as site, and once under `all`.

    Args:
        table: any table with columns site, role and layer.

    Returns:
        The table with more rows; rows with a site, or with neither, stay as they are. Roles
        outside the blocks (embeddings: no layer) are not part of `all`.

    >>> rows = {"site": ["mlp", None, None], "role": [None, "up", "embed"], "layer": [0, 0, None]}
    >>> with_sites(pa.table(rows))["site"].to_pylist()
    ['mlp', 'up', 'embed', 'all']
    """
    by_role = pc.and_(pc.is_null(table["site"]), pc.is_valid(table["role"]))
    roles, site = table.filter(by_role), table.schema.get_field_index("site")
    inside = roles.filter(pc.is_valid(roles["layer"]))
    together = pc.if_else(pc.is_valid(inside["layer"]), "all", None)
    parts = [
        table.filter(pc.invert(by_role)),
        roles.set_column(site, "site", roles["role"]),
        inside.set_column(site, "site", together.cast(table["site"].type)),
    ]
    return pa.concat_tables(parts)


def named(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """The table with missing names in these columns as empty strings."""
    for name in columns:
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, pc.fill_null(table[name], ""))
    return table


def location(table: pa.Table) -> pa.Array:
    """A number for each distinct combination of the columns `LOCATION`, one a row."""
    texts = [pc.fill_null(pc.cast(table[name], pa.string()), "") for name in LOCATION]
    joined = pc.binary_join_element_wise(*texts, "\n").combine_chunks()
    return joined.dictionary_encode().indices


def single_units(measurements: pa.Table) -> tuple[pa.Table, int]:
    """Rows of one unit of known size, and how many rows compare two units.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        Rows with a further column `location`; value and location are null where there is no
        number, step is `NO_STEP` where there is none. The count is that of rows with a number.
    """
    read = measurements.select([*_COLUMNS, "unit_b"])  # the others double the memory below
    sized = read.filter(pc.is_valid(read["n_params"]))
    ok = pc.and_(pc.equal(sized["status"], "ok"), pc.fill_null(pc.is_finite(sized["value"]), False))
    sized = sized.append_column("ok", ok)
    single = sized.filter(pc.is_null(sized["unit_b"]))
    paired = pc.sum(sized["ok"]).as_py() or 0
    paired -= pc.sum(single["ok"]).as_py() or 0
    ok, single = single["ok"], single.select(_COLUMNS)
    step = single.schema.get_field_index("step")
    single = single.set_column(step, "step", pc.fill_null(single["step"], NO_STEP))
    value = pc.if_else(ok, single["value"], None)
    single = single.set_column(single.schema.get_field_index("value"), "value", value)
    return single.append_column("location", pc.if_else(ok, location(single), None)), paired


def with_replicates(binned: pa.Table, place: list[str]) -> pa.Table:
    """One row a replicate: the mean over its rows, ln and sign of it, and whether it is lost.

    Args:
        binned: what `single_units` returns, possibly with more columns.
        place: names of the columns within which replicates are compared.

    Returns:
        The columns of `place`, model, seed, value (null where a location is missing), ln, sign,
        and lost (1 where a location is missing, else 0).
    """
    binned = binned.unify_dictionaries()
    counted = [("location", "count_distinct", pc.CountOptions(mode="only_valid"))]
    seeds = binned.group_by([*place, "model", "seed"]).aggregate([("value", "mean"), *counted])
    planned = binned.group_by(place).aggregate(counted)
    planned = planned.rename_columns([*place, "planned"])
    seeds = seeds.join(planned, keys=place)
    complete = pc.and_(
        pc.equal(seeds["location_count_distinct"], seeds["planned"]),
        pc.greater(seeds["planned"], 0),
    )
    mean = pc.if_else(complete, seeds["value_mean"], None)
    lost = pc.and_(pc.invert(complete), pc.greater(seeds["planned"], 0))
    return pa.table({
        **{name: seeds[name] for name in (*place, "model", "seed")},
        "value": mean,
        "ln": pc.ln(pc.abs(mean)),
        "sign": pc.sign(mean),
        "lost": pc.cast(lost, pa.int64()),
    })


def summarised(seeds: pa.Table, place: list[str]) -> list[dict[str, Any]]:
    """Means, deviations (ddof = 1) and counts over replicates, in the order of the place.

    Args:
        seeds: what `with_replicates` returns.
        place: the columns given there.

    Returns:
        One dict a place: its names, value_mean, value_stddev, value_count, ln_mean, ln_stddev,
        sign_min, sign_max, lost_sum.
    """
    options = pc.VarianceOptions(ddof=1)
    points = seeds.group_by(place).aggregate([
        ("value", "mean"),
        ("value", "stddev", options),
        ("value", "count"),
        ("ln", "mean"),
        ("ln", "stddev", options),
        ("sign", "min"),
        ("sign", "max"),
        ("lost", "sum"),
    ])
    points = points.cast(plain(points.schema))
    return points.sort_by([(name, "ascending") for name in place]).to_pylist()


def _geometric(row: dict[str, Any]) -> tuple[float | None, float | None]:
    if row["sign_min"] != row["sign_max"] or row["sign_min"] == 0 or row["ln_mean"] > 700:
        return None, None
    return rounded(row["sign_min"] * math.exp(row["ln_mean"])), rounded(row["ln_stddev"])


def over_seeds(measurements: pa.Table) -> Slices:
    """Means and standard deviations (ddof = 1) over seeds of every slice, variant, size and step.

    Rows of one seed (layers, roles, heads) are averaged first, so that seeds are the replicates;
    the geometric mean is that of these averages. Incomplete replicates are left out and counted.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        The slices in the order of their names.
    """
    usable, paired = single_units(measurements)
    law_of = _laws(named(usable, ("law",)))
    # every column that goes is two to four times as many rows of it
    sited = with_sites(usable).drop_columns(["layer", "role", "head", "law", "status"])
    binned = with_depth_bins(named(sited, (*SLICE[:-1], "variant"))).drop_columns("depth")
    place = [*SLICE, "variant", "n_params", "step"]
    slices: dict[tuple[str, ...], dict[str, Any]] = {}
    seeds = with_replicates(binned, place)
    for row in summarised(seeds, place):
        key = tuple(row[name] for name in SLICE)
        law = law_of.get((row["invariant"], row["quantity"]), "")
        empty = {**dict(zip(SLICE, key, strict=True)), "law": law, "points": {}, "left_out": []}
        entry = slices.setdefault(key, empty)
        at = [row["n_params"], None if row["step"] == NO_STEP else row["step"]]
        if row["lost_sum"]:
            entry["left_out"].append([row["variant"], *at, row["lost_sum"]])
        if row["value_count"]:
            entry["points"].setdefault(row["variant"], []).append([
                *at,
                rounded(row["value_mean"]),
                rounded(row["value_stddev"]),
                row["value_count"],
                *_geometric(row),
            ])
    _add_runs(slices, seeds)
    return Slices([entry for entry in slices.values() if entry["points"]], paired)


def _laws(binned: pa.Table) -> dict[tuple[str, str], str]:
    laws = binned.filter(pc.equal(binned["status"], "ok")).select(["invariant", "quantity", "law"])
    return {
        (row["invariant"], row["quantity"]): row["law"]
        for row in laws.group_by(laws.column_names).aggregate([]).to_pylist()
    }


def _add_runs(slices: dict[tuple[str, ...], dict[str, Any]], seeds: pa.Table) -> None:
    """The trained replicates themselves, for tracks of single runs and the page of one model."""
    kept = pc.and_(pc.equal(seeds["variant"], "trained"), pc.is_valid(seeds["value"]))
    names = ["n_params", "model", "seed", "step"]
    runs = seeds.filter(kept)
    order = runs.select(names).cast(plain(runs.select(names).schema))
    order_R = pc.sort_indices(order, [(name, "ascending") for name in names])
    runs = runs.take(order_R)
    for entry in slices.values():
        entry["runs"] = []
    places, place_of = distinct_rows(runs.select(SLICE))
    lists = [slices[tuple(row[name] for name in SLICE)]["runs"] for row in places.to_pylist()]
    columns = [_shared(runs[name]) for name in ("model", "seed", "n_params", "step", "value")]
    for place, model, seed, n_params, step, value in zip(place_of, *columns, strict=True):
        at = None if step == NO_STEP else step
        lists[place].append([model, seed, n_params, at, rounded(value)])


def _shared(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column, equal texts as one object."""
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        return iter(array.to_pylist())
    texts = [*array.dictionary.to_pylist(), None]
    return (texts[i] for i in array.indices.fill_null(len(texts) - 1).to_pylist())
