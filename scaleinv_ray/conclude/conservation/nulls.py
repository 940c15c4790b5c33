"""Trained beside untrained: whose doing is it that a quantity is conserved?

Shape suffixes: K sizes, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from scaleinv_ray.conclude.conservation.hypothesis_tests import SampleMoments, moments
from scaleinv_ray.conclude.conservation.judging import verdict_alone
from scaleinv_ray.conclude.conservation.power import seeds_for_conserved
from scaleinv_ray.conclude.conservation.value_scale import Series, series_of
from scaleinv_ray.conclude.conservation.verdict import Verdict, Verdicts


class NullClass(StrEnum):
    """What the null control says of a series; every class but the last needs positive evidence."""

    TRIVIAL = "trivial"
    ARCHITECTURAL = "architectural"
    LEARNED = "learned"
    NULL_UNDETERMINED = "null_undetermined"


@dataclass(frozen=True)
class NullComparison:
    """A trained series beside its null.

    Attributes:
        null_class: whose doing it is.
        rho: range of the trained size means / |mean of trained - null|, None where that is zero.
        null_verdict: verdict on the null series, None where it was not judged.
        seeds_needed: seeds per size that would decide, where more seeds can.
        reason: in words.
    """

    null_class: NullClass
    rho: float | None
    null_verdict: Verdicts | None
    seeds_needed: int | None
    reason: str


@dataclass(frozen=True)
class _Gap:
    """Trained minus null on the judged scale.

    Attributes:
        widest: largest over sizes of |gap| plus its one-sided 95 % error.
        mean: mean of the gaps over sizes.
        half_width: one-sided 95 % error of this mean.
        variance: of one seed's gap.
        null_variance: of one seed of the null.
    """

    widest: float
    mean: float
    half_width: float
    variance: float
    null_variance: float


def compare_with_null(
    n_params: Sequence[float],
    trained: Sequence[Sequence[float]],
    untrained: Sequence[Sequence[float]],
    *,
    verdict: Verdict,
    unit: float | None = None,
) -> NullComparison:
    """Classes a series as trivial, architectural or learned, each on positive evidence only.

    Trivial: at every size trained and null are equivalent (TOST of the difference within delta).
    Architectural: both series are conserved, and the mean difference lies beyond +-delta with 95 %
    confidence. Learned: the trained series is conserved, the null is not conserved or scales.
    Anything else is null_undetermined: an undetermined null is no evidence (noise alone would make
    71 to 99 % of series learned).

    Args:
        n_params: total parameters of each size.
        trained: values by size and seed.
        untrained: values of the null at the same sizes, seeds in any number and order.
        verdict: that of the trained series; its margin is used.
        unit: scale of differences where the quantity may vanish or change sign.

    Returns:
        The comparison. Values that cannot be put on one scale (trained and null of different sign,
        without a unit) are null_undetermined with that reason.

    Raises:
        ValueError: for sizes that do not match.
    """
    if not len(n_params) == len(trained) == len(untrained):
        raise ValueError(
            f"untrained: got {len(untrained)} sizes, allowed {len(trained)}, those of n_params"
        )
    try:
        ours, theirs = _on_one_scale(n_params, trained, untrained, unit)
    except ValueError as error:
        return NullComparison(NullClass.NULL_UNDETERMINED, None, None, None, str(error))
    if min(*ours.count_K, *theirs.count_K) < 2:
        reason = "one seed at a size of the trained or the null series"
        return NullComparison(NullClass.NULL_UNDETERMINED, _rho(ours, theirs), None, 3, reason)
    delta = ours.tolerance(verdict.margin)
    null_given = moments(theirs.y_KS[None])
    gap = _gap(moments(ours.y_KS[None]), null_given)
    null_verdict = verdict_alone(theirs, null_given, delta=delta)
    null_class, reason = _class(verdict.verdict, null_verdict, gap, delta)
    needed = None
    if null_class is NullClass.NULL_UNDETERMINED and verdict.verdict.is_conserved:
        needed = _seeds_needed(ours, gap, delta)
    return NullComparison(null_class, _rho(ours, theirs), null_verdict, needed, reason)


def _on_one_scale(
    n_params: Sequence[float],
    trained: Sequence[Sequence[float]],
    untrained: Sequence[Sequence[float]],
    unit: float | None,
) -> tuple[Series, Series]:
    both = [[*ours, *theirs] for ours, theirs in zip(trained, untrained, strict=True)]
    joint = series_of(n_params, both, unit=unit)
    parts = []
    for values in (trained, untrained):
        part = series_of(n_params, values, unit=unit or 1.0)
        if unit is None:
            # the logarithm for both or neither: one of the two may be zero throughout
            y_KS = np.log(np.abs(part.raw_KS)) if joint.sign else part.raw_KS
            part = Series(part.n_params_K, part.x_K, y_KS, part.raw_KS, None, joint.sign)
        parts.append(part)
    return parts[0], parts[1]


def _gap(ours: SampleMoments, theirs: SampleMoments) -> _Gap:
    gap_K = (ours.mean_BK - theirs.mean_BK)[0]
    parts = [_errors(ours), _errors(theirs)]
    error_K = parts[0][0] + parts[1][0]
    squares_K = sum(error**2 / df for error, df, _ in parts)
    t_K = special.stdtrit(_satterthwaite(error_K, squares_K), 0.95)
    num_sizes = len(gap_K)
    total = float(error_K.sum()) / num_sizes**2
    squares = sum(square for _, _, square in parts) / num_sizes**4
    t = float(special.stdtrit(_satterthwaite(np.array([total]), np.array([squares]))[0], 0.95))
    return _Gap(
        widest=float((np.abs(gap_K) + t_K * np.sqrt(error_K)).max()),
        mean=float(gap_K.mean()),
        half_width=t * math.sqrt(total),
        variance=float(ours.pooled_B[0] + theirs.pooled_B[0]),
        null_variance=float(theirs.pooled_B[0]),
    )


def _errors(given: SampleMoments) -> tuple[np.ndarray, np.ndarray, float]:
    """Variance of each size mean, its df, and sum of (variance of the sum)^2 / df."""
    count_K = given.count_BK[0]
    if given.unequal_B[0]:
        error_K, df_K = given.variance_BK[0] / count_K, count_K - 1.0
        return error_K, df_K, float((error_K**2 / df_K).sum())
    error_K = given.pooled_B[0] / count_K
    df = float(given.df_B[0])
    return error_K, np.full(len(count_K), df), float(error_K.sum()) ** 2 / df


def _satterthwaite(error_K: np.ndarray, squares_K: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error_K == 0, 1.0, error_K**2 / squares_K)


def _class(
    trained: Verdicts, untrained: Verdicts, gap: _Gap, delta: float
) -> tuple[NullClass, str]:
    if gap.widest < delta:
        return NullClass.TRIVIAL, "trained and null are equivalent at every size"
    if not trained.is_conserved:
        return NullClass.NULL_UNDETERMINED, f"the trained series is {trained}, not conserved"
    if untrained in {Verdicts.NOT_CONSERVED, Verdicts.SCALES}:
        return NullClass.LEARNED, f"the null is {untrained}"
    if not untrained.is_conserved:
        return NullClass.NULL_UNDETERMINED, f"the null is {untrained}"
    if abs(gap.mean) - gap.half_width > delta:
        return NullClass.ARCHITECTURAL, "the null is conserved too, at another value"
    reason = "the null is conserved too, and neither equivalence nor a difference is established"
    return NullClass.NULL_UNDETERMINED, reason


def _rho(ours: Series, theirs: Series) -> float | None:
    means_K = np.nanmean(ours.y_KS, axis=1)
    shift = abs(float((means_K - np.nanmean(theirs.y_KS, axis=1)).mean()))
    return float(np.ptp(means_K)) / shift if shift > 0 else None


def _seeds_needed(ours: Series, gap: _Gap, delta: float) -> int:
    """Seeds that certify a constant difference or a constant null, more than there are."""
    seed_sd = math.sqrt(max(gap.variance / 2, gap.null_variance))
    enough = seeds_for_conserved(seed_sd, delta=delta, num_sizes=len(ours.x_K))
    return max(int(ours.count_K.min()) + 1, enough)
