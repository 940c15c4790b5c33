"""The statistics behind a verdict, for a whole batch of series on the same sizes at once.

Shape suffixes: B series of the batch (a series and the same with one seed left out), K sizes,
S seeds (padded with NaN), P pairs of sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from scipy import special

VARIANCE_RATIO = 10.0
"""Largest over smallest seed variance beyond which variances are not pooled."""
BROWN_FORSYTHE_P = 0.10
"""Brown-Forsythe p below which variances are not pooled."""


@dataclass(frozen=True)
class SampleMoments:
    """Means and variances over seeds at each size.

    Attributes:
        mean_BK: size means.
        variance_BK: variances over seeds (ddof = 1), NaN with one seed.
        count_BK: seeds.
        pooled_B: sum of squares within sizes / df, NaN where df = 0.
        df_B: sum of (seeds - 1).
        unequal_B: whether the variances differ too much to be pooled over pairs.
    """

    mean_BK: np.ndarray
    variance_BK: np.ndarray
    count_BK: np.ndarray
    pooled_B: np.ndarray
    df_B: np.ndarray
    unequal_B: np.ndarray


@dataclass(frozen=True)
class SeriesEvidence:
    """Tests of equivalence, heterogeneity and slope; all arrays [B], NaN where not to be had.

    Attributes:
        width_B: W of the intersection-union TOST.
        tost_p_B: largest one-sided p over the pairs.
        q_B: heterogeneity Q.
        heterogeneity_p_B: p of F = Q / (K - 1) on (K - 1, df); of F* where variances are unequal.
        slope_B: weighted least squares slope of the size means on x.
        slope_half_width_B: half-width of the 95 % interval of the slope, the larger of the pooled
            t(df) and the residual t(K - 2) one.
        slope_pooled_p_B: two-sided p against the variance over seeds, t(df).
        slope_residual_p_B: two-sided p against the scatter about the line, t(K - 2).
        lack_of_fit_p_B: p of F(K - 2, df).
        rms_residual_B: root mean square deviation of the means from the line.
        held_out_error_B: |prediction - mean| at the largest size, line fitted to the others.
        naive_last_error_B: |mean of the second largest - mean of the largest|.
        naive_mean_error_B: |mean of the others - mean of the largest|.
    """

    width_B: np.ndarray
    tost_p_B: np.ndarray
    q_B: np.ndarray
    heterogeneity_p_B: np.ndarray
    slope_B: np.ndarray
    slope_half_width_B: np.ndarray
    slope_pooled_p_B: np.ndarray
    slope_residual_p_B: np.ndarray
    lack_of_fit_p_B: np.ndarray
    rms_residual_B: np.ndarray
    held_out_error_B: np.ndarray
    naive_last_error_B: np.ndarray
    naive_mean_error_B: np.ndarray


class Sizes(NamedTuple):
    """What the tests need of the seeds of each size; z is the distance from their median."""

    num: np.ndarray
    mean: np.ndarray
    within: np.ndarray
    z: np.ndarray
    z_within: np.ndarray


def moments(y_BKS: np.ndarray) -> SampleMoments:
    """Means and variances over seeds, and whether the variances may be pooled.

    Args:
        y_BKS: values, NaN where a size has fewer seeds; every size has at least one.

    Returns:
        The moments; `unequal` where the Brown-Forsythe p is < .1 or the largest variance is more
        than ten times the smallest (pooling certified up to .28 of series at the margin there).
    """
    return _moments(sizes_of(y_BKS))


def moments_left_out(y_KS: np.ndarray) -> SampleMoments:
    """The moments of a series, and of it without each seed of the sizes that have three or more.

    Args:
        y_KS: values, NaN where a size has fewer seeds.

    Returns:
        The series in row 0, then a row a seed left out. The variances of the whole batch are
        pooled where those of the series may be.
    """
    whole = sizes_of(y_KS[None])
    size_M, seed_M = np.nonzero(~np.isnan(y_KS) & (whole.num[0] >= 3)[:, None])
    y_MS = y_KS[size_M]
    y_MS[np.arange(len(seed_M)), seed_M] = np.nan
    batch = []
    for of_all, of_left in zip(whole, sizes_of(y_MS), strict=True):
        of_BK = np.repeat(of_all, len(size_M) + 1, axis=0)
        of_BK[np.arange(len(size_M)) + 1, size_M] = of_left
        batch.append(of_BK)
    found = _moments(Sizes(*batch))
    # two seeds are left at a size that loses one of three, and their ratio is large by chance
    return replace(found, unequal_B=found.unequal_B & found.unequal_B[0])


def sizes_of(y_NS: np.ndarray) -> Sizes:
    """What the tests need of each size; NaN where it has fewer seeds."""
    present_NS = ~np.isnan(y_NS)
    count_N = present_NS.sum(axis=-1)
    mean_N = np.where(present_NS, y_NS, 0.0).sum(axis=-1) / count_N
    within_N = (np.where(present_NS, y_NS - mean_N[..., None], 0.0) ** 2).sum(axis=-1)
    ordered_NS = np.sort(y_NS, axis=-1)
    low = np.take_along_axis(ordered_NS, (count_N[..., None] - 1) // 2, -1)
    high = np.take_along_axis(ordered_NS, count_N[..., None] // 2, -1)
    z_NS = np.where(present_NS, np.abs(y_NS - (low + high) / 2), 0.0)
    z_N = z_NS.sum(axis=-1)
    away_NS = np.where(present_NS, z_NS - (z_N / count_N)[..., None], 0.0)
    return Sizes(count_N, mean_N, within_N, z_N, (away_NS**2).sum(axis=-1))


def _moments(of: Sizes) -> SampleMoments:
    df_BK = of.num - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_BK = np.where(df_BK > 0, of.within / df_BK, np.nan)
        pooled_B = np.where(df_BK.any(axis=1), of.within.sum(axis=1) / df_BK.sum(axis=1), np.nan)
        smallest_B = np.where(df_BK > 0, variance_BK, np.inf).min(axis=1)
        largest_B = np.where(df_BK > 0, variance_BK, -np.inf).max(axis=1)
    wide_B = (largest_B > VARIANCE_RATIO * smallest_B) & (largest_B > 0)
    unequal_B = wide_B | (brown_forsythe_p(of) < BROWN_FORSYTHE_P)
    return SampleMoments(of.mean, variance_BK, of.num, pooled_B, df_BK.sum(axis=1), unequal_B)


def brown_forsythe_p(of: Sizes) -> np.ndarray:
    """Brown-Forsythe test of equal variances, `scipy.stats.levene(center="median")` by batch.

    Returns:
        p [B]; 1 where no size has any spread.

    >>> from scipy import stats
    >>> y = np.array([[[0.0, 1.0, 5.0], [0.0, 0.1, 0.3]]])
    >>> bool(np.isclose(brown_forsythe_p(sizes_of(y))[0], stats.levene(*y[0]).pvalue))
    True
    """
    total_B = of.num.sum(axis=1)
    grand_B = of.z.sum(axis=1) / total_B
    between_B = (of.num * (of.z / of.num - grand_B[:, None]) ** 2).sum(axis=1)
    within_B = of.z_within.sum(axis=1)
    num_sizes = of.num.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        f_B = (between_B / (num_sizes - 1)) / (within_B / (total_B - num_sizes))
        p_B = special.fdtrc(num_sizes - 1, total_B - num_sizes, f_B)
    return np.where(np.isnan(p_B), np.where(between_B > 0, 0.0, 1.0), p_B)


def brown_forsythe_mehrotra_p(given: SampleMoments) -> np.ndarray:
    """Equal means under unequal variances, statsmodels' `anova_oneway(use_var="bf")` by batch.

    F* = sum s_i (m_i - m)^2 / sum (1 - s_i/n) v_i on Satterthwaite df (Brown & Forsythe 1974), with
    the numerator's df of Mehrotra (1997).

    Args:
        given: moments, two seeds or more at every size.

    Returns:
        p [B], NaN where a size has one seed or none has any spread.
    """
    share_BK = given.count_BK / given.count_BK.sum(axis=1, keepdims=True)
    v_BK = given.variance_BK
    grand_B1 = (share_BK * given.mean_BK).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        between_B = (given.count_BK * (given.mean_BK - grand_B1) ** 2).sum(axis=1)
        expected_BK = (1 - share_BK) * v_BK
        expected_B = expected_BK.sum(axis=1)
        total_B = (share_BK * v_BK).sum(axis=1)
        df1_B = expected_B**2 / (total_B**2 + ((1 - 2 * share_BK) * v_BK**2).sum(axis=1))
        df2_B = expected_B**2 / (expected_BK**2 / (given.count_BK - 1)).sum(axis=1)
        return special.fdtrc(df1_B, df2_B, between_B / expected_B)


def evidence(x_K: np.ndarray, given: SampleMoments, *, delta: float) -> SeriesEvidence:
    """All tests of a batch of series (Schuirmann 1987 for TOST; Berger 1982 for the union).

    W = max over pairs of |m_i - m_j| + t_{.95,df} sqrt(s2 (1/s_i + 1/s_j)), with Welch's standard
    error and df pair by pair where variances are unequal. Q = sum w_i (m_i - mu)^2 with
    w_i = s_i / s2, F = Q / (K - 1), or F* where variances are unequal (F then rejects constancy in
    .10 to .22 of series, F* in .03 to .08). The line is weighted by the number of seeds.

    Args:
        x_K: ln of total parameters, ascending, K >= 4.
        delta: margin on the scale of the values.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        width_B, tost_p_B = _equivalence(given, delta)
        df_B, s2_B = given.df_B, given.pooled_B
        num_sizes = len(x_K)
        mean_B = _weighted_mean(given.mean_BK, given.count_BK)
        between_B = (given.count_BK * (given.mean_BK - mean_B[:, None]) ** 2).sum(axis=1)
        q_B = _ratio(between_B, s2_B)
        slope_B, residual_BK, sxx_B = _line(x_K, given.mean_BK, given.count_BK)
        scatter_B = (given.count_BK * residual_BK**2).sum(axis=1) / (num_sizes - 2)
        pooled_se_B, residual_se_B = np.sqrt(s2_B / sxx_B), np.sqrt(scatter_B / sxx_B)
        held_B, last_B, naive_B = _leave_largest_out(x_K, given)
        half_B = np.fmax(
            special.stdtrit(df_B, 0.975) * pooled_se_B,
            special.stdtrit(num_sizes - 2, 0.975) * residual_se_B,
        )
        return SeriesEvidence(
            width_B=width_B,
            tost_p_B=tost_p_B,
            q_B=q_B,
            heterogeneity_p_B=np.where(
                given.unequal_B,
                brown_forsythe_mehrotra_p(given),
                _f_p(num_sizes - 1, df_B, q_B / (num_sizes - 1)),
            ),
            slope_B=slope_B,
            slope_half_width_B=half_B,
            slope_pooled_p_B=2 * special.stdtr(df_B, -_ratio(np.abs(slope_B), pooled_se_B)),
            slope_residual_p_B=2
            * special.stdtr(num_sizes - 2, -_ratio(np.abs(slope_B), residual_se_B)),
            lack_of_fit_p_B=_f_p(num_sizes - 2, df_B, _ratio(scatter_B, s2_B)),
            rms_residual_B=np.sqrt((residual_BK**2).mean(axis=1)),
            held_out_error_B=held_B,
            naive_last_error_B=last_B,
            naive_mean_error_B=naive_B,
        )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # 0 / 0: no effect and no scatter is no evidence of an effect
    return np.where((numerator == 0) & (denominator == 0), 0.0, numerator / denominator)


