"""Trained beside untrained: whose doing is it that a quantity is conserved, or follows a law?

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
from scaleinv_ray.conclude.conservation.requirements import LEAST_SIZES
from scaleinv_ray.conclude.conservation.value_scale import Series, series_of
from scaleinv_ray.conclude.conservation.verdict import Verdict, Verdicts


class NullClass(StrEnum):
    """What the null control says of a series; every class but the last needs positive evidence."""

    TRIVIAL = "trivial"
    ARCHITECTURAL = "architectural"
    LEARNED = "learned"
    NULL_UNDETERMINED = "null_undetermined"


@dataclass(frozen=True)
class SlopeDifference:
    """Slope over ln N of the trained series minus that of the null, on the judged scale.

    Attributes:
        value: the difference; of exponents where the scale is ln|I|.
        half_width: of its 95 % interval, the wider of that by the seeds and that by the scatter of
            the sizes about the two lines.
    """

    value: float
    half_width: float

    @property
    def is_established(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.value) > self.half_width


@dataclass(frozen=True)
class NullComparison:
    """A trained series beside its null.

    Attributes:
        null_class: whose doing it is.
        rho: range of the trained size means / |mean of trained - null|, None where that is zero.
        null_verdict: verdict on the null series, None where it was not judged.
        seeds_needed: seeds per size that would decide, where more seeds can.
        reason: in words.
        slope: how much steeper the trained series is over ln N, None with fewer than four sizes.
    """

    null_class: NullClass
    rho: float | None
    null_verdict: Verdicts | None
    seeds_needed: int | None
    reason: str
    slope: SlopeDifference | None = None


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


@dataclass(frozen=True)
class _Beside:
    """What the null says: its distance, its steepness and its verdict."""

    gap: _Gap
    slope: SlopeDifference | None
    untrained: Verdicts

    def is_for_seeds(self, trained: Verdicts) -> bool:
        """Whether more seeds can decide: not where the trained series is neither, nor the null."""
        if trained is Verdicts.SCALES:
            return self.untrained is not Verdicts.NOT_CONSERVED
        return trained.is_conserved


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
    A trained series that is conserved is architectural where the null is conserved too and the mean
    difference lies beyond +-delta with 95 % confidence, learned where the null is not conserved or
    scales. One that scales is architectural where the null scales too, by another law: the slopes
    differ (95 %), or the mean difference lies beyond +-delta; learned where the slopes differ and
    the null is conserved. Anything else is null_undetermined: an undetermined null is no evidence
    (noise alone would make 71 to 99 % of series learned), nor is a null that changes by no law that
    was found: sizes that scatter about a law by 5 % have lack of fit of every form.

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
    given, null_given = moments(ours.y_KS[None]), moments(theirs.y_KS[None])
    beside = _Beside(
        gap=_gap(given, null_given),
        slope=_slope(ours.x_K, given, null_given) if len(ours.x_K) >= LEAST_SIZES else None,
        untrained=verdict_alone(theirs, null_given, delta=delta),
    )
    null_class, reason = _class(verdict.verdict, beside, delta)
    needed = None
    if null_class is NullClass.NULL_UNDETERMINED and beside.is_for_seeds(verdict.verdict):
        needed = _seeds_needed(ours, beside.gap, delta)
    return NullComparison(
        null_class, _rho(ours, theirs), beside.untrained, needed, reason, beside.slope
    )


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
    (error_K, df_K), (null_error_K, null_df_K) = _errors(ours), _errors(theirs)
    both_K = error_K + null_error_K
    t_K = special.stdtrit(
        _satterthwaite(both_K, error_K**2 / df_K + null_error_K**2 / null_df_K), 0.95
    )
    num_sizes = len(gap_K)
    variance, df = _both(ours, theirs, *[np.full(num_sizes, 1 / num_sizes)] * 2)
    return _Gap(
        widest=float((np.abs(gap_K) + t_K * np.sqrt(both_K)).max()),
        mean=float(gap_K.mean()),
        half_width=float(special.stdtrit(df, 0.95)) * math.sqrt(variance),
        variance=float(ours.pooled_B[0] + theirs.pooled_B[0]),
        null_variance=float(theirs.pooled_B[0]),
    )


def _slope(x_K: np.ndarray, ours: SampleMoments, theirs: SampleMoments) -> SlopeDifference:
    """Of weighted lines through the size means; errors of the two series are independent."""
    lines = [_Line.through(x_K, given) for given in (ours, theirs)]
    seeds, seeds_df = _both(ours, theirs, lines[0].weight_K, lines[1].weight_K)
    sizes_2 = np.array([line.scatter for line in lines])
    free = len(x_K) - 2
    sizes_df = _satterthwaite(sizes_2.sum(), (sizes_2**2 / free).sum())
    return SlopeDifference(
        lines[0].slope - lines[1].slope,
        max(
            float(special.stdtrit(seeds_df, 0.975)) * math.sqrt(seeds),
            float(special.stdtrit(sizes_df, 0.975)) * math.sqrt(sizes_2.sum()),
        ),
    )


@dataclass(frozen=True)
class _Line:
    """Least squares through size means, weighted by seeds.

    Attributes:
        slope: sum of weight_K times the means.
        weight_K: what each mean contributes to the slope.
        scatter: variance of the slope that the scatter of the means about the line implies.
    """

    slope: float
    weight_K: np.ndarray
    scatter: float

    @classmethod
    def through(cls, x_K: np.ndarray, given: SampleMoments) -> _Line:
        """The line through the means of the first series."""
        count_K, mean_K = given.count_BK[0], given.mean_BK[0]
        z_K = x_K - np.average(x_K, weights=count_K)
        sxx = float((count_K * z_K**2).sum())
        weight_K = count_K * z_K / sxx
        slope = float(weight_K @ mean_K)
        residual_K = mean_K - np.average(mean_K, weights=count_K) - slope * z_K
        scatter = float((count_K * residual_K**2).sum()) / (len(x_K) - 2) / sxx
        return cls(slope, weight_K, scatter)


def _errors(given: SampleMoments) -> tuple[np.ndarray, np.ndarray]:
    """Variance of each size mean, and its df."""
    count_K = given.count_BK[0]
    if given.unequal_B[0]:
        return given.variance_BK[0] / count_K, count_K - 1.0
    return given.pooled_B[0] / count_K, np.full(len(count_K), float(given.df_B[0]))


def _both(
    ours: SampleMoments, theirs: SampleMoments, weight_K: np.ndarray, null_weight_K: np.ndarray
) -> tuple[float, float]:
    """Variance, by the seeds, of a weighted sum of means minus one of the null's; and its df."""
    variance = squares = 0.0
    for given, weights_K in ((ours, weight_K), (theirs, null_weight_K)):
        error_K, df_K = _errors(given)
        part_K = weights_K**2 * error_K
        variance += float(part_K.sum())
        # one pooled variance behind all of them, or one a size
        apart = float((part_K**2 / df_K).sum())
        squares += apart if given.unequal_B[0] else float(part_K.sum()) ** 2 / float(df_K[0])
    return variance, float(_satterthwaite(np.array(variance), np.array(squares)))


