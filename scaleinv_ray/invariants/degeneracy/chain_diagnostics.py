"""Has a chain been long enough: R-hat, effective sample size, error of the mean, drift.

Shape suffixes: C chains, S draws (burn-in taken off), T lags, B batches. Gelman, Vehtari and others
as in Vehtari et al., Bayesian Analysis 16:667 (2021), whose equations are named. All of them are
necessary, none is sufficient: chains that all start at one point agree before they have relaxed.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate

LEAST_DRAWS = 8
"""Fewest draws of a chain: two halves, each with a variance and a pair of lags."""


def split_rhat(x_CS: np.ndarray) -> float:
    """Potential scale reduction of half chains, sqrt(((n - 1)/n W + B/n) / W) (eq. 1-4).

    W is the mean variance within half chains of n draws, B / n the variance of their means.

    Args:
        x_CS: draws of every chain, finite.

    Returns:
        R-hat; 1 where half chains agree. About 1 + (half chains) / (2 ESS) where all is well.

    Raises:
        Refused: under 8 draws, and for a chain that does not move.

    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(split_rhat(x) < 1.01), bool(split_rhat(x + np.arange(4.0)[:, None]) > 1.3)
    (True, True)
    """
    half_HS = _halves(x_CS)
    draws = half_HS.shape[1]
    within = float(half_HS.var(axis=1, ddof=1).mean())
    between = float(half_HS.mean(axis=1).var(ddof=1))
    return math.sqrt((draws - 1) / draws + between / within)


def rank_rhat(x_CS: np.ndarray) -> float:
    """The larger split R-hat of normal scores of the draws and of their distance to the median.

    Normal scores (eq. 14) make it meaningful for draws without a variance; the folded draws see
    chains of equal means that are differently wide.

    Args:
        x_CS: draws of every chain, finite.

    Returns:
        Rank-normalised R-hat.

    Raises:
        Refused: as `split_rhat`.
    """
    _checked(x_CS)
    folded_CS = np.abs(x_CS - np.median(x_CS))
    return max(split_rhat(_normal_scores(x_CS)), split_rhat(_normal_scores(folded_CS)))


def effective_sample_size(x_CS: np.ndarray) -> float:
    """Independent draws that would know the mean as well (eq. 10-13, of half chains).

    N / tau with tau = -1 + 2 sum_k (rho_2k + rho_2k+1) over Geyer's initial monotone sequence
    (1992): pairs up to the first that is not positive, none larger than the one before. rho counts
    the scatter of the chains' means as correlation.

    Args:
        x_CS: draws of every chain, finite.

    Returns:
        The size; at most N log10 N, for draws that alternate.

    Raises:
        Refused: as `split_rhat`.
    """
    half_HS = _halves(x_CS)
    return half_HS.size / _correlation_time(half_HS)


def chain_mean(x_CS: np.ndarray) -> Estimate:
    """Mean of all draws with its Monte Carlo error.

    The error is the larger of sd / sqrt(ESS) and, of two chains or more, the scatter of the chains'
    means / sqrt(C): the first knows the correlation, the second needs no model of it.

    Args:
        x_CS: draws of every chain, finite.

    Returns:
        The mean; n chains, whose means are the samples.

    Raises:
        Refused: as `split_rhat`.
    """
    stderr = float(x_CS.std(ddof=1)) / math.sqrt(effective_sample_size(x_CS))
    mean_C = x_CS.mean(axis=1)
    if len(mean_C) > 1:
        stderr = max(stderr, float(mean_C.std(ddof=1)) / math.sqrt(len(mean_C)))
    return Estimate(float(mean_C.mean()), stderr, len(mean_C), "chains", tuple(mean_C.tolist()))


def geweke_z(x_CS: np.ndarray, *, first: float = 0.1, last: float = 0.5) -> float:
    """Difference of the means early and late in the chains, in standard errors (Geweke 1992).

    The long-run variance is that of whole chains, each about its own mean: a tenth of a short chain
    is too few draws for a spectrum of its own. Chains are averaged first.

    Args:
        x_CS: draws of every chain, finite.
        first: share of the draws that are early.
        last: share that are late.

    Returns:
        About standard normal for a stationary chain.

    Raises:
        ValueError: for shares that are not positive, or overlap.
        Refused: as `split_rhat`.
    """
    if not (first > 0 and last > 0 and first + last <= 1):
        raise ValueError(f"first, last: got {first}, {last}, allowed > 0 with a sum up to 1")
    _checked(x_CS)
    chains, draws = x_CS.shape
    early, late = max(1, round(first * draws)), max(1, round(last * draws))
    own_CS = x_CS - x_CS.mean(axis=1, keepdims=True)
    long_run = float(own_CS.var(axis=1, ddof=1).mean()) * _correlation_time(own_CS)
    difference = float(x_CS[:, :early].mean() - x_CS[:, -late:].mean())
    return difference / math.sqrt(long_run / chains * (1 / early + 1 / late))


def _checked(x_CS: np.ndarray) -> None:
    if x_CS.ndim != 2 or x_CS.shape[1] < LEAST_DRAWS:
        raise Refused(f"draws: got shape {x_CS.shape}, needs {LEAST_DRAWS} draws of each chain")
    if not np.isfinite(x_CS).all():
        raise Refused("draws: got values that are not finite")
    if (x_CS.min(axis=1) == x_CS.max(axis=1)).any():
        raise Refused("draws: a chain does not move")


def _halves(x_CS: np.ndarray) -> np.ndarray:
    """First and second half of every chain as chains; the middle draw of an odd number is left."""
    _checked(x_CS)
    size = x_CS.shape[1] // 2
    half_HS = np.concatenate([x_CS[:, :size], x_CS[:, -size:]])
    if not half_HS.var(axis=1).any():
        raise Refused("draws: a chain does not move")
    return half_HS


def _normal_scores(x_CS: np.ndarray) -> np.ndarray:
    rank = rankdata(x_CS, axis=None).reshape(x_CS.shape)
    return ndtri((rank - 3 / 8) / (x_CS.size + 1 / 4))


def _correlation_time(x_CS: np.ndarray) -> float:
    """Sum of the autocorrelation over all lags, of both signs."""
    chains, draws = x_CS.shape
    covariance_T = _autocovariance(x_CS).mean(axis=0)
    within = covariance_T[0] * draws / (draws - 1)
    total = covariance_T[0] + (x_CS.mean(axis=1).var(ddof=1) if chains > 1 else 0.0)
    rho_T = 1 - (within - covariance_T) / total
    rho_T[0] = 1.0
    even = draws - draws % 2
    pair_K = rho_T[:even:2] + rho_T[1:even:2]
    stop = np.flatnonzero(pair_K <= 0)
    count = int(stop[0]) if len(stop) else len(pair_K)
    tau = -1 + 2 * float(np.minimum.accumulate(pair_K[:count]).sum())
    if count < len(pair_K):
        tau += max(0.0, float(rho_T[2 * count]))
    return max(tau, 1 / math.log10(x_CS.size))


def _autocovariance(x_CS: np.ndarray) -> np.ndarray:
    """(1/S) sum_s (x_s - mean)(x_{s+t} - mean) of every chain, for every lag t."""
    draws = x_CS.shape[1]
    own_CS = x_CS - x_CS.mean(axis=1, keepdims=True)
    spectrum_CF = np.abs(np.fft.rfft(own_CS, n=2 * draws, axis=1)) ** 2
    return np.fft.irfft(spectrum_CF, n=2 * draws, axis=1)[:, :draws] / draws
