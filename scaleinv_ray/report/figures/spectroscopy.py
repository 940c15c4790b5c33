"""Neural spectroscopy on the page: densities of states, band tracks and learning coefficients.

A density of states is drawn as a ridge over checkpoints. Smoothing serves the eye alone: every
invariant comes from the nodes and weights themselves.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.report.figures.over_scale import NO_STEP
from scaleinv_ray.report.pack import rounded

DENSITY = "density"
BAND = re.compile(r"band_(\d+)")
COEFFICIENT = "degeneracy.learning_coefficient"
STANDS_FOR = {"curvature": "mean_square", "bands": "num_tracks"}
"""Family -> quantity that has a value wherever its curves can be had."""
RUN: tuple[str, ...] = ("series", "model", "seed", "n_params", "variant")
PLACE: tuple[str, ...] = ("probe", "family", "invariant", "site", "layer")
NUM_POINTS = 161
DECADES = 4
"""Decades of |eigenvalue| drawn on either side of zero, below the largest of all checkpoints."""
WIDTH = 0.06
"""Standard deviation of the smoothing kernel, in decades."""
FLOOR = 1e-6
MAX_RIDGES = 120
"""Ridges that travel with the page; whole models and trained ones come first."""
MAX_STEPS = 60
"""Checkpoints of a ridge that are drawn, evenly over the run, the first and the last among them."""
SITES = ("model", "layer", "attention", "mlp", "embedding")

Key = tuple[Any, ...]


def spectroscopy(curves: pa.Table, measurements: pa.Table) -> dict[str, Any]:
    """What the section draws.

    Returns:
        `ridges`, `left_out` (places of ridges beyond `MAX_RIDGES`), `tracks`, `coefficients`,
        `absent` and `followed`, each a list of dicts with the names of `RUN` and `PLACE`.
    """
    found = sorted(ridges(curves), key=_rank)
    return {
        "ridges": found[:MAX_RIDGES],
        "left_out": [{name: at[name] for name in (*RUN, *PLACE)} for at in found[MAX_RIDGES:]],
        "tracks": sorted(tracks(curves), key=_rank),
        "coefficients": sorted(coefficients(measurements), key=_rank),
        "absent": sorted(absent(measurements), key=_rank),
        "followed": sorted(followed(measurements), key=_rank),
    }


def ridges(curves: pa.Table) -> list[dict[str, Any]]:
    """Densities of states of one operator of one run, checkpoint after checkpoint.

    The axis is t = sign(x) (DECADES + log10(|x| / top)) with top the largest |eigenvalue| of all
    checkpoints, zero where it would change sign; a density is per unit of t, and drawn as its
    log10 above `FLOOR`.

    Returns:
        Dicts with the run, the place, `top`, `t`, `num_steps` (all checkpoints), and of at most
        MAX_STEPS of them `steps` and `y`, a list for every step.
    """
    rows = curves.filter(pc.equal(curves["curve"], DENSITY))
    out = []
    for key, group in _grouped(rows).items():
        spectra = [(_step(row), *_numbers(row)) for row in group]
        top = max((float(np.abs(x[w > 0]).max(initial=0.0)) for _, x, w in spectra), default=0.0)
        if top == 0:
            continue
        grid = np.linspace(-DECADES - 0.4, DECADES + 0.4, NUM_POINTS)
        spectra.sort(key=lambda spectrum: spectrum[0])
        used = np.linspace(0, len(spectra) - 1, min(len(spectra), MAX_STEPS)).round().astype(int)
        drawn = [(step, _smooth(x, w, top, grid)) for step, x, w in (spectra[i] for i in used)]
        out.append({
            **_columns_of(key),
            "top": rounded(top, 4),
            "t": [rounded(t, 4) for t in grid],
            "num_steps": len(spectra),
            "steps": [step for step, _ in drawn],
            "y": [y for _, y in drawn],
        })
    return out


def _smooth(x: np.ndarray, w: np.ndarray, top: float, grid: np.ndarray) -> list[float]:
    size = np.maximum(np.abs(x) / top, 10.0**-DECADES)
    t = np.sign(x) * (DECADES + np.log10(size))
    kernel = np.exp(-0.5 * ((grid[:, None] - t) / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi))
    density = kernel @ (w / w.sum())
    return [round(float(v), 3) for v in np.log10(np.maximum(density, FLOOR) / FLOOR)]


def tracks(curves: pa.Table) -> list[dict[str, Any]]:
    """Bands of one operator of one run, followed over its checkpoints.

    Returns:
        Dicts with the run, the place and `bands`, each with its number, x (steps), y (eigenvalues)
        and e (their errors over probe vectors, None where unknown).
    """
    names = [name for name in pc.unique(curves["curve"]).to_pylist() if BAND.fullmatch(name or "")]
    rows = curves.filter(pc.is_in(curves["curve"], pa.array(names, pa.string())))
    out = []
    for key, group in _grouped(rows).items():
        bands = []
        for row in sorted(group, key=_number):
            x, y = _numbers(row)
            errors = row["y_stderr"] or [None] * len(x)
            points = zip(x.tolist(), y.tolist(), errors, strict=True)
            kept = [point for point in points if np.isfinite(point[1])]
            bands.append({
                "band": _number(row),
                "x": [a for a, *_ in kept],
                "y": [rounded(b, 4) for _, b, _ in kept],
                "e": [rounded(e, 2) for *_, e in kept],
            })
        out.append({**_columns_of(key), "bands": bands})
    return out


def absent(measurements: pa.Table) -> list[dict[str, Any]]:
    """Operators and bands that were asked for and have nothing to draw at some checkpoints.

    Returns:
        Dicts with the run, the place and `reasons`, each with its text and its `steps`.
    """
    out = []
    for key, group in _grouped(_standing_for(measurements)).items():
        reasons: dict[str, list[int]] = defaultdict(list)
        for row in sorted(group, key=_step):
            if row["status"] != "ok":
                reasons[row["error"] or row["status"]].append(_step(row))
            elif row["quantity"] == STANDS_FOR["bands"] and row["value"] == 0:
                reasons["no band stands apart from the bulk"].append(_step(row))
        if reasons:
            said = [{"text": text, "steps": steps} for text, steps in reasons.items()]
            out.append({**_columns_of(key), "reasons": said})
    return out


def followed(measurements: pa.Table) -> list[dict[str, Any]]:
    """What was said of the bands of one operator of one run while they were followed.

    Returns:
        Dicts with the run, the place, `requests` (checkpoints in between that would tell which
        band is which) and `crossings`, texts, one of them at least not empty.
    """
    out = []
    for key, group in _grouped(_standing_for(measurements)).items():
        flags = dict(group[-1]["flags"] or ())
        said = {name: flags.get(name, "") for name in ("requests", "crossings")}
        if any(said.values()):
            out.append({**_columns_of(key), **said})
    return out


def _standing_for(measurements: pa.Table) -> pa.Table:
    wanted = [
        pc.and_(pc.equal(measurements["family"], family), pc.equal(measurements["quantity"], name))
        for family, name in STANDS_FOR.items()
    ]
    return measurements.filter(pc.or_(*wanted))


def _number(row: dict[str, Any]) -> int:
    match = BAND.fullmatch(row["curve"])
    assert match is not None
    return int(match[1])


def coefficients(measurements: pa.Table) -> list[dict[str, Any]]:
    """Learning coefficients of one run over its checkpoints, with what was said of each.

    Returns:
        Dicts with the run, the place, the quantity and `points`: step, value and stderr (None
        where refused), verdict (of the chains; `none` where they are not rejected and this quantity
        cannot be had of them), reasons.
    """
    rows = measurements.filter(pc.equal(measurements["invariant"], COEFFICIENT))
    rows = rows.filter(pc.starts_with(rows["quantity"].cast(pa.string()), "lambda"))
    out = []
    for key, group in _grouped(rows, ("quantity",)).items():
        points = [_point(row) for row in sorted(group, key=_step)]
        out.append({**_columns_of(key[:-1]), "quantity": key[-1], "points": points})
    return out


def _point(row: dict[str, Any]) -> dict[str, Any]:
    flags = dict(row["flags"] or ())
    refused = row["status"] != "ok"
    # a record without a value has no flags
    verdict = flags.get("verdict", "reject" if refused else "ok")
    return {
        "step": _step(row),
        "value": None if refused else rounded(row["value"], 5),
        "stderr": None if refused else rounded(row["stderr"], 3),
        "verdict": "none" if refused and verdict != "reject" else verdict,
        "reasons": row["error"] if refused else flags.get("reasons", ""),
    }


def _grouped(rows: pa.Table, more: Iterable[str] = ()) -> dict[Key, list[dict[str, Any]]]:
    groups: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_pylist():
        groups[tuple(row[name] for name in (*RUN, *PLACE, *more))].append(row)
    return groups


def _columns_of(key: Key) -> dict[str, Any]:
    return dict(zip((*RUN, *PLACE), key, strict=True))


def _rank(at: dict[str, Any]) -> tuple[Any, ...]:
    """Trained whole models first."""
    site = SITES.index(at["site"]) if at["site"] in SITES else len(SITES)
    names = tuple(str(at[name]) for name in ("series", "probe", "invariant", "model", "variant"))
    numbers = tuple(-1 if at[n] is None else at[n] for n in ("layer", "n_params", "seed"))
    return (at["variant"] != "trained", site, *numbers, *names)


def _numbers(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(row["x"], dtype=np.float64), np.asarray(row["y"], dtype=np.float64)


def _step(row: dict[str, Any]) -> int:
    return NO_STEP if row["step"] is None else row["step"]
