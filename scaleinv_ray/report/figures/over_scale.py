"""From the table of values to the points of the figures: means and deviations over seeds.

A slice is one (series, family, invariant, quantity, probe, site, depth bin). Its points are given
per variant, number of parameters and step, so that a page stays small however many rows a run has.
What counts has been decided where it was concluded (`ValueRow`); the rest is listed with its
reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, step_or_none
from scaleinv_ray.report.pack import distinct_rows, rounded
from scaleinv_ray.tables import plain

SLICE: tuple[str, ...] = ("series", "family", "invariant", "quantity", "probe", "site", "bin")
POINT: tuple[str, ...] = (*SLICE, "variant", "n_params", "step")
MOST_RUNS = 120
"""Lines of a figure: of more the first seeds of each size are drawn."""
RUN_DIGITS = 5


def named(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """The table with missing names in these columns as empty strings."""
    for name in columns:
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, pc.fill_null(table[name], ""))
    return table


def at_equal_steps(values: pa.Table) -> pa.Table:
    """The values of all models step by step, those that do not count with them.

    Args:
        values: a table of `ValueRow`.

    Returns:
        Rows of models of known size, with the depth bin as `bin`; missing names are empty, the
        step is `NO_STEP` where there is none.
    """
    chosen = pc.and_(pc.equal(values["comparison"], "equal_steps"), pc.is_valid(values["n_params"]))
    kept = values.filter(chosen).unify_dictionaries()
    kept = kept.rename_columns(["bin" if n == "depth_bin" else n for n in kept.column_names])
    step = kept.schema.get_field_index("step")
    kept = kept.set_column(step, "step", pc.fill_null(kept["step"], NO_STEP))
    return named(kept, (*SLICE, "variant"))


def summarised(seeds: pa.Table, place: Iterable[str]) -> list[dict[str, Any]]:
    """Means, deviations (ddof = 1) and counts over replicates, in the order of the place.

    Args:
        seeds: one row a replicate, with the columns of the place and its value.
        place: the columns within which replicates are set beside each other.

    Returns:
        One dict a place: its names, value_mean, value_stddev, value_count, ln_mean, ln_stddev,
        sign_min, sign_max, and over_training_any where seeds have that column.
    """
    names = list(place)
    seeds = seeds.append_column("ln", pc.ln(pc.abs(seeds["value"])))
    seeds = seeds.append_column("sign", pc.sign(seeds["value"]))
    options = pc.VarianceOptions(ddof=1)
    asked: list[tuple[Any, ...]] = [
        ("value", "mean"),
        ("value", "stddev", options),
        ("value", "count"),
        ("ln", "mean"),
        ("ln", "stddev", options),
        ("sign", "min"),
        ("sign", "max"),
    ]
    if "over_training" in seeds.column_names:
        asked.append(("over_training", "any"))
    points = seeds.group_by(names).aggregate(asked)
    points = points.cast(plain(points.schema))
    return points.sort_by([(name, "ascending") for name in names]).to_pylist()


def _geometric(row: dict[str, Any]) -> tuple[float | None, float | None]:
    if row["sign_min"] != row["sign_max"] or row["sign_min"] == 0 or row["ln_mean"] > 700:
        return None, None
    return rounded(row["sign_min"] * math.exp(row["ln_mean"])), rounded(row["ln_stddev"])


def over_seeds(values: pa.Table) -> list[dict[str, Any]]:
    """Means and standard deviations (ddof = 1) over seeds of every slice, variant, size and step.

    Args:
        values: a table of `ValueRow`.

    Returns:
        One dict a slice with a value, in the order of their names: the names of `SLICE`, law,
        `points`: variant -> list of [n_params, step, mean, sd over seeds or None, number of seeds,
        geometric mean or None (values of both signs, or zero), sd of ln|value| or None, whether it
        counts over training], `left_out`: list of [variant, n_params, step, reason, replicates],
        and `runs`: list of [model, seed, n_params, step, value, whether it counts over training],
        the trained replicates.
    """
    rows = at_equal_steps(values)
    counted = rows.filter(rows["counted"])
    slices: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in summarised(counted, (*POINT, "law")):
        key = tuple(row[name] for name in SLICE)
        empty: dict[str, Any] = {"law": row["law"] or "", "points": {}, "left_out": [], "runs": []}
        entry = slices.setdefault(key, {**dict(zip(SLICE, key, strict=True)), **empty})
        entry["points"].setdefault(row["variant"], []).append([
            row["n_params"],
            step_or_none(row["step"]),
            rounded(row["value_mean"]),
            rounded(row["value_stddev"]),
            row["value_count"],
            *_geometric(row),
            row["over_training_any"],
        ])
    _add_left_out(slices, rows.filter(pc.invert(rows["counted"])))
    _add_runs(slices, counted.filter(pc.equal(counted["variant"], "trained")))
    return list(slices.values())


def _add_left_out(slices: dict[tuple[str, ...], dict[str, Any]], lost: pa.Table) -> None:
    """What does not count, by reason."""
    names = [*POINT, "reason"]
    counts = lost.group_by(names).aggregate([([], "count_all")])
    counts = counts.cast(plain(counts.schema)).sort_by([(name, "ascending") for name in names])
    for row in counts.to_pylist():
        if entry := slices.get(tuple(row[name] for name in SLICE)):
            at = [row["variant"], row["n_params"], step_or_none(row["step"])]
            entry["left_out"].append([*at, row["reason"], row["count_all"]])


def _add_runs(slices: dict[tuple[str, ...], dict[str, Any]], runs: pa.Table) -> None:
    """The trained replicates themselves, for tracks of single runs and the page of one model."""
    names = ["n_params", "model", "seed", "step"]
    order = runs.select(names).cast(plain(runs.select(names).schema))
    order_R = pc.sort_indices(order, [(name, "ascending") for name in names])
    runs = runs.take(order_R)
    places, place_of = distinct_rows(runs.select(SLICE))
    lists = [slices[tuple(row[name] for name in SLICE)]["runs"] for row in places.to_pylist()]
    told = ("model", "seed", "n_params", "step", "value", "over_training")
    columns = [_shared(runs[name]) for name in told]
    for place, model, seed, n_params, step, value, follows in zip(place_of, *columns, strict=True):
        lists[place].append([model, seed, n_params, step_or_none(step), rounded(value), follows])


def _shared(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column, equal texts as one object."""
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        return iter(array.to_pylist())
    texts = [*array.dictionary.to_pylist(), None]
    return (texts[i] for i in array.indices.fill_null(len(texts) - 1).to_pylist())


