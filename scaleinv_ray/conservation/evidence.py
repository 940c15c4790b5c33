"""The statistics behind a verdict, for a whole batch of series on the same sizes at once.

Shape suffixes: B series of the batch (a series and the same with one seed left out), K sizes,
S seeds (padded with NaN), P pairs of sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

VARIANCE_RATIO = 10.0
"""Largest over smallest seed variance beyond which variances are not pooled."""
BROWN_FORSYTHE_P = 0.10
"""Brown-Forsythe p below which variances are not pooled."""


@dataclass(frozen=True)
class Moments:
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
class Evidence:
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


def moments(y_BKS: np.ndarray, *, first_decides: bool = False) -> Moments:
    """Means and variances over seeds, and whether the variances may be pooled.

    Args:
        y_BKS: values, NaN where a size has fewer seeds; every size has at least one.
        first_decides: pool the variances of the whole batch where those of its first series may be.

    Returns:
        The moments; `unequal` where the Brown-Forsythe p is < .1 or the largest variance is more
        than ten times the smallest (pooling certified up to .28 of series at the margin there).
    """
    present_BKS = ~np.isnan(y_BKS)
    count_BK = present_BKS.sum(axis=2)
    mean_BK = np.where(present_BKS, y_BKS, 0.0).sum(axis=2) / count_BK
    square_BKS = np.where(present_BKS, y_BKS - mean_BK[..., None], 0.0) ** 2
    within_BK = square_BKS.sum(axis=2)
    df_BK = count_BK - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        variance_BK = np.where(df_BK > 0, within_BK / df_BK, np.nan)
        pooled_B = np.where(df_BK.any(axis=1), within_BK.sum(axis=1) / df_BK.sum(axis=1), np.nan)
        smallest_B = np.where(df_BK > 0, variance_BK, np.inf).min(axis=1)
        largest_B = np.where(df_BK > 0, variance_BK, -np.inf).max(axis=1)
    wide_B = (largest_B > VARIANCE_RATIO * smallest_B) & (largest_B > 0)
    unequal_B = wide_B | (brown_forsythe_p(y_BKS) < BROWN_FORSYTHE_P)
    # two seeds are left at a size that loses one of three, and their ratio is large by chance
    unequal_B = unequal_B & unequal_B[0] if first_decides else unequal_B
    return Moments(mean_BK, variance_BK, count_BK, pooled_B, df_BK.sum(axis=1), unequal_B)


def brown_forsythe_p(y_BKS: np.ndarray) -> np.ndarray:
    """Brown-Forsythe test of equal variances, `scipy.stats.levene(center="median")` by batch.

    Args:
        y_BKS: values, NaN where a size has fewer seeds.

    Returns:
        p [B]; 1 where no size has any spread.

    >>> y = np.array([[[0.0, 1.0, 5.0], [0.0, 0.1, 0.3]]])
    >>> from scipy import stats
    >>> bool(np.isclose(brown_forsythe_p(y)[0], stats.levene(*y[0]).pvalue))
    True
    """
    present_BKS = ~np.isnan(y_BKS)
    count_BK = present_BKS.sum(axis=2)
    low = np.take_along_axis(ordered := np.sort(y_BKS, axis=2), (count_BK[..., None] - 1) // 2, 2)
    high = np.take_along_axis(ordered, count_BK[..., None] // 2, 2)
    z_BKS = np.where(present_BKS, np.abs(y_BKS - (low + high) / 2), 0.0)
    z_BK = z_BKS.sum(axis=2) / count_BK
    total_B = count_BK.sum(axis=1)
    grand_B = z_BKS.sum(axis=(1, 2)) / total_B
    between_B = (count_BK * (z_BK - grand_B[:, None]) ** 2).sum(axis=1)
    within_B = (np.where(present_BKS, z_BKS - z_BK[..., None], 0.0) ** 2).sum(axis=(1, 2))
    num_sizes = y_BKS.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        f_B = (between_B / (num_sizes - 1)) / (within_B / (total_B - num_sizes))
        p_B = special.fdtrc(num_sizes - 1, total_B - num_sizes, f_B)
    return np.where(np.isnan(p_B), np.where(between_B > 0, 0.0, 1.0), p_B)


def brown_forsythe_mehrotra_p(given: Moments) -> np.ndarray:
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


def evidence(x_K: np.ndarray, given: Moments, *, delta: float) -> Evidence:
    """All tests of a batch of series (Schuirmann 1987 for TOST; Berger 1982 for the union).

    W = max over pairs of |m_i - m_j| + t_{.95,df} sqrt(s2 (1/s_i + 1/s_j)), with Welch's standard
    error and df pair by pair where variances are unequal. Q = sum w_i (m_i - mu)^2 with
    w_i = s_i / s2, F = Q / (K - 1), or F* where variances are unequal (F then rejects constancy in
    .10 to .22 of series, F* in .03 to .08). The line is weighted by the number of seeds.

    Args:
        x_K: ln of total parameters, ascending, K >= 4.
        given: moments of the batch.
        delta: margin on the scale of the values.

    Returns:
        The evidence.
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
        return Evidence(
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


def _equivalence(given: Moments, delta: float) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(given.mean_BK.shape[1], k=1)
    gap_BP = np.abs(given.mean_BK[:, first] - given.mean_BK[:, second])
    error_BK = given.variance_BK / given.count_BK
    welch_BP = error_BK[:, first] + error_BK[:, second]
    welch_df_BP = welch_BP**2 / (
        error_BK[:, first] ** 2 / (given.count_BK[:, first] - 1)
        + error_BK[:, second] ** 2 / (given.count_BK[:, second] - 1)
    )
    welch_df_BP = np.where(welch_BP == 0, 1.0, welch_df_BP)
    pooled_BP = given.pooled_B[:, None] * (
        1 / given.count_BK[:, first] + 1 / given.count_BK[:, second]
    )
    unequal_B1 = given.unequal_B[:, None]
    se_BP = np.sqrt(np.where(unequal_B1, welch_BP, pooled_BP))
    df_BP = np.where(unequal_B1, welch_df_BP, given.df_B[:, None].astype(np.float64))
    width_B = (gap_BP + special.stdtrit(df_BP, 0.95) * se_BP).max(axis=1)
    room_BP = delta - gap_BP
    t_BP = np.where(se_BP == 0, np.sign(room_BP) * np.inf, room_BP / se_BP)
    return width_B, special.stdtr(df_BP, -np.where(room_BP == 0, 0.0, t_BP)).max(axis=1)


def _line(
    x_K: np.ndarray, mean_BK: np.ndarray, weight_BK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x_BK = x_K - ((weight_BK * x_K).sum(axis=1) / weight_BK.sum(axis=1))[:, None]
    level_B = _weighted_mean(mean_BK, weight_BK)
    sxx_B = (weight_BK * x_BK**2).sum(axis=1)
    slope_B = (weight_BK * x_BK * mean_BK).sum(axis=1) / sxx_B
    return slope_B, mean_BK - level_B[:, None] - slope_B[:, None] * x_BK, sxx_B


def _leave_largest_out(
    x_K: np.ndarray, given: Moments
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
