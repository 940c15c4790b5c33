"""The measurements behind the figures, row by row: key, parameters, code version, digest."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from scaleinv_ray.conclude.aggregation.places import bins_of, sites_of
from scaleinv_ray.report.pack import column, columns, distinct_rows, plain

UNIT: tuple[str, ...] = (
    "run_id",
    "unit",
    "series",
    "model",
    "architecture",
    "n_params",
    "n_layers",
    "d_model",
    "seed",
    "step",
    "train_tokens",
    "eval_loss",
    "variant",
    "protocol",
    "weights_digest",
    "code_version",
)
PLACE: tuple[str, ...] = (
    "probe",
    "probe_tokens",
    "layer",
    "depth",
    "role",
    "head",
    "site",
    "capture",
    "family",
    "invariant",
    "version",
    "quantity",
    "law",
    "params",
)
OWN: tuple[str, ...] = ("key", "unit_b", "value", "stderr", "n", "error_kind", "status", "error")
MAX_ROWS = 300_000
"""Beyond this many rows a page would take seconds to unpack them; they are in the table only."""


def _flags(measurements: pa.Table) -> list[str]:
    texts: dict[Any, str] = {None: "", (): ""}
    out = []
    for pairs in measurements["flags"].to_pylist():
        key = pairs if pairs is None else tuple(pairs)
        if key not in texts:
            texts[key] = json.dumps(dict(pairs), sort_keys=True)
        out.append(texts[key])
    return out


def row_details(measurements: pa.Table) -> dict[str, Any]:
    """Every measurement, in three tables that name each unit and each place once.

    Args:
        measurements: a table of schema `tables.MEASUREMENTS`.

    Returns:
        `total` rows of the run; `units`, `places` and `rows` as `pack.columns` has them, where
        rows name their unit and place by index, and places the `sites` and depth `bins` at which
        their rows count. With more than `MAX_ROWS` rows there are none.
    """
    total = measurements.num_rows
    kept = measurements if total <= MAX_ROWS else measurements.slice(0, 0)
    units, unit_of = distinct_rows(kept.select(UNIT))
    places, place_of = distinct_rows(kept.select(PLACE))
    own: dict[str, Any] = {"unit_at": unit_of, "place_at": place_of}
    own |= {name: column([plain(v) for v in kept[name].to_pylist()]) for name in OWN}
    own["flags"] = column(_flags(kept))
    rows = {"rows": kept.num_rows, "columns": own}
    where = columns(places)
    where["columns"] |= {
        "sites": [[site or "" for site in sites_of(row)] for row in places.to_pylist()],
        "bins": [bins_of(depth) for depth in places["depth"].to_pylist()],
    }
    return {"total": total, "units": columns(units), "places": where, "rows": rows}