def with_drawn_runs(
    slices: Iterable[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Slices with the runs that are drawn of each: those with several checkpoints.

    Args:
        slices: what `over_seeds` returns.

    Returns:
        The slices, whose `runs` are `of` (places among the runs), `steps` and `values` of each, and
        `left_out`, the number of runs beyond `MOST_RUNS`; and the runs: [model, seed, n_params].

    >>> runs = [["m", 0, 10, step, step / 4, True] for step in (2, 1)]
    >>> [slice], named = with_drawn_runs([{"quantity": "q", "runs": runs}])
    >>> slice["runs"], named
    ({'of': [0], 'steps': [[1, 2]], 'values': [[0.25, 0.5]], 'left_out': 0}, [['m', 0, 10]])
    """
    places: dict[tuple[Any, ...], int] = {}
    out = []
    for entry in slices:
        curves: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
        for model, seed, n_params, step, value, follows in entry["runs"]:
            if step is not None and follows:
                curves.setdefault((model, seed, n_params), []).append((step, value))
        several = [run for run, curve in curves.items() if len(curve) > 1]
        drawn = _chosen(several)
        ordered = [sorted(curves[run]) for run in drawn]
        out.append({
            **entry,
            "runs": {
                "of": [places.setdefault(run, len(places)) for run in drawn],
                "steps": [[step for step, _ in curve] for curve in ordered],
                "values": [[rounded(value, RUN_DIGITS) for _, value in curve] for curve in ordered],
                "left_out": len(several) - len(drawn),
            },
        })
    return out, [list(run) for run in places]


def _chosen(runs: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """As many runs as are drawn: the first of every size, then the second of every size .."""
    if len(runs) <= MOST_RUNS:
        return runs
    nth: dict[int, int] = {}
    rank = {}
    for at, run in enumerate(runs):
        nth[run[2]] = nth.get(run[2], -1) + 1
        rank[run] = (nth[run[2]], at)
    kept = set(sorted(runs, key=rank.__getitem__)[:MOST_RUNS])
    return [run for run in runs if run in kept]
