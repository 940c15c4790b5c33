"""Spectroscopy of a run that never happened: a bulk that narrows, an outlier that leaves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.singularities import matches_table
from tests.report.synthetic_tables import STEPS, measurement, unit

CURVE_NAMES = ("probe", "site", "layer", "depth", "role", "head")


def place(site: str, layer: int | None, family: str, invariant: str) -> dict[str, Any]:
    return {
        "layer": layer, "depth": None if layer is None else (layer + 1) / 4, "role": None,
        "head": None, "site": site, "capture": "hessian", "family": family,
        "invariant": f"{family}.{invariant}", "version": 1,
    }  # fmt: skip


def curve(
    width: int, step: int, at: dict[str, Any], name: str, xy: Any, stderr: list[float] | None = None
) -> dict[str, Any]:
    key = unit(width, 0, step, "trained")
    base = {n: key[n] for n in tables.CURVES.names if n in key}
    values = {"x": xy[0], "y": xy[1], "y_stderr": stderr}
    return {**base, **at, "params": "{}", "curve": name, **values}


def nodes(step: int) -> tuple[list[float], list[float]]:
    """A semicircle of width 1, and from step 30 on an outlier of weight 1e-3 at 3 + log step."""
    x = np.cos(np.pi * np.arange(1, 31) / 31)
    w = np.sin(np.pi * np.arange(1, 31) / 31) ** 2
    if step >= 30:
        x, w = np.append(x, 3 + np.log(step)), np.append(w / w.sum(), 1e-3)
    return x.tolist(), (w / w.sum()).tolist()


def curves() -> pa.Table:
    rows = []
    for width in (32, 64):
        for site, layer in (("model", None), ("layer", 0)):
            at = place(site, layer, "curvature", "hessian_density")
            rows += [curve(width, step, at, "density", nodes(step)) for step in STEPS]
        at = place("model", None, "bands", "hessian_bands")
        late = [float(s) for s in STEPS if s >= 30]
        outlier = (late, [3 + np.log(s) for s in late])
        rows.append(curve(width, 300, at, "band_1", outlier, [0.1, 0.2, 0.3]))
        rows.append(curve(width, 300, at, "band_2", ([float(s) for s in STEPS], [1.0] * 5)))
    return tables.encode(rows, tables.CURVES)


def coefficient(width: int, step: int, **changes: Any) -> dict[str, Any]:
    return measurement(
        **unit(width, 0, step, "trained"),
        **place("model", None, "degeneracy", "learning_coefficient") | {"capture": "chains"},
        quantity="lambda",
        law="power_law",
        value=10.0 + np.log1p(step),
        stderr=0.2,
        **changes,
    )


def coefficients() -> pa.Table:
    """Of two runs: one rejected, one warned of, the others ok."""
    rows = []
    for width in (32, 64):
        for step in STEPS:
            flags = {"verdict": "ok", "reasons": ""}
            if step == 10:
                flags |= {"verdict": "warn", "reasons": "ess: 80, wants 100"}
            row = coefficient(width, step, flags=flags)
            if step == 0:
                reason = "not a local minimum: lambda -3 +- .1"
                row["flags"] = {"verdict": "reject", "reasons": reason}
                row |= {"value": None, "stderr": None, "status": "refused", "error": reason}
            rows.append(row)
    return tables.encode(rows, tables.MEASUREMENTS)


def stages() -> pa.Table:
    """One in which an eigenvalue and the copying gain moved."""
    row = {
        "series": "ladder", "model": "d32", "seed": 0, "step_low": 20.0, "step_high": 40.0,
        "spectrum": ["curvature.hessian_density lambda_max: +1.5"], "spectrum_change": [1.5],
        "behaviour": ["behaviour.capabilities copying_gain: -0.4"], "behaviour_change": [-0.4],
        "n_events": 1, "n_coincident": 1, "expected": 0.3, "p": 0.3, "p_series": 0.04,
        "reason": None,
    }  # fmt: skip
    return tables.encode([row], SCHEMAS["stages"])


def matches() -> pa.Table:
    """One coefficient of a cusp, the others none of the dictionary."""
    rows = coefficients().to_pylist(maps_as_pydicts="strict")
    rows[-1] |= {"value": 5 / 12, "stderr": 0.002}
    return tables.encode(matches_table(rows), SCHEMAS["matches"])


def operators(*, refused: str | None = None, requests: str = "") -> pa.Table:
    """What stands for the curves of both families: one row a checkpoint, one a run."""
    values = {"value": 2.0, "stderr": 0.0, "law": "none", "flags": {}}
    rows = []
    for width in (32, 64):
        at = place("model", None, "curvature", "hessian_density") | {"quantity": "mean_square"}
        rows += [measurement(**unit(width, 0, step, "trained"), **at | values) for step in STEPS]
        at = place("model", None, "bands", "hessian_bands") | {"quantity": "num_tracks"}
        flags = {"requests": requests} if requests else {}
        rows.append(
            measurement(**unit(width, 0, STEPS[-1], "trained"), **at | values | {"flags": flags})
        )
    if refused:
        nothing = {"value": None, "stderr": None, "status": "refused", "error": refused}
        rows = [row | nothing for row in rows]
    return tables.encode(rows, tables.MEASUREMENTS)
