"""The verdict on one series: conserved, scaling, neither, or not to be decided from these data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from scaleinv_ray.conclude.conservation.fits import (
    Fit,
    candidates,
    fit,
    refit,
    select,
)
from scaleinv_ray.conclude.conservation.hypothesis_tests import (
    SampleMoments,
    SeriesEvidence,
    evidence,
    moments_left_out,
)
from scaleinv_ray.conclude.conservation.power import seeds_for_conserved
from scaleinv_ray.conclude.conservation.prediction import (
    forms_of,
    line_of,
    means_of,
    predict_held_out,
)
from scaleinv_ray.conclude.conservation.requirements import (
    LEAST_SIZES,
    SEEDS_WANTED,
    missing_for_verdict,
)
from scaleinv_ray.conclude.conservation.value_scale import Series, series_of
from scaleinv_ray.conclude.conservation.verdict import Verdict, Verdicts

ALPHA = 0.05
CLEAR = 1e-3
"""Of a threshold: what lies nearer is not decided by fits of many series at once."""
_WITH_LAW = (Verdicts.SCALES, Verdicts.CONSERVED_DRIFTING)


@dataclass(frozen=True)
class _Case:
    """A batch: the series in row 0, then the same with each seed left out."""

    series: Series
    given: SampleMoments
    found: SeriesEvidence
    delta: float


@dataclass(frozen=True)
class _Law:
    """A form beside what speaks for it."""

    fitted: Fit
    held_out_error: float
    lack_of_fit_p: float
    stands: bool


def judge(
    n_params: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    margin: float = 0.10,
    unit: float | None = None,
) -> Verdict:
    """Whether a quantity is conserved over model size, scales by a law, or neither.

    The values are judged as y = ln|I| with delta = ln(1 + margin), or as I / unit with
    delta = margin; x = ln n_params; replicates are seeds. In order, at level .05:

    - conserved: W < delta (intersection-union TOST over all pairs of sizes; exact where all values
      are equal; drifting where slope and heterogeneity are significant besides);
    - scales: slope (the larger of its pooled and residual p) and heterogeneity significant, and a
      form (the line, else ln(a + b ln N) or an offset power) without lack of fit (p > .05 or rms
      residual < delta / 4) that predicts the largest size no worse than the next smaller size and
      the mean of all smaller ones do;
    - not_conserved: heterogeneity significant;
    - undetermined: all else, fewer than four sizes, largest / smallest < 8, a size with one seed.

    Args:
        n_params: total parameters of each size, in any order.
        values: for each size the values of its seeds.
        margin: relative change (with a unit: change in units) that counts as none; declared
            beforehand.
        unit: scale of differences where the quantity may vanish or change sign.

    Returns:
        The verdict. A flat series does not pass because nothing was significant, only because
        changes beyond the margin are excluded.

    Raises:
        ValueError: for values of both signs or zero without a unit, for numbers that are not
            finite, sizes that repeat, and margins that are not positive.

    >>> flat = judge([1e6, 4e6, 16e6, 64e6], [[1.0, 1.01, 0.99]] * 4)
    >>> flat.verdict.value, flat.form
    ('conserved', 'constant')
    >>> sizes = [1e6, 4e6, 16e6, 64e6]
    >>> law = judge(sizes, [[n**0.5, 1.01 * n**0.5, 0.99 * n**0.5] for n in sizes])
    >>> law.verdict.value, law.form, round(law.exponent, 6)
    ('scales', 'power', 0.5)
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin: got {margin}, allowed positive numbers")
    series = series_of(n_params, values, unit=unit)
    missing = _missing(series)
    few = len(series.x_K) < LEAST_SIZES
    if few or (series.all_equal and not missing):
        verdict = Verdicts.UNDETERMINED if few else Verdicts.CONSERVED_EXACT
        return _headline(series, margin, verdict, missing or "all values are equal")
    given = moments_left_out(series.y_KS)
    delta = series.tolerance(margin)
    case = _Case(series, given, evidence(series.x_K, given, delta=delta), delta)
    if missing:
        numbers = _with_numbers(case, margin, Verdicts.UNDETERMINED, law=None, reason=missing)
        single = bool((series.count_K < 2).any())
        return replace(numbers, seeds_needed=_seeds_needed(case) if single else None)
    verdict = _decide(case)
    law = _best_law(case) if verdict in _WITH_LAW else None
    left_out = _left_out(case, law)
    reason = _reason(case, verdict, law)
    numbers = _with_numbers(case, margin, verdict, law=law, reason=reason)
    open_still = verdict is Verdicts.UNDETERMINED
    needed = _seeds_needed(case) if open_still else None
    return replace(numbers, left_out=left_out, seeds_needed=needed)


