"""Barcodes: a persistence diagram of the smallest and of the largest model, beside its nulls."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray.conclude.aggregation.places import depth_bin_of
from scaleinv_ray.report.figures.curves import at_judged_step, when
from scaleinv_ray.report.figures.over_scale import named
from scaleinv_ray.report.pack import rounded

PLACE: tuple[str, ...] = ("series", "family", "invariant", "diagram", "probe", "site")
NUM_BARS = 120
"""Bars drawn of a dimension; of more the longest are."""
DIGITS = 5


def _bars(row: dict[str, Any]) -> list[dict[str, Any]]:
    dimension_B = np.asarray(row["dimension"], dtype=np.int64)
    birth_B = np.asarray(row["birth"], dtype=np.float64)
    death_B = np.asarray([np.inf if d is None else d for d in row["death"]], dtype=np.float64)
    out = []
    for dimension in np.unique(dimension_B).tolist():
        own = dimension_B == dimension
        birth, death = birth_B[own], death_B[own]
        longest = np.argsort(birth - death, kind="stable")[:NUM_BARS]
        chosen = longest[np.lexsort((death[longest], birth[longest]))]
        out.append({
            "dimension": dimension,
            "total": int(own.sum()),
            "birth": [rounded(v, DIGITS) for v in birth[chosen].tolist()],
            "death": [rounded(v, DIGITS) for v in death[chosen].tolist()],
        })
    return out


def _deepest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every third of the depth the deepest row, of the first seed that has one."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: (-(r["depth"] or 0.0), r["seed"] or 0, r["model"] or "")):
        found.setdefault(depth_bin_of(row["depth"]) or "", row)
    return [found[name] | {"bin": name} for name in sorted(found)]


def barcodes(diagrams: pa.Table) -> list[dict[str, Any]]:
    """Barcodes of the smallest and the largest size, of every variant, at the judged step.

    One diagram a variant, size and third of the depth: that of its deepest layer, of the first
    seed. Diagrams are not averaged.

    Args:
        diagrams: a table of schema `tables.DIAGRAMS`.

    Returns:
        One dict a place: the names of `PLACE`, `when`, and `panels` with variant, n_params, bin,
        model, layer, and `bars`: one dict a homology dimension with total, birth and death (None:
        never).
    """
    kept, steps = at_judged_step(diagrams, trained_only=False)
    kept = named(kept, PLACE)
    groups: dict[Any, dict[Any, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    light = [n for n in kept.column_names if n not in {"dimension", "birth", "death"}]
    for i, row in enumerate(kept.select(light).to_pylist()):
        where = tuple(row[name] for name in PLACE)
        groups[where][row["variant"], row["n_params"]].append(row | {"index": i})
    out = []
    for where in sorted(groups):
        sizes = {n for _, n in groups[where]}
        panels = [
            _panel(kept, row)
            for (_, n_params), rows in sorted(groups[where].items())
            if n_params in {min(sizes), max(sizes)}
            for row in _deepest(rows)
        ]
        place = dict(zip(PLACE, where, strict=True))
        out.append({**place, "when": when(steps.get(where[0])), "panels": panels})
    return out


def _panel(diagrams: pa.Table, row: dict[str, Any]) -> dict[str, Any]:
    names = ("dimension", "birth", "death")
    arrays = {name: diagrams[name][row["index"]].as_py() or [] for name in names}
    facts = {name: row[name] for name in ("variant", "n_params", "bin", "model", "layer")}
    return {**facts, "bars": _bars(arrays)}
