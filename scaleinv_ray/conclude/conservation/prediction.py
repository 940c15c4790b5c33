"""The value at a size, predicted from all smaller ones, measured there or not.

Shape suffixes: K sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from scipy import special

from scaleinv_ray.conclude.aggregation.places import AtPlace
from scaleinv_ray.conclude.conservation.fits import LOGARITHMIC, RAW, Fit, Form, Means, fit
from scaleinv_ray.conclude.conservation.hypothesis_tests import SampleMoments
from scaleinv_ray.conclude.conservation.value_scale import Series

LEVEL = 0.90
LEAST_FITTED = 3
"""Sizes that a line has to be fitted to, so that its scatter has a degree of freedom."""


@dataclass(frozen=True)
class Forecast:
    """A size predicted from smaller ones.

    Attributes:
        n_params: the size predicted.
        form: form fitted.
        fitted_on: sizes fitted.
        predicted: the quantity itself, None where the form has left its range.
        low: lower end of the 90 % interval of a mean over as many seeds as were observed (one
            where none was), None where the fit does not say how far it is known.
        high: upper end.
        level: 0.9.
    """

    n_params: float
    form: str
    fitted_on: tuple[float, ...]
    predicted: float | None
    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True)
class Prediction(Forecast):
    """A size held out and predicted from all smaller ones, beside what was observed.

    Attributes:
        observed: mean over seeds (of the logarithms, without a unit).
        observed_stderr: its standard error over seeds, None with one seed.
        error: |prediction - observation| on the judged scale (ln, or units).
        naive_last_error: the same for the next smaller size taken as prediction.
        naive_mean_error: the same for the mean of all smaller sizes.
        covered: whether the observation lies in the interval; None without one.
    """

    observed: float
    observed_stderr: float | None
    error: float | None
    naive_last_error: float
    naive_mean_error: float
    covered: bool | None


class PredictionRow(AtPlace):
    """Sizes predicted from smaller ones, beside what was observed."""

    step: int | None
    comparison: str
    model: Annotated[str, "models of the size predicted"]
    n_params: Annotated[int, "size predicted"]
    form: Annotated[str, "form fitted"]
    fitted_on: Annotated[list[int], "sizes fitted"]
    predicted: Annotated[float | None, "predicted value"]
    low: Annotated[float | None, "lower end of its interval"]
    high: Annotated[float | None, "upper end of it"]
    level: Annotated[float, "coverage of the interval"]
    observed: Annotated[float | None, "mean over seeds; none where the model was not measured"]
    observed_stderr: Annotated[float | None, "its standard error"]
    error: Annotated[float | None, "|predicted - observed| on the judged scale"]
    naive_last_error: Annotated[float | None, "the same of the next smaller size"]
    naive_mean_error: Annotated[float | None, "the same of the mean of all smaller sizes"]
    covered: Annotated[bool | None, "whether the observed value lies in the interval"]


def line_of(series: Series) -> str:
    """The form that is a straight line on the judged scale: power, or log with a unit."""
    return "power" if series.unit is None else "log"


def forms_of(series: Series) -> Mapping[str, Form]:
    """The forms of the judged scale."""
    return LOGARITHMIC if series.unit is None else RAW


def means_of(series: Series, given: SampleMoments, row: int = 0) -> Means:
    """The size means of one row of the batch; the series itself is the first."""
    return Means(series.x_K, given.mean_BK[row], given.count_BK[row])


class _Outlook(NamedTuple):
    """A forecast, and value and half-width on the judged scale."""

    found: Forecast
    y: float
    half: float


def predict_held_out(series: Series, given: SampleMoments, target: int, *, form: str) -> Prediction:
    """Predicts the size with index `target` from all smaller ones.

    The half-width of the 90 % interval is max(t_{.95,df} sqrt(h s2), t_{.95,K-C} sqrt(h v)) with
    h = 1/s_target + g' (J' S J)^-1 g, J the gradient of the fit, g that at the target, S the seeds
    of the K sizes fitted, s2 their pooled variance over seeds and v = sum s r^2 / (K - C). For a
    line and s seeds everywhere h = (1 + 1/K + (x - xbar)^2 / Sxx) / s. Neither alone covers: seeds
    know nothing of scatter between sizes, and the scatter of few sizes may vanish by chance.

    Args:
        target: index of the size, at least 3, and more than the form has coefficients.
        form: a form of the series' scale.

    Returns:
        The prediction beside what was observed.

    Raises:
        ValueError: for fewer smaller sizes than that.
    """
    means = means_of(series, given)
    smaller_K, observed = means.first(target), float(means.mean_K[target])
    n_params, seeds = float(series.n_params_K[target]), int(given.count_BK[0, target])
    found, y, half = _outlook(series, given, n_params, form=form, num_fitted=target, seeds=seeds)
    finite = math.isfinite(y)
    return Prediction(
        **vars(found),
        observed=series.to_raw(observed),
        observed_stderr=_observed_stderr(series, given, target),
        error=abs(y - observed) if finite else None,
        naive_last_error=abs(float(smaller_K.mean_K[-1]) - observed),
        naive_mean_error=abs(
            float(np.average(smaller_K.mean_K, weights=smaller_K.weight_K)) - observed
        ),
        covered=None if found.low is None else abs(y - observed) <= half,
    )


def forecast(series: Series, given: SampleMoments, n_params: float, *, form: str) -> Forecast:
    """Predicts a single model of a size larger than all measured, from all of these.

    Args:
        n_params: total parameters of the model.
        form: a form of the series' scale.

    Returns:
        Value and 90 % interval as in `predict`, for a single seed.

    Raises:
        ValueError: for a size that is not larger than all measured, and for too few of these.

    >>> from scaleinv_ray.conclude.conservation.hypothesis_tests import moments
    >>> from scaleinv_ray.conclude.conservation.value_scale import series_of
    >>> law = series_of([1, 2, 4, 8], [[n**0.5, 1.01 * n**0.5] for n in (1, 2, 4, 8)])
    >>> found = forecast(law, moments(law.y_KS[None]), 100, form="power")
    >>> round(found.predicted, 1), found.low < 10 < found.high
    (10.0, True)
    """
    if not n_params > series.n_params_K[-1]:
        raise ValueError(f"n_params: got {n_params:g}, allowed > {series.n_params_K[-1]:g}")
    num_fitted = len(series.x_K)
    return _outlook(series, given, n_params, form=form, num_fitted=num_fitted, seeds=1).found


def rolling(series: Series, given: SampleMoments, *, form: str) -> list[Prediction]:
    """Every size that has enough smaller ones (three, offset power four), predicted from those."""
    least = max(LEAST_FITTED, forms_of(series)[form].num_coefficients + 1)
    return [
        predict_held_out(series, given, target, form=form)
        for target in range(least, len(series.x_K))
    ]


def _outlook(
    series: Series, given: SampleMoments, n_params: float, *, form: str, num_fitted: int, seeds: int
) -> _Outlook:
    if num_fitted < LEAST_FITTED:
        raise ValueError(f"sizes: got {num_fitted} to fit, allowed {LEAST_FITTED} or more")
    fitted = fit(form, forms_of(series), means_of(series, given).first(num_fitted))
    y, gradient_C = fitted.at(math.log(n_params))
    half = _half_width(fitted, gradient_C, given, seeds)
    finite = math.isfinite(y)
    interval = finite and math.isfinite(half)
    found = Forecast(
        n_params=n_params,
        form=form,
        fitted_on=tuple(series.n_params_K[:num_fitted].tolist()),
        predicted=series.to_raw(y) if finite else None,
        low=min(series.to_raw(y - half), series.to_raw(y + half)) if interval else None,
        high=max(series.to_raw(y - half), series.to_raw(y + half)) if interval else None,
        level=LEVEL,
    )
    return _Outlook(found, y, half)


def _half_width(fitted: Fit, gradient_C: np.ndarray, given: SampleMoments, seeds: int) -> float:
    normal_CC = fitted.gradient_KC.T @ (fitted.weight_K[:, None] * fitted.gradient_KC)
    try:
        spread = float(gradient_C @ np.linalg.solve(normal_CC, gradient_C))
    except np.linalg.LinAlgError:
        # a form at the edge of its range (no offset left, say) does not say how far it is known
        return math.inf
    if not spread >= 0:
        return math.inf
    h = 1 / seeds + spread
    scatter = float(special.stdtrit(fitted.df, 0.5 + LEVEL / 2)) * math.sqrt(h * fitted.scatter)
    df_K = given.count_BK[0, : len(fitted.residual_K)] - 1
    df = int(df_K.sum())
    if df == 0:
        return scatter
    variance_K = given.variance_BK[0, : len(df_K)]
    pooled = float(np.nansum(variance_K * df_K)) / df
    return max(scatter, float(special.stdtrit(df, 0.5 + LEVEL / 2)) * math.sqrt(h * pooled))


def _observed_stderr(series: Series, given: SampleMoments, target: int) -> float | None:
    count, variance = given.count_BK[0, target], float(given.variance_BK[0, target])
    if count < 2:
        return None
    stderr = math.sqrt(variance / count)
    if series.unit is not None:
        return stderr * series.unit
    return stderr * abs(series.to_raw(float(given.mean_BK[0, target])))