def verdict_alone(series: Series, given: SampleMoments, *, delta: float) -> Verdicts:
    """The verdict of `judge` without the numbers beside it."""
    if _missing(series):
        return Verdicts.UNDETERMINED
    if series.all_equal:
        return Verdicts.CONSERVED_EXACT
    return _decide(_Case(series, given, evidence(series.x_K, given, delta=delta), delta))


def _missing(series: Series) -> str:
    return missing_for_verdict(series.n_params_K.tolist(), series.count_K.tolist())


def _decide(case: _Case) -> Verdicts:
    """The verdict on the series itself."""
    tests = _Tests.of(case)
    if not tests.asks_for_law_B[0]:
        return tests.verdict(0, has_law=False)
    return tests.verdict(0, has_law=bool(tests.line_stands_B[0]) or _other_law_stands(case))


def _left_out(case: _Case, known: _Law | None) -> tuple[Verdicts, ...]:
    """The verdicts with each seed left out, the law already chosen."""
    tests = _Tests.of(case)
    has_law_B = tests.line_stands_B.copy()
    if known is not None and known.fitted.form != line_of(case.series):
        asking_B = tests.asks_for_law_B & ~tests.line_stands_B
        rows = np.flatnonzero(asking_B[1:]) + 1
        has_law_B[rows] = _stands_again(case, rows, known)
    return tuple(
        tests.verdict(row, has_law=bool(has_law_B[row])) for row in range(1, len(has_law_B))
    )


@dataclass(frozen=True)
class _Tests:
    """What decides, for each series of a batch."""

    conserved_B: np.ndarray
    differs_B: np.ndarray
    slopes_B: np.ndarray
    line_stands_B: np.ndarray

    @classmethod
    def of(cls, case: _Case) -> _Tests:
        """The tests of a batch at level .05."""
        found = case.found
        naive_B = np.minimum(found.naive_last_error_B, found.naive_mean_error_B)
        fits_B = (found.lack_of_fit_p_B > ALPHA) | (found.rms_residual_B < case.delta / 4)
        return cls(
            conserved_B=found.width_B < case.delta,
            differs_B=found.heterogeneity_p_B < ALPHA,
            slopes_B=(found.slope_pooled_p_B < ALPHA) & (found.slope_residual_p_B < ALPHA),
            line_stands_B=fits_B & (found.held_out_error_B <= naive_B),
        )

    @property
    def asks_for_law_B(self) -> np.ndarray:
        """Whether the verdict depends on a law."""
        asks_B: np.ndarray = ~self.conserved_B & self.slopes_B & self.differs_B
        return asks_B

    def verdict(self, row: int, *, has_law: bool) -> Verdicts:
        """The verdict on one series."""
        differs = self.differs_B[row]
        if self.conserved_B[row]:
            drifts = self.slopes_B[row] and differs
            return Verdicts.CONSERVED_DRIFTING if drifts else Verdicts.CONSERVED
        if self.asks_for_law_B[row] and has_law:
            return Verdicts.SCALES
        return Verdicts.NOT_CONSERVED if differs else Verdicts.UNDETERMINED


def _other_law_stands(case: _Case) -> bool:
    names = (name for name in _laws(case) if name != line_of(case.series))
    return any(_law(case, 0, name).stands for name in names)


def _laws(case: _Case) -> list[str]:
    names = candidates(forms_of(case.series), len(case.series.x_K))
    return [name for name in names if name != "constant"]