def _satterthwaite(error_K: np.ndarray, squares_K: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error_K == 0, 1.0, error_K**2 / squares_K)


def _class(trained: Verdicts, beside: _Beside, delta: float) -> tuple[NullClass, str]:
    if beside.gap.widest < delta:
        return NullClass.TRIVIAL, "trained and null are equivalent at every size"
    if trained is Verdicts.SCALES:
        return _class_of_law(beside, delta)
    if not trained.is_conserved:
        reason = f"the trained series is {trained.words}, neither constant nor a law"
        return NullClass.NULL_UNDETERMINED, reason
    untrained = beside.untrained
    if untrained in {Verdicts.NOT_CONSERVED, Verdicts.SCALES}:
        return NullClass.LEARNED, f"the null is {untrained.words}"
    if not untrained.is_conserved:
        return NullClass.NULL_UNDETERMINED, f"the null is {untrained.words}"
    if abs(beside.gap.mean) - beside.gap.half_width > delta:
        return NullClass.ARCHITECTURAL, "the null is conserved too, at another value"
    reason = "the null is conserved too, and neither equivalence nor a difference is established"
    return NullClass.NULL_UNDETERMINED, reason


def _class_of_law(beside: _Beside, delta: float) -> tuple[NullClass, str]:
    """Of a trained series that scales."""
    assert beside.slope is not None  # a series with fewer sizes does not scale
    differs, untrained = beside.slope.is_established, beside.untrained
    if untrained is Verdicts.SCALES:
        if differs or abs(beside.gap.mean) - beside.gap.half_width > delta:
            return NullClass.ARCHITECTURAL, "the null follows a law too, another one"
        reason = "the null follows a law too, and neither the same nor another one is established"
        return NullClass.NULL_UNDETERMINED, reason
    if untrained is Verdicts.UNDETERMINED:
        return NullClass.NULL_UNDETERMINED, f"the null is {untrained.words}"
    if not untrained.is_conserved:
        return NullClass.NULL_UNDETERMINED, "the null changes, and a law of it is not excluded"
    if not differs:
        return NullClass.NULL_UNDETERMINED, "the null is conserved, and slopes may be equal"
    return NullClass.LEARNED, "the null is flat"


def _rho(ours: Series, theirs: Series) -> float | None:
    means_K = np.nanmean(ours.y_KS, axis=1)
    shift = abs(float((means_K - np.nanmean(theirs.y_KS, axis=1)).mean()))
    return float(np.ptp(means_K)) / shift if shift > 0 else None


def _seeds_needed(ours: Series, gap: _Gap, delta: float) -> int:
    """Seeds that certify a constant difference or a constant null, more than there are."""
    seed_sd = math.sqrt(max(gap.variance / 2, gap.null_variance))
    enough = seeds_for_conserved(seed_sd, delta=delta, num_sizes=len(ours.x_K))
    return max(int(ours.count_K.min()) + 1, enough)
