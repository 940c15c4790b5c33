"""Exponents of coarse-grained units: variance, spectrum, silence and memory against cluster size.

Shape suffixes: T tokens, N units, C clusters, K cluster sizes (or units in a cluster), B blocks
of sequences, R matrices or replicates, S sequences, P positions, G lags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.block_replicates import block_covariances
from scaleinv_ray.invariants.renormalization.coarse_graining import correlation, hierarchy, within

SMALLEST_SPECTRUM = 16  # five ranks lie in 1 < r < 0.4 K; with N < 64 there is only K = 8, two
MIN_EIGENVALUE = 1e-6  # far above what rounding leaves of copies (1e-14 in float64)
MIN_SILENT = 10
MIN_POSITIONS = 16
MIN_AUTOCORRELATION = 0.1  # at lag 1: less is a correlation time under half a token
CACHED = 2**18  # matrix entries handled at once: a larger stack falls out of the processor's cache


class Scaling(NamedTuple):
    """What follows from covariances alone, for a stack of R matrices.

    Attributes:
        alpha_R: exponents of the variance of the sums.
        mu_R: exponents of the spectrum inside clusters; nan where eigenvalues vanish.
        variance_RK: mean variance of the sums over that of one unit, K = 1, 2, .., largest.
        spectrum_RK: mean eigenvalues of the correlation inside the largest clusters, descending.
        cluster_RCK: the largest clusters; their halves are those of the level before, and so on.
    """

    alpha_R: np.ndarray
    mu_R: np.ndarray
    variance_RK: np.ndarray
    spectrum_RK: np.ndarray
    cluster_RCK: np.ndarray


def scaling(covariance_RNN: np.ndarray, *, largest: int) -> Scaling:
    """The exponents alpha and mu of a stack of covariances under greedy coarse-graining.

    alpha: mean variance of the sums over clusters of K = 1, 2, .., `largest` units ~ K^alpha;
    mu: lambda_r ~ (K/r)^mu for the eigenvalues of the correlation inside clusters, averaged over
    clusters, 1 < r < 0.4 K, mean over K = 16, .., `largest` (`largest` alone where it is below).
    Least squares of logarithms (Meshulam et al., PRL 123:178103, 2019).

    Args:
        covariance_RNN: symmetric covariances of the units, with positive diagonals.
        largest: largest cluster size, a power of two, 8 .. N/2.

    Returns:
        Exponents, curves, clusters.

    >>> one_factor = 0.5 + 0.5 * np.eye(64)  # Var = K/2 + K^2/2
    >>> scaling(one_factor[None], largest=16).alpha_R.round(2).tolist()
    [1.78]
    """
    num_matrices, num_units = covariance_RNN.shape[:2]
    step = max(1, CACHED // num_units**2)
    parts = [
        _scaling(covariance_RNN[start : start + step], largest)
        for start in range(0, num_matrices, step)
    ]
    return Scaling(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def largest_cluster(num_units: int) -> int:
    """Largest size of clusters for a number of units.

    Returns:
        The largest power of two up to a quarter of the units.

    >>> largest_cluster(128), largest_cluster(96)
    (32, 16)
    """
    return 2 ** int(math.log2(num_units // 4))


def mean_exponents(
    x_TN: np.ndarray,
    parts: list[list[np.ndarray]],
    orders: list[np.ndarray],
    *,
    largest: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean alpha and mu of disjoint subsets of the units, each on its own part of the rows.

    Args:
        x_TN: units by row.
        parts: P disjoint parts of the rows, each by block.
        orders: units in a random order, one order a draw: P subsets of N // P units.
        largest: largest cluster.

    Returns:
        alpha_R, mu_R by replicate, means over parts and draws.
    """
    size = len(orders[0]) // len(parts)
    covariance_DRNN = np.array([
        block_covariances(x_TN[:, order[p * size : (p + 1) * size]], part)
        for order in orders
        for p, part in enumerate(parts)
    ])
    found = scaling(covariance_DRNN.reshape(-1, size, size), largest=largest)
    num_draws = len(covariance_DRNN)
    alpha_DR, mu_DR = found.alpha_R.reshape(num_draws, -1), found.mu_R.reshape(num_draws, -1)
    return alpha_DR.mean(axis=0), mu_DR.mean(axis=0)


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slopes.

    Returns:
        Of y [..., K] against x [K].

    >>> float(slope(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])))
    2.0
    """
    centred = x - x.mean()
    return y @ centred / (centred @ centred)


def _scaling(covariance_RNN: np.ndarray, largest: int) -> Scaling:
    levels = hierarchy(covariance_RNN, largest=largest)
    variance_RK = levels.variance_RK
    correlation_RNN = correlation(covariance_RNN)
    wide = [c for c in levels.clusters if c.shape[2] >= min(SMALLEST_SPECTRUM, largest)]
    spectra = [np.linalg.eigvalsh(within(correlation_RNN, c)).mean(axis=1)[:, ::-1] for c in wide]
    return Scaling(
        alpha_R=slope(np.arange(variance_RK.shape[1]) * math.log(2), np.log(variance_RK)),
        mu_R=np.mean([_spectral_slope(spectrum_RK) for spectrum_RK in spectra], axis=0),
        variance_RK=variance_RK / variance_RK[:, :1],
        spectrum_RK=spectra[-1],
        cluster_RCK=levels.clusters[-1],
    )


def _spectral_slope(spectrum_RK: np.ndarray) -> np.ndarray:
    size = spectrum_RK.shape[1]
    rank = np.arange(2, math.ceil(0.4 * size))
    eigenvalue = spectrum_RK[:, rank - 1]
    mu_R = slope(np.log(size / rank), np.log(np.maximum(eigenvalue, MIN_EIGENVALUE)))
    return np.where(eigenvalue.min(axis=1) < MIN_EIGENVALUE, math.nan, mu_R)


def silence_exponents(
    x_TN: np.ndarray,
    rows_B: list[np.ndarray],
    keep_R: list[list[int]],
    top_RCK: np.ndarray,
) -> np.ndarray | Refused:
    """Exponents beta of -ln P(all units of a cluster exactly zero) ~ K^beta, per replicate.

    Args:
        x_TN: units by row.
        rows_B: rows of every block of sequences.
        keep_R: blocks kept in every replicate, all of them first.
        top_RCK: largest clusters of every replicate, as columns of x_TN.

    Returns:
        Exponents, fitted over the sizes at which every replicate has 10 silent clusters; a
        refusal with fewer than three such sizes.
    """
    none = f"silent clusters: fewer than {MIN_SILENT} at K >= 4, no exact zeros to count"
    if not (x_TN == 0).any():
        return Refused(none)
    silent_B = [np.packbits(x_TN[rows] == 0, axis=0).T for rows in rows_B]
    count_RK = np.array([_silent(silent_B, *pair) for pair in zip(keep_R, top_RCK, strict=True)])
    enough = np.flatnonzero(count_RK.min(axis=0) >= MIN_SILENT)
    if len(enough) < 3:
        return Refused(none)
    places_R = np.array([sum(len(rows_B[b]) for b in keep) for keep in keep_R]) * top_RCK[0].size
    share_RK = count_RK[:, enough] * 2.0**enough / places_R[:, None]
    return slope(enough * math.log(2), np.log(-np.log(share_RK)))


def _silent(silent_B: list[np.ndarray], keep: list[int], top_CK: np.ndarray) -> list[int]:
    """Cluster-tokens in which all units are zero, for cluster sizes 1, 2, 4, .. up to the top."""
    bits_CT = np.concatenate([silent_B[b] for b in keep], axis=1)[top_CK.ravel()]
    counts = []
    for _ in range(top_CK.shape[1].bit_length()):
        counts.append(int(np.bitwise_count(bits_CT).sum(dtype=np.int64)))
        bits_CT = bits_CT[0::2] & bits_CT[1::2] if len(bits_CT) > len(top_CK) else bits_CT
    return counts


def memory_exponents(
    x_NSP: np.ndarray, member_SB: np.ndarray, keep_R: list[list[int]], *, num_clusters: int
) -> np.ndarray | Refused:
    """Exponents z of the correlation time ~ K^z over positions, per replicate.

    tau_c is the lag at which the autocorrelation of the sums, about the mean of their position,
    falls to 1/e, averaged over the clusters of K units.

    Args:
        x_NSP: units (ordered by the largest clusters, one after another) by sequence, position.
        member_SB: 1 where a sequence belongs to a block, else 0.
        keep_R: blocks kept in every replicate.
        num_clusters: number of largest clusters.

    Returns:
        Exponents, or a refusal: too few positions, no memory, or memory that outlasts them.
    """
    num_positions = x_NSP.shape[2]
    if num_positions < MIN_POSITIONS:
        return Refused(f"positions: got {num_positions}, allowed >= {MIN_POSITIONS}")
    x_NSP = x_NSP - x_NSP.mean(axis=1, keepdims=True)
    level_KGCB = _lagged(x_NSP, member_SB.astype(x_NSP.dtype), num_clusters=num_clusters)
    curve_RKG = [[_autocorrelation(level, keep) for level in level_KGCB] for keep in keep_R]
    first = min(curve_G[1] for curve_KG in curve_RKG for curve_G in curve_KG)
    if not first >= MIN_AUTOCORRELATION:
        return Refused(f"autocorrelation at lag 1: got {first:.3f}, needs {MIN_AUTOCORRELATION}")
    time_RK = np.array([[_correlation_time(curve) for curve in curve_KG] for curve_KG in curve_RKG])
    if np.isnan(time_RK).any():
        return Refused(f"autocorrelation: above 1/e up to lag {num_positions // 4}")
    return slope(np.arange(len(level_KGCB)) * math.log(2), np.log(time_RK))


def _lagged(x_NSP: np.ndarray, member_SB: np.ndarray, *, num_clusters: int) -> list[list]:
    """Autocovariance [C, B] by level and lag, up to the lag where every level is below 1/e."""
    sums_K = [x_NSP]
    while len(sums_K[-1]) > num_clusters:
        sums_K.append(sums_K[-1][0::2] + sums_K[-1][1::2])
    lagged_KG: list[list] = [[] for _ in sums_K]
    num_positions, everything = x_NSP.shape[2], range(member_SB.shape[1])
    for lag in range(num_positions // 4 + 1):
        pairs = num_positions - lag
        for level, x_CSP in zip(lagged_KG, sums_K, strict=True):
            product_CS = np.einsum("csp,csp->cs", x_CSP[..., :pairs], x_CSP[..., lag:])
            level.append(product_CS @ member_SB / pairs)
        # below 1/e with room: replicates that leave out a block cross it too
        if lag and all(
            _autocorrelation(level, everything)[-1] < 0.8 / math.e for level in lagged_KG
        ):
            break
    return lagged_KG


def _autocorrelation(level_GCB: list, keep: Sequence[int]) -> np.ndarray:
    lagged_GC = np.array(level_GCB)[..., list(keep)].sum(axis=-1)
    if lagged_GC[0].min() <= 0:  # a unit that is a function of its position
        return np.zeros(len(lagged_GC))
    return (lagged_GC / lagged_GC[0]).mean(axis=1)


def _correlation_time(autocorrelation_G: np.ndarray) -> float:
    """Lag at 1/e, interpolating the logarithm (exact for an exponential); nan where not reached."""
    below = np.flatnonzero(autocorrelation_G < 1 / math.e)
    if len(below) == 0:
        return math.nan
    lag = int(below[0])
    # the floor stands for correlations of either sign that are noise
    before, after = np.log(np.maximum(autocorrelation_G[lag - 1 : lag + 1], 1e-3))
    return float(lag - 1 + (before + 1) / (before - after))
