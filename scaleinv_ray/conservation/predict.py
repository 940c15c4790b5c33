"""The value at a size, predicted from all smaller ones.

Shape suffixes: K sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from scaleinv_ray.conservation.evidence import Moments
from scaleinv_ray.conservation.fits import LOGARITHMIC, RAW, Fit, Form, Means, fit
from scaleinv_ray.conservation.scale import Series

LEVEL = 0.90
LEAST_FITTED = 3
"""Sizes that a line has to be fitted to, so that its scatter has a degree of freedom."""


@dataclass(frozen=True)
class Prediction:
    """A size held out and predicted from all smaller ones.

    Attributes:
        n_params: the size predicted.
        form: form fitted.
        fitted_on: sizes fitted.
        predicted: the quantity itself.
        low: lower end of the 90 % interval of a mean over as many seeds as were observed.
        high: upper end.
        level: 0.9.
        observed: mean over seeds (of the logarithms, without a unit).
        observed_stderr: its standard error over seeds, None with one seed.
        error: |prediction - observation| on the judged scale (ln, or units).
        naive_last_error: the same for the next smaller size taken as prediction.
        naive_mean_error: the same for the mean of all smaller sizes.
        covered: whether the observation lies in the interval; None without one.
    """

    n_params: float
    form: str
    fitted_on: tuple[float, ...]
    predicted: float | None
    low: float | None
    high: float | None
    level: float
    observed: float
    observed_stderr: float | None
    error: float | None
    naive_last_error: float
    naive_mean_error: float
    covered: bool | None


def line_of(series: Series) -> str:
    """The form that is a straight line on the judged scale: power, or log with a unit."""
    return "power" if series.unit is None else "log"


def forms_of(series: Series) -> Mapping[str, Form]:
    """The forms of the judged scale."""
    return LOGARITHMIC if series.unit is None else RAW


def means_of(series: Series, given: Moments, row: int = 0) -> Means:
    """The size means of one row of the batch; the series itself is the first."""
    return Means(series.x_K, given.mean_BK[row], given.count_BK[row])


def predict(series: Series, given: Moments, target: int, *, form: str) -> Prediction:
    """Predicts the size with index `target` from all smaller ones.

    The half-width of the 90 % interval is max(t_{.95,df} sqrt(h s2), t_{.95,K-C} sqrt(h v)) with
    h = 1/s_target + g' (J' S J)^-1 g, J the gradient of the fit, g that at the target, S the seeds
    of the K sizes fitted, s2 their pooled variance over seeds and v = sum s r^2 / (K - C). For a
    line and s seeds everywhere h = (1 + 1/K + (x - xbar)^2 / Sxx) / s. Neither alone covers: seeds
    know nothing of scatter between sizes, and the scatter of few sizes may vanish by chance.

    Args:
        series: the series.
        given: its moments.
        target: index of the size, at least 3.
        form: a form of the series' scale.

    Returns:
        The prediction beside what was observed.

    Raises:
        ValueError: for fewer than three smaller sizes.
    """
    if target < LEAST_FITTED:
        raise ValueError(f"target: got {target}, allowed indices from {LEAST_FITTED}")
    means = means_of(series, given)
    fitted = fit(form, forms_of(series), means.first(target))
    y, gradient_C = fitted.at(float(means.x_K[target]))
    half = _half_width(fitted, gradient_C, given, target)
    observed = float(means.mean_K[target])
    smaller_K = means.first(target)
    finite = math.isfinite(y)
    interval = finite and math.isfinite(half)
    return Prediction(
        n_params=float(series.n_params_K[target]),
        form=form,
        fitted_on=tuple(series.n_params_K[:target].tolist()),
        predicted=series.to_raw(y) if finite else None,
        low=min(series.to_raw(y - half), series.to_raw(y + half)) if interval else None,
        high=max(series.to_raw(y - half), series.to_raw(y + half)) if interval else None,
        level=LEVEL,
        observed=series.to_raw(observed),
        observed_stderr=_observed_stderr(series, given, target),
        error=abs(y - observed) if finite else None,
        naive_last_error=abs(float(smaller_K.mean_K[-1]) - observed),
        naive_mean_error=abs(
            float(np.average(smaller_K.mean_K, weights=smaller_K.weight_K)) - observed
        ),
        covered=abs(y - observed) <= half if interval else None,
    )


def rolling(series: Series, given: Moments, *, form: str) -> list[Prediction]:
    """Every size that has enough smaller ones (three, offset power four), predicted from those."""
    return [
        predict(series, given, target, form=form) for target in range(LEAST_FITTED, len(series.x_K))
    ]


def _half_width(fitted: Fit, gradient_C: np.ndarray, given: Moments, target: int) -> float:
    normal_CC = fitted.gradient_KC.T @ (fitted.weight_K[:, None] * fitted.gradient_KC)
    try:
        spread = float(gradient_C @ np.linalg.solve(normal_CC, gradient_C))
    except np.linalg.LinAlgError:
        # a form at the edge of its range (no offset left, say) does not say how far it is known
        return math.inf
    if not spread >= 0:
        return math.inf
    h = 1 / float(given.count_BK[0, target]) + spread
    scatter = float(special.stdtrit(fitted.df, 0.5 + LEVEL / 2)) * math.sqrt(h * fitted.scatter)
    df_K = given.count_BK[0, :target] - 1
    df = int(df_K.sum())
    if df == 0:
        return scatter
    pooled = float(np.nansum(given.variance_BK[0, :target] * df_K)) / df
    return max(scatter, float(special.stdtrit(df, 0.5 + LEVEL / 2)) * math.sqrt(h * pooled))


def _observed_stderr(series: Series, given: Moments, target: int) -> float | None:
    count, variance = given.count_BK[0, target], float(given.variance_BK[0, target])
    if count < 2:
        return None
    stderr = math.sqrt(variance / count)
    if series.unit is not None:
        return stderr * series.unit
    return stderr * abs(series.to_raw(float(given.mean_BK[0, target])))
