"""One model against its series: every quantity of it, beside what the other models predict.

Shape suffixes: M models, C coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from scaleinv_ray.report.figures.over_scale import SLICE
from scaleinv_ray.report.pack import column, rounded

LEVEL = 0.90
"""Of the intervals of predictions."""
NAMES = (
    "model", "seed", "n_params", "step", *SLICE, "form", "scale", "value", "predicted", "low",
    "high", "z", "others", "is_part",
)  # fmt: skip


class Deleted(NamedTuple):
    """Each model predicted from all others: value, half-width of the interval, and z."""

    predicted_M: np.ndarray
    half_M: np.ndarray
    z_M: np.ndarray


def deleted(design_MC: np.ndarray, y_M: np.ndarray) -> Deleted | None:
    """Prediction of each value from a least-squares fit to all the others.

    With leverage h and residual e of the fit to all, the fit without i misses y_i by e / (1 - h),
    its variance is s_i^2 = (SSE - e^2 / (1 - h)) / (M - C - 1), and the error of a prediction has
    variance s_i^2 / (1 - h); z is the externally studentised residual (Belsley, Kuh & Welsch 1980,
    eq. 2.26), Student's t with M - C - 1 degrees of freedom.

    Args:
        design_MC: regressors of each model.
        y_M: values.

    Returns:
        The predictions, None with M <= C + 1; NaN for a model without which the fit is undefined,
        and for z where the others fit without error.

    >>> found = deleted(np.ones((4, 1)), np.array([0.0, 1.0, -1.0, 6.0]))
    >>> found.predicted_M[-1].item(), round(found.z_M[-1].item(), 3)
    (0.0, 5.196)
    """
    num_models, num_coefficients = design_MC.shape
    df = num_models - num_coefficients - 1
    if df < 1 or np.linalg.matrix_rank(design_MC) < num_coefficients:
        return None
    basis_MC = np.linalg.qr(design_MC)[0]
    leverage_M = (basis_MC**2).sum(axis=1)
    residual_M = y_M - basis_MC @ (basis_MC.T @ y_M)
    left_M = np.where(1 - leverage_M > 1e-9, 1 - leverage_M, np.nan)
    rest_M = (residual_M**2).sum() - residual_M**2 / left_M
    noise = 1e-24 * (y_M**2).sum()  # what rounding leaves of a perfect fit
    stderr_M = np.sqrt(np.where(rest_M > noise, rest_M, 0.0) / df / left_M)
    miss_M = residual_M / left_M
    z_M = np.divide(miss_M, stderr_M, out=np.full(num_models, np.nan), where=stderr_M > 0)
    half_M = stats.t.ppf((1 + LEVEL) / 2, df) * stderr_M
    return Deleted(y_M - miss_M, half_M, z_M)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("series", "family", "invariant", "quantity", "probe", "site", "depth_bin")
    return tuple(row[name] or "" for name in names)


def _judged_runs(place: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[list[Any]]:
    """The replicates at the step of the verdict, or each at its last one."""
    runs: list[list[Any]] = place["runs"]
    if verdict["comparison"] == "equal_steps":
        return [run for run in runs if run[3] == verdict["step"]]
    by_step = sorted(runs, key=lambda run: -1 if run[3] is None else run[3])
    last = {tuple(run[:3]): run for run in by_step}
    return [run for run in runs if last[tuple(run[:3])] is run]


def _of_slice(place: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = [run for run in _judged_runs(place, verdict) if run[4] is not None]
    if len(runs) < 3:  # none where every model refused the quantity
        return []
    value_M = np.array([run[4] for run in runs], dtype=np.float64)
    is_ln = verdict["unit"] is None and len(set(np.sign(value_M)) - {0.0}) == 1 and all(value_M)
    y_M = np.log(np.abs(value_M)) if is_ln else value_M
    flat = (verdict["verdict"] or "").startswith("conserved") or verdict["form"] == "constant"
    ln_M = np.log(np.array([run[2] for run in runs], dtype=np.float64))
    ones_M = np.ones(len(runs))
    design_MC = np.stack([ones_M] if flat else [ones_M, ln_M - ln_M.mean()], axis=1)
    found = deleted(design_MC, y_M)
    if found is None:
        return []
    sign = np.sign(value_M[0]) if is_ln else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        ends = [
            sign * np.exp(y) if is_ln else y
            for y in (
                found.predicted_M,
                found.predicted_M - found.half_M,
                found.predicted_M + found.half_M,
            )
        ]
    form = "constant" if flat else "power" if is_ln else "log"
    scale = "ln" if is_ln else "linear"
    out = []
    for i, (model, seed, n_params, step, value, _) in enumerate(runs):
        predicted, *interval = (rounded(float(end[i])) for end in ends)
        finite = [end for end in interval if end is not None]
        low, high = sorted(finite) if len(finite) == 2 else (None, None)
        place_values = {name: place[name] for name in SLICE}
        out.append({
            "model": model, "seed": seed, "n_params": n_params, "step": step, **place_values,
            "form": form, "scale": scale, "value": value, "predicted": predicted, "low": low,
            "high": high, "z": rounded(float(found.z_M[i]), 4), "others": len(runs) - 1,
            "is_part": bool(verdict["is_part"]),
        })  # fmt: skip
    return out


def against_series(
    slices: Iterable[Mapping[str, Any]], verdicts: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Every trained model beside the prediction from all other models of its series.

    Over the whole depth, at the step judged at equal steps, else at the last of each: a constant
    where the verdict is conserved or its form constant, else a straight line in ln N; on ln|I|, or
    on the quantity itself where it has a unit, vanishes or changes sign. Other seeds of the model's
    own size are among the others.

    Args:
        slices: what `over_seeds` returns.
        verdicts: what `summary.judged` returns.

    Returns:
        A table by columns (`pack.columns`) with the names of `NAMES`.
    """
    # where a series has both, that at equal steps comes last and stays
    main = [row for row in verdicts if row["comparison"] in ("final", "equal_steps")]
    main.sort(key=lambda row: row["comparison"], reverse=True)
    judged = {_key(row): row for row in main if row["depth_bin"] == "all"}
    rows: list[dict[str, Any]] = []
    for place in slices:
        verdict = judged.get(tuple(place[name] for name in SLICE))
        if verdict is not None:
            rows += _of_slice(place, verdict)
    return {
        "rows": len(rows),
        "columns": {name: column([row[name] for row in rows]) for name in NAMES},
    }