def _law(case: _Case, row: int, name: str, known: _Law | None = None) -> _Law:
    means, forms = means_of(case.series, case.given, row), forms_of(case.series)
    start = None if known is None else known.fitted.coefficients_C
    fitted = fit(name, forms, means, start=start)
    smaller = fit(name, forms, means.first(len(means.x_K) - 1), start=start)
    error = abs(smaller.at(float(means.x_K[-1]))[0] - float(means.mean_K[-1]))
    error = error if math.isfinite(error) else math.inf
    pooled = float(case.given.pooled_B[row])
    df = float(case.given.df_B[row])
    f = fitted.scatter / pooled if pooled > 0 else math.inf
    p = float(special.fdtrc(fitted.df, df, f)) if math.isfinite(f) else 0.0
    rms = math.sqrt(float((fitted.residual_K**2).mean()))
    naive = min(case.found.naive_last_error_B[row], case.found.naive_mean_error_B[row])
    is_near = rms < case.delta / 4
    return _Law(fitted, error, p, bool((p > ALPHA or is_near) and error <= naive))


def _stands_again(case: _Case, rows: np.ndarray, known: _Law) -> np.ndarray:
    """Whether a form stands in series that lack a seed: `_law` of each, all at once."""
    # a seed less moves the coefficients a little: the fits start there
    series, given, name = case.series, case.given, known.fitted.form
    form, z_K = forms_of(series)[name], series.x_K - series.x_K[0]
    mean_BK, weight_BK = given.mean_BK[rows], given.count_BK[rows]
    start_C = known.fitted.coefficients_C
    all_BC, settled_B = refit(form, z_K, mean_BK, weight_BK, start_C)
    smaller_BC, too_B = refit(form, z_K[:-1], mean_BK[:, :-1], weight_BK[:, :-1], start_C)
    with np.errstate(all="ignore"):
        residual_BK = mean_BK - form.evaluate(all_BC, z_K)[0]
        ahead_B = form.evaluate(smaller_BC, z_K[-1:])[0][:, 0]
        df = len(z_K) - form.num_coefficients
        f_B = (weight_BK * residual_BK**2).sum(axis=1) / df / given.pooled_B[rows]
        p_B = special.fdtrc(df, given.df_B[rows], f_B)
        naive_B = np.minimum(case.found.naive_last_error_B, case.found.naive_mean_error_B)[rows]
        # each over its threshold: lack of fit, smallness of the residuals, error held out
        ratio_B3 = np.stack([
            p_B / ALPHA,
            np.sqrt((residual_BK**2).mean(axis=1)) / (case.delta / 4),
            np.abs(ahead_B - mean_BK[:, -1]) / naive_B,
        ])
        clear_B = settled_B & too_B & (np.abs(ratio_B3 - 1) > CLEAR).all(axis=0)
        stands_B = ((ratio_B3[0] > 1) | (ratio_B3[1] < 1)) & (ratio_B3[2] <= 1)
    # near a threshold, or not settled
    for i in np.flatnonzero(~clear_B):
        stands_B[i] = _law(case, int(rows[i]), name, known).stands
    return stands_B


def _best_law(case: _Case) -> _Law | None:
    standing = [law for law in (_law(case, 0, name) for name in _laws(case)) if law.stands]
    if not standing:
        return None
    best = select([law.fitted for law in standing], [law.held_out_error for law in standing])
    return standing[best]


def _reason(case: _Case, verdict: Verdicts, law: _Law | None) -> str:
    width, p = float(case.found.width_B[0]), float(case.found.heterogeneity_p_B[0])
    changes = _change(case.series, width)
    if verdict.is_conserved:
        return f"changes of {changes} or more between any two sizes are excluded"
    if verdict is Verdicts.SCALES:
        form = line_of(case.series) if law is None else law.fitted.form
        return f"{form.replace('_', ' ')} fits and predicts the largest size from the others"
    if verdict is Verdicts.NOT_CONSERVED:
        line_p, slope_p = case.found.lack_of_fit_p_B[0], case.found.slope_residual_p_B[0]
        return (
            f"sizes differ (p = {p:.2g}) and no law holds "
            f"(slope p = {slope_p:.2g}, lack of fit p = {line_p:.2g})"
        )
    return f"changes up to {changes} are not excluded, and none is established (p = {p:.2g})"