def _f_p(df1: float, df2: np.ndarray, f: np.ndarray) -> np.ndarray:
    return np.where(np.isposinf(f), 0.0, special.fdtrc(df1, df2, f))


def _weighted_mean(value_BK: np.ndarray, weight_BK: np.ndarray) -> np.ndarray:
    return (weight_BK * value_BK).sum(axis=1) / weight_BK.sum(axis=1)


def _equivalence(given: SampleMoments, delta: float) -> tuple[np.ndarray, np.ndarray]:
    width_B, tost_p_B = _pooled_equivalence(given, delta)
    left = np.flatnonzero(given.unequal_B)
    while len(left):
        # of series that differ from one of them in one size, the pairs of that size alone are new
        like = _like_first(given, left)
        width_B[like], tost_p_B[like] = _welch_equivalence(given, delta, like)
        left = np.setdiff1d(left, like, assume_unique=True)
    return width_B, tost_p_B


def _like_first(given: SampleMoments, rows: np.ndarray) -> np.ndarray:
    """Rows that differ from the first of them in one size at most."""
    return rows[_changed(given, rows).sum(axis=1) <= 1]


def _changed(given: SampleMoments, rows: np.ndarray) -> np.ndarray:
    differs_BK = np.zeros((len(rows), given.mean_BK.shape[1]), dtype=bool)
    for of_BK in (given.mean_BK, given.variance_BK, given.count_BK):
        mine_BK, first_K = of_BK[rows], of_BK[rows[0]]
        differs_BK |= (mine_BK != first_K) & ~(np.isnan(mine_BK) & np.isnan(first_K))
    return differs_BK


