"""The tables beside the verdicts: pairs, collapses, classes, transitions, stages and others.

What the page reads of each stands here and nowhere else in Python; `sections/across.js` and
`sections/capabilities.js` have the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from scaleinv_ray.report.pack import columns

_WHERE = ("series", "probe", "family", "invariant")
READ: Mapping[str, tuple[str, ...]] = {
    "pairs": (
        *_WHERE, "quantity", "site", "depth_bin", "step", "variant", "model_a", "model_b",
        "n_params_a", "n_params_b", "value", "stderr", "ceiling", "ceiling_low", "ceiling_high",
        "floor", "relative", "n_pairs", "reason",
    ),
    "collapses": (
        *_WHERE, "curve", "site", "depth_bin", "step", "variant", "S", "S_rescaled", "exponent_x",
        "exponent_y", "supercollapse", "n_models", "n_seeds", "reason",
    ),
    "classes": (
        *_WHERE, "site", "depth_bin", "step", "comparison", "n_params", "outcome", "class",
        "members", "distance", "width", "apart", "p", "quality", "n_seeds", "reason",
    ),
    "transitions": (
        "series", "model", "seed", "probe", "family", "invariant", "quantity", "site", "depth_bin",
        "kind", "step", "step_low", "step_high", "slope_before", "slope_after", "p", "q", "n_asked",
        "by_chance", "reason",
    ),
    "capabilities": (
        "model", "seed", "step", "tokens", "n_params", "task", "metric", "value", "stderr",
        "chance",
    ),
    "emergence": (
        *_WHERE, "quantity", "site", "depth_bin", "task", "metric", "n_runs", "n_sizes",
        "correlation", "p", "q", "n_asked", "by_chance", "least_p", "p_given_loss", "lead",
        "lead_low", "lead_high", "spacing", "predicted", "predicted_low", "predicted_high",
        "observed", "naive_error", "outcome", "reason",
    ),
    "stages": (
        "series", "model", "seed", "step_low", "step_high", "spectrum", "spectrum_change",
        "behaviour", "behaviour_change", "n_events", "n_coincident", "expected", "p", "p_series",
        "reason",
    ),
    "orders": (
        *_WHERE, "quantity", "site", "depth_bin", "n_runs", "n_sizes", "n_sigmoid", "n_power_law",
        "bic", "width", "slope", "slope_low", "slope_high", "p", "outcome", "reason",
    ),
    "matches": (
        "series", "model", "seed", "step", "variant", "probe", "site", "layer", "value", "stderr",
        "outcome", "names", "predicted", "probability", "no_match_probability", "coverage",
        "reason",
    ),
}  # fmt: skip
"""Columns that the page reads of each table; a table may have more."""


def check(name: str, table: pa.Table) -> None:
    """Refuses a table that lacks what the page reads.

    Args:
        name: a key of `READ`.
        table: as it was given.

    Raises:
        ValueError: naming the columns that are missing.
    """
    missing = sorted(set(READ[name]) - set(table.column_names))
    if missing:
        raise ValueError(f"{name}: got no columns {missing}, allowed a table with {READ[name]}")


def compared(tables: Mapping[str, pa.Table | None], names: Iterable[str]) -> dict[str, Any]:
    """The tables by columns, null where a run has none.

    Args:
        tables: name -> table, None where it was not made.
        names: keys of `READ`.

    Returns:
        Name -> what `pack.columns` returns, or None.
    """
    out: dict[str, Any] = {}
    for name in names:
        table = tables.get(name)
        if table is not None:
            check(name, table)
        out[name] = None if table is None else columns(table, READ[name])
    return out