def _change(series: Series, width: float) -> str:
    certified = _certified(series, width)
    return f"{certified:.2%}" if series.unit is None else f"{certified * series.unit:.3g}"


def _headline(series: Series, margin: float, verdict: Verdicts, reason: str) -> Verdict:
    exact = verdict is Verdicts.CONSERVED_EXACT
    # where sizes are lacking, no number of seeds decides
    single = len(series.x_K) >= LEAST_SIZES and bool((series.count_K < 2).any())
    return Verdict(
        verdict=verdict,
        reason=reason,
        margin=margin,
        conservation_error=series.conservation_error,
        certified_change=0.0 if exact else None,
        tost_p=0.0 if exact else None,
        form="constant" if exact else None,
        seed_variance=0.0 if exact else None,
        seeds_needed=SEEDS_WANTED if single else None,
        num_sizes=len(series.x_K),
        num_seeds=int(series.count_K.min()),
    )


def _with_numbers(
    case: _Case, margin: float, verdict: Verdicts, *, law: _Law | None, reason: str
) -> Verdict:
    series, given, found = case.series, case.given, case.found
    width, q, pooled = _known(found.width_B), _known(found.q_B), _known(given.pooled_B)
    slope, half = float(found.slope_B[0]), float(found.slope_half_width_B[0])
    free = len(series.x_K) - 1
    form = "constant" if verdict is Verdicts.CONSERVED else law.fitted.form if law else None
    return Verdict(
        verdict=verdict,
        reason=reason,
        margin=margin,
        conservation_error=series.conservation_error,
        certified_change=None if width is None else _certified(series, width),
        tost_p=_known(found.tost_p_B),
        form=form,
        exponent=slope,
        exponent_low=slope - half,
        exponent_high=slope + half,
        slope_p_pooled=_known(found.slope_pooled_p_B),
        slope_p_residual=_known(found.slope_residual_p_B),
        q_statistic=q,
        f_statistic=None if q is None else q / free,
        heterogeneity_p=_known(found.heterogeneity_p_B),
        i2=None if q is None else max(0.0, 1 - free / q) if q > 0 else 0.0,
        lack_of_fit_p=_known(found.lack_of_fit_p_B) if law is None else law.lack_of_fit_p,
        prediction=predict_held_out(
            series,
            given,
            len(series.x_K) - 1,
            form=line_of(series) if law is None else law.fitted.form,
        ),
        seed_variance=pooled,
        unequal_variances=bool(given.unequal_B[0]),
        num_sizes=len(series.x_K),
        num_seeds=int(series.count_K.min()),
        size_means=tuple(given.mean_BK[0].tolist()),
        size_variances=() if pooled is None else tuple((pooled / given.count_BK[0]).tolist()),
    )


def _known(values_B: np.ndarray) -> float | None:
    value = float(values_B[0])
    return None if math.isnan(value) else value


def _certified(series: Series, width: float) -> float:
    return width if series.unit is not None else math.expm1(width) if width < 709 else math.inf


def _seeds_needed(case: _Case) -> int:
    """Seeds per size that decide a series of this variance, more than there are."""
    single = bool((case.given.count_BK[0] < 2).any())
    variance = float(case.given.pooled_B[0])
    if math.isnan(variance):
        # one seed everywhere: the scatter about the line is all that is known of the seeds
        line = fit(line_of(case.series), forms_of(case.series), means_of(case.series, case.given))
        variance = line.scatter
    enough = seeds_for_conserved(
        math.sqrt(variance), delta=case.delta, num_sizes=len(case.series.x_K)
    )
    least = SEEDS_WANTED if single else int(case.given.count_BK[0].min()) + 1
    return max(enough, least)