def _pooled_equivalence(given: SampleMoments, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """One error and df for all pairs with the same two numbers of seeds: the widest gap decides."""
    count_BK, mean_BK = given.count_BK, given.mean_BK
    df_B = given.df_B.astype(np.float64)
    t_B = special.stdtrit(df_B, 0.95)
    width_B, p_B = np.full(len(df_B), -np.inf), np.zeros(len(df_B))
    of_count = {
        int(count): _Extremes(
            np.where(count_BK == count, mean_BK, np.inf).min(axis=1),
            np.where(count_BK == count, mean_BK, -np.inf).max(axis=1),
            (count_BK == count).sum(axis=1),
        )
        for count in np.unique(count_BK)
    }
    for (first, one), (second, other) in combinations_with_replacement(of_count.items(), 2):
        there_B = (one.num_B > 1) if first == second else (one.num_B > 0) & (other.num_B > 0)
        gap_B = np.maximum(one.high_B - other.low_B, other.high_B - one.low_B)
        gap_B = np.where(there_B, gap_B, -np.inf)
        se_B = np.sqrt(given.pooled_B * (1 / first + 1 / second))
        width_B = np.maximum(width_B, gap_B + t_B * se_B)
        p_B = np.maximum(p_B, special.stdtr(df_B, -_tost_t(delta - gap_B, se_B)))
    return width_B, p_B


class _Extremes(NamedTuple):
    """Smallest and largest mean of the sizes with one number of seeds, and how many these are."""

    low_B: np.ndarray
    high_B: np.ndarray
    num_B: np.ndarray


def _welch_equivalence(
    given: SampleMoments, delta: float, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's error and df pair by pair, of series that differ from the first in one size."""
    num_sizes = given.mean_BK.shape[1]
    first, second = np.triu_indices(num_sizes, k=1)
    width_P, p_P = _welch(given, delta, rows[:1, None], first, second)
    changed_BK = _changed(given, rows)
    size_B = changed_BK.argmax(axis=1)
    # of the first series, the largest over the pairs without each size
    without_KP = (first != np.arange(num_sizes)[:, None]) & (
        second != np.arange(num_sizes)[:, None]
    )
    width_K = np.where(without_KP, width_P, -np.inf).max(axis=1)
    p_K = np.where(without_KP, p_P, 0.0).max(axis=1)
    others = np.arange(1, num_sizes)
    width_BO, p_BO = _welch(
        given, delta, rows[:, None], size_B[:, None], (size_B[:, None] + others) % num_sizes
    )
    return (
        np.maximum(width_K[size_B], width_BO.max(axis=1)),
        np.maximum(p_K[size_B], p_BO.max(axis=1)),
    )


def _welch(
    given: SampleMoments, delta: float, row: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gap plus its error, and p of the TOST, of pairs of sizes in some rows."""
    gap = np.abs(given.mean_BK[row, first] - given.mean_BK[row, second])
    error_BK = given.variance_BK / given.count_BK
    one, other = error_BK[row, first], error_BK[row, second]
    welch = one + other
    df = welch**2 / (
        one**2 / (given.count_BK[row, first] - 1) + other**2 / (given.count_BK[row, second] - 1)
    )
    df = np.where(welch == 0, 1.0, df)
    se = np.sqrt(welch)
    return gap + special.stdtrit(df, 0.95) * se, special.stdtr(df, -_tost_t(delta - gap, se))


def _tost_t(room: np.ndarray, se: np.ndarray) -> np.ndarray:
    t = np.where(se == 0, np.sign(room) * np.inf, room / se)
    return np.where(room == 0, 0.0, t)


def _line(
    x_K: np.ndarray, mean_BK: np.ndarray, weight_BK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x_BK = x_K - ((weight_BK * x_K).sum(axis=1) / weight_BK.sum(axis=1))[:, None]
    level_B = _weighted_mean(mean_BK, weight_BK)
    sxx_B = (weight_BK * x_BK**2).sum(axis=1)
    slope_B = (weight_BK * x_BK * mean_BK).sum(axis=1) / sxx_B
    return slope_B, mean_BK - level_B[:, None] - slope_B[:, None] * x_BK, sxx_B


def _leave_largest_out(
    x_K: np.ndarray, given: SampleMoments
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean_BK, weight_BK = given.mean_BK[:, :-1], given.count_BK[:, :-1]
    slope_B, residual_BK, _ = _line(x_K[:-1], mean_BK, weight_BK)
    at_last_B = mean_BK[:, -1] - residual_BK[:, -1] + slope_B * (x_K[-1] - x_K[-2])
    target_B = given.mean_BK[:, -1]
    naive_mean_B = _weighted_mean(mean_BK, weight_BK)
    return (
        np.abs(at_last_B - target_B),
        np.abs(mean_BK[:, -1] - target_B),
        np.abs(naive_mean_B - target_B),
    )
