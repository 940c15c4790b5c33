"""From stored curves to one mean curve per size, and to the poles of the complex plane."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.completeness import Location, whole_replicates
from scaleinv_ray.conclude.aggregation.matched_checkpoints import Replicate
from scaleinv_ray.report.figures.over_scale import NO_STEP, named
from scaleinv_ray.report.figures.places import placed
from scaleinv_ray.report.pack import rounded

NUM_POINTS = 96
"""Points drawn of a curve: more cannot be told apart on a figure of 800 pixels."""
NUM_POLES = 600
"""Poles drawn of a size; beyond that every k-th is."""
PLACE: tuple[str, ...] = ("series", "family", "invariant", "curve", "probe", "site", "bin")

XY = tuple[np.ndarray, np.ndarray]
Curves = list[tuple[Location, XY]]


def is_poles(curve: str) -> bool:
    """Whether a curve holds points of the complex plane (x real part, y imaginary part)."""
    return curve == "poles" or curve.endswith("_poles")


def _spread(low: float, high: float) -> np.ndarray:
    if low > 0 and high > 100 * low:
        return np.geomspace(low, high, NUM_POINTS)
    return np.linspace(low, high, NUM_POINTS)


def common_grid(xs: list[np.ndarray]) -> np.ndarray | None:
    """A grid on which curves may be averaged.

    Args:
        xs: increasing grids of several curves.

    Returns:
        The grid itself where all are equal (thinned to `NUM_POINTS`, evenly in ln x where x spans
        more than two decades), else points over the range that all share; None without one.

    >>> common_grid([np.array([0.0, 1.0]), np.array([0.0, 1.0])])
    array([0., 1.])
    """
    first = xs[0]
    if all(np.array_equal(first, x) for x in xs[1:]):
        if len(first) <= NUM_POINTS:
            return first
        chosen = np.searchsorted(first, _spread(first[0], first[-1]))
        return first[np.unique(np.minimum(chosen, len(first) - 1))]
    low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
    return _spread(low, high) if low < high else None


def _mean_over_seeds(seeds: dict[Any, list[XY]]) -> tuple[np.ndarray, ...] | None:
    grid = common_grid([x for curves in seeds.values() for x, _ in curves])
    if grid is None:
        return None
    per_seed = np.array([
        np.mean([np.interp(grid, x, y) for x, y in curves], axis=0) for curves in seeds.values()
    ])
    spread = per_seed.std(axis=0, ddof=1) if len(per_seed) > 1 else np.full(len(grid), np.nan)
    return grid, per_seed.mean(axis=0), spread


def _rounded(values: np.ndarray) -> list[float | None]:
    return [rounded(float(v), 4) for v in values]


def _line(n_params: int, seeds: dict[Any, list[XY]]) -> dict[str, Any] | None:
    mean = _mean_over_seeds(seeds)
    if mean is None:
        return None
    x, y, sd = (_rounded(v) for v in mean)
    return {"n_params": n_params, "seeds": len(seeds), "x": x, "y": y, "sd": sd}


def _poles(n_params: int, seeds: dict[Any, list[XY]]) -> dict[str, Any]:
    x, y = (np.concatenate([c[i] for curves in seeds.values() for c in curves]) for i in (0, 1))
    kept = np.unique(np.linspace(0, len(x) - 1, min(NUM_POLES, len(x))).astype(int))
    return {
        "n_params": n_params,
        "seeds": len(seeds),
        "x": _rounded(x[kept]),
        "y": _rounded(y[kept]),
        "total": len(x),
    }


def _replicate_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["n_params"], row["model"], row["seed"]


def _judged_steps(trained: pa.Table) -> dict[str, int | None]:
    """Of each series the last step that all its models have, where they have one in common."""
    names = ["series", "n_params", "model", "seed", "step"]
    steps: dict[str, dict[Any, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in trained.select(names).group_by(names).aggregate([]).to_pylist():
        steps[row["series"]][_replicate_of(row)].add(row["step"])
    return {
        series: max(set.intersection(*of_model.values()), default=None)
        for series, of_model in steps.items()
    }


def at_judged_step(rows: pa.Table, *, trained_only: bool) -> tuple[pa.Table, dict[str, int | None]]:
    """Rows at the last step that all trained models of their series have in common.

    Args:
        rows: with the key columns of `tables.CURVES`.
        trained_only: whether the nulls are left out; else they are those of the last step of each.

    Returns:
        The rows of single units of known size (the last step of each model where there is no
        common one), with step `NO_STEP` where there is none; and series -> its judged step.
    """
    kept = rows.filter(pc.and_(pc.is_null(rows["unit_b"]), pc.is_valid(rows["n_params"])))
    step = pc.fill_null(kept["step"], NO_STEP)
    kept = kept.set_column(kept.schema.get_field_index("step"), "step", step)
    kept = kept.set_column(
        kept.schema.get_field_index("series"), "series", pc.fill_null(kept["series"], "")
    )
    trained = kept.filter(pc.equal(kept["variant"], "trained"))
    judged = _judged_steps(trained)
    kept = trained if trained_only else kept
    facts = kept.select(["series", "variant", "n_params", "model", "seed", "step"]).to_pylist()
    last: dict[Any, int] = {}
    for row in facts:
        last[_run_of(row)] = max(last.get(_run_of(row), NO_STEP), row["step"])
    for row in facts:
        # initial weights have no step of their own
        at = judged.get(row["series"]) if row["variant"] == "trained" else None
        row["wanted"] = row["step"] == (last[_run_of(row)] if at is None else at)
    return kept.filter(pa.array([row["wanted"] for row in facts], pa.bool_())), judged


def _run_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["series"], row["variant"], _replicate_of(row)


def _points_of(row_x: Any, row_y: Any, *, ordered: bool) -> XY | None:
    if not (row_x.is_valid and row_y.is_valid):
        return None
    x, y = (np.asarray(v.values.to_numpy(zero_copy_only=False)) for v in (row_x, row_y))
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        return None
    if ordered:
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return x, y


def mean_curves(curves: pa.Table) -> list[dict[str, Any]]:
    """Mean curve over seeds per size, trained, at the last step that all models have in common.

    Curves of one replicate (layers, roles, heads of the depth bin) are averaged first; one that
    lacks a location that others of its size have is left out. Poles are not averaged: they are
    pooled and thinned.

    Args:
        curves: a table of schema `tables.CURVES`.

    Returns:
        One dict a curve and place: the names of `PLACE`, kind `line` or `poles`, `when` (the step
        in words), and `lines`, one a size with n_params, seeds, x, y, and sd over seeds (line) or
        total (poles). Sizes whose curves share no range of x are counted in `left_out`,
        incomplete replicates in `replicates_left_out`.
    """
    kept, steps = at_judged_step(curves.drop_columns(["y_stderr"]), trained_only=True)
    locations = kept.select(Location._fields).to_pylist()
    at = pa.array(range(len(locations)))
    kept = placed(named(kept.append_column("at", at), [n for n in PLACE[:-1] if n != "site"]))
    names = list(zip(*(kept[c].to_pylist() for c in PLACE), strict=True))
    rows = kept.select([*Replicate._fields, "at"]).to_pylist()
    groups: dict[Any, dict[Replicate, Curves]] = defaultdict(lambda: defaultdict(list))
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        xy = _points_of(kept["x"][i], kept["y"][i], ordered=not is_poles(name[3]))
        if xy is not None:
            location = Location(**locations[row.pop("at")])
            groups[name][Replicate(**row)].append((location, xy))
    return [_figure(name, groups[name], when(steps.get(name[0]))) for name in sorted(groups)]


def when(step: int | None) -> str:
    """A judged step in words; empty where models have no steps."""
    if step is None:
        return "last step of each model"
    return "" if step == NO_STEP else f"step {step:,}"


def _figure(name: tuple[str, ...], found: dict[Replicate, Curves], at: str) -> dict[str, Any]:
    draw = _poles if is_poles(name[3]) else _line
    whole = whole_replicates({r: {location for location, _ in of} for r, of in found.items()})
    sizes: dict[int, dict[Replicate, list[XY]]] = defaultdict(dict)
    for replicate in whole:
        sizes[replicate.n_params][replicate] = [xy for _, xy in found[replicate]]
    lines = [draw(n, sizes[n]) for n in sorted(sizes)]
    drawn = [line for line in lines if line is not None]
    return {
        **dict(zip(PLACE, name, strict=True)),
        "kind": "poles" if is_poles(name[3]) else "line",
        "when": at,
        "lines": drawn,
        "left_out": len(lines) - len(drawn),
        "replicates_left_out": len(found) - len(whole),
    }
