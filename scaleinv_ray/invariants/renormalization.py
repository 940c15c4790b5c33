"""Renormalisation: critical exponents of activations under phenomenological coarse-graining.

Units are paired by correlation and summed, again and again; exponents say how the statistics of
the sums grow with the cluster size K.

Shape suffixes: T tokens, N units, C clusters, K cluster sizes (or units in a cluster), B blocks
of sequences, R replicates (all blocks, then all but one), S sequences, P positions, G lags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import ortho_group

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, unknown
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import jackknife, sequence_blocks

MIN_TOKENS_PER_UNIT = 50  # below it the noise of independent units alone shows mu > .05
MIN_UNITS = 32
MIN_LIVE = 0.75  # leaving out a quarter of 128 units moved alpha_tilde by .01-.03, in its margin
SMALLEST_SPECTRUM = 16  # five ranks lie in 1 < r < 0.4 K; with N < 64 there is only K = 8, two
MIN_EIGENVALUE = 1e-6  # rounding of a float32 correlation matrix
MIN_SILENT = 10
MIN_POSITIONS = 16
MIN_AUTOCORRELATION = 0.1  # at lag 1: less is a correlation time under half a token


class Scaling(NamedTuple):
    """Exponents (mu nan where eigenvalues vanish), their curves, clusters [C, K] by level."""

    alpha: float
    mu: float
    variance_K: np.ndarray
    spectrum_K: np.ndarray
    clusters: tuple[np.ndarray, ...]


def greedy_pairs(similarity_NN: np.ndarray) -> np.ndarray:
    """Pairs units greedily: the most similar pair first, each unit used once.

    Equal to walking through all pairs in order of falling similarity, but by rounds: two units
    that are each other's best partner are always a pair of the greedy matching (Preis 1999), so
    each round takes all of those at once. Ties go to the lower index; of an odd number of units
    the last one is left over.

    Args:
        similarity_NN: symmetric similarities [N, N]; the diagonal is ignored.

    Returns:
        Indices [N // 2, 2], in the order found.

    >>> greedy_pairs(np.array([[1, .9, .8, 0], [.9, 1, .95, 0], [.8, .95, 1, 0], [0, 0, 0, 1]]))
    array([[1, 2],
           [0, 3]])
    """
    rest = np.array(similarity_NN, dtype=np.float64)
    np.fill_diagonal(rest, -np.inf)
    unit_N = np.arange(len(rest))
    pairs = []
    while len(unit_N) > 1:
        best = rest.argmax(axis=1)
        here = np.arange(len(unit_N))
        mutual = best[best] == here
        first = mutual & (here < best)
        pairs.append(np.stack([unit_N[first], unit_N[best[first]]], axis=1))
        left = np.flatnonzero(~mutual)
        unit_N, rest = unit_N[left], rest[np.ix_(left, left)]
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)


def _clusters(covariance_NN: np.ndarray, *, largest: int) -> tuple[np.ndarray, ...]:
    """Unit indices [N // K, K] for K = 1, 2, .., largest: the sums are paired by correlation."""
    cluster_CK = np.arange(len(covariance_NN))[:, None]
    levels = [cluster_CK]
    coarse = covariance_NN
    while 2 * cluster_CK.shape[1] <= largest:
        pairs = greedy_pairs(_correlation(coarse))
        coarse = coarse[pairs].sum(axis=1)[:, pairs].sum(axis=2)
        cluster_CK = cluster_CK[pairs].reshape(len(pairs), -1)
        levels.append(cluster_CK)
    return tuple(levels)


def scaling(covariance_NN: np.ndarray, *, largest: int) -> Scaling:
    """The exponents alpha_tilde and mu: all of this follows from the covariance of the units.

    Args:
        covariance_NN: covariance of the units, with positive diagonal.
        largest: largest cluster size, a power of two, 8 .. N/2.

    Returns:
        Exponents (defined in `critical_exponents`), curves, clusters.

    >>> round(scaling(0.5 + 0.5 * np.eye(64), largest=16).alpha, 2)  # Var = K/2 + K^2/2
    1.78
    """
    clusters = _clusters(covariance_NN, largest=largest)
    variance_K = np.array([
        covariance_NN[c[:, :, None], c[:, None, :]].sum(axis=(1, 2)).mean() for c in clusters
    ])
    correlation_NN = _correlation(covariance_NN)
    wide = [c for c in clusters if c.shape[1] >= min(SMALLEST_SPECTRUM, largest)]
    spectra = [
        np.linalg.eigvalsh(correlation_NN[c[:, :, None], c[:, None, :]]).mean(axis=0)[::-1]
        for c in wide
    ]
    return Scaling(
        alpha=_slope(np.log([c.shape[1] for c in clusters]), np.log(variance_K)),
        mu=float(np.mean([_spectral_slope(s) for s in spectra])),
        variance_K=variance_K / variance_K[0],
        spectrum_K=spectra[-1],
        clusters=clusters,
    )


@invariant(
    quantities={
        "alpha_tilde": Quantity(law="constant", margin=0.05),
        "mu": Quantity(law="constant", margin=0.10, unit=0.5),
        "beta_tilde": Quantity(law="constant", margin=0.10, unit=1.0),
        "z_tilde": Quantity(law="constant", margin=0.10, unit=1.0),
        "consistency": Quantity(law="constant", margin=0.10, unit=1.0),
        "alpha_tilde_rotated": Quantity(law="constant", margin=0.05, control=True),
        "mu_rotated": Quantity(law="constant", margin=0.10, unit=0.5, control=True),
    },
    symmetries=("permutation", "scale", "mean_shift"),
    scheme="stream",
    curves=("variance_flow", "cluster_spectrum"),
    planned={"skip_positions": 1},
)
def critical_exponents(
    stream: Activations, *, rng: np.random.Generator, skip_positions: int, num_blocks: int = 8
) -> Measured:
    """Critical exponents of a stream under greedy coarse-graining of its units.

    With X^(K) the sum over a cluster of K units, K = 1, 2, .., N/4, clusters found by pairing the
    most correlated (Meshulam, Gauthier, Brody, Tank & Bialek, PRL 123:178103, 2019):
    alpha_tilde: mean_i Var X_i^(K) ~ K^alpha_tilde (independent 1, fully correlated 2);
    mu: eigenvalues of the correlation inside a cluster ~ (K/r)^mu, 1 < r < 0.4 K, the mean over
    K = 16, .., N/4 (8 where N < 64);
    beta_tilde: -ln P(all units of a cluster exactly zero) ~ K^beta_tilde (independent 1);
    z_tilde: tau_c ~ K^z_tilde, tau_c the position lag at which the autocorrelation of X^(K) about
    the mean of its position falls to 1/e (the same law for every unit, independently: 0);
    consistency = alpha_tilde - 1 - mu, 0 for an infinite translation-invariant critical system, to
    be read against a surrogate of the same N and spectrum (-.15 to -.4 at finite N);
    *_rotated: the same after one random rotation (exponents of residual sites depend on the basis).
    Constant units are left out, at the same cluster sizes, and counted in `dead_units`. Where the
    record `removes_mean`, every row's mean over the sampled units is taken out.

    Args:
        stream: x_TD with N = D sampled units, whole sequences, T/N >= 50.
        rng: source of the rotation.
        skip_positions: positions at the start of each sequence to leave out (attention sinks at
            the first token, of 100x the norm, would be the only correlation: Sun et al. 2024,
            arXiv 2402.17762).
        num_blocks: blocks of sequences of the delete-one jackknife, at most the sequences.
            Clusters are found anew in each replicate (for z_tilde kept): errors are 1 to 2.5
            times the spread over streams, as pairing jumps; with clusters kept, down to .2 times.

    Returns:
        The exponents with jackknife errors; curves `variance_flow` (variance over that of one
        unit, against K) and `cluster_spectrum` (lambda_r against r/K at the largest K); flags.

    Raises:
        Refused: with values not finite, under 32 units or 50 tokens a unit, or more than a
            quarter of the units constant.
    """
    x_TN, rows_B = _rows(stream, skip_positions=skip_positions, num_blocks=num_blocks)
    keep_R = _replicates(len(rows_B))
    covariance_RNN, varies_N = _covariances(x_TN, rows_B, keep_R)
    unit_N = np.flatnonzero(varies_N >= min(2, len(rows_B)))  # a variance in every replicate
    if len(unit_N) < MIN_LIVE * len(varies_N):
        raise Refused(
            f"units that vary: got {len(unit_N)} of {len(varies_N)}, needs {MIN_LIVE:.0%}"
        )
    # an order without names: ties and the rotation are the same when units are renamed
    unit_N = unit_N[np.argsort(covariance_RNN[0, unit_N, unit_N], kind="stable")]
    covariance_RNN = covariance_RNN[:, unit_N[:, None], unit_N]
    largest = 2 ** int(math.log2(x_TN.shape[1] // 4))
    rotation_NN = ortho_group.rvs(len(unit_N), random_state=rng)
    own_R = [scaling(c, largest=largest) for c in covariance_RNN]
    rotated_R = [scaling(c, largest=largest) for c in rotation_NN.T @ covariance_RNN @ rotation_NN]
    alpha_R, mu_R = (np.array([getattr(r, name) for r in own_R]) for name in ("alpha", "mu"))
    top_RCK = [unit_N[own.clusters[-1]] for own in own_R]
    result_R: dict[str, np.ndarray | Refused] = {
        "alpha_tilde": alpha_R,
        "mu": mu_R,
        "beta_tilde": _beta(x_TN, rows_B, keep_R, top_RCK),
        "z_tilde": _z(stream, x_TN, rows_B, keep_R, top_RCK[0]),
        "consistency": alpha_R - 1 - mu_R,
        "alpha_tilde_rotated": np.array([rotated.alpha for rotated in rotated_R]),
        "mu_rotated": np.array([rotated.mu for rotated in rotated_R]),
    }
    num_tokens = sum(len(rows) for rows in rows_B)
    size_K, share_K = 2.0 ** np.arange(len(own_R[0].clusters)), np.arange(1, largest + 1) / largest
    curves = {
        "variance_flow": _curve(size_K, np.array([r.variance_K for r in own_R])),
        "cluster_spectrum": _curve(share_K, np.array([r.spectrum_K for r in own_R])),
    }
    flags = {"num_units": len(unit_N), "dead_units": x_TN.shape[1] - len(unit_N)}
    values = {name: _estimate(result, n=num_tokens) for name, result in result_R.items()}
    return Measured(values, curves=curves, flags=flags)


def _correlation(covariance_NN: np.ndarray) -> np.ndarray:
    scale_N = np.sqrt(np.diag(covariance_NN))
    return covariance_NN / np.outer(scale_N, scale_N)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def _spectral_slope(spectrum_K: np.ndarray) -> float:
    size = len(spectrum_K)
    rank = np.arange(2, math.ceil(0.4 * size))
    eigenvalue = spectrum_K[rank - 1]
    if eigenvalue.min() < MIN_EIGENVALUE:
        return math.nan
    return _slope(np.log(size / rank), np.log(eigenvalue))


def _rows(
    stream: Activations, *, skip_positions: int, num_blocks: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The units by row, and the rows used of each block of sequences."""
    num_tokens, num_units = stream.x_TD.shape
    if num_units < MIN_UNITS:
        raise Refused(f"units: got {num_units}, allowed >= {MIN_UNITS} (clusters of 8 at N/4)")
    if num_tokens < MIN_TOKENS_PER_UNIT * num_units:
        raise Refused(
            f"tokens per unit: got {num_tokens}/{num_units} = {num_tokens / num_units:.1f}, "
            f"allowed >= {MIN_TOKENS_PER_UNIT}"
        )
    if not np.isfinite(stream.x_TD).all():
        raise Refused(f"x_TD: got {np.count_nonzero(~np.isfinite(stream.x_TD))} values not finite")
    x_TN = stream.x_TD.astype(np.result_type(stream.x_TD.dtype, np.float32), copy=False)
    if stream.removes_mean:
        x_TN = x_TN - x_TN.mean(axis=1, keepdims=True)
    blocks = sequence_blocks(stream.sequence_T, min(num_blocks, len(np.unique(stream.sequence_T))))
    rows_B = [rows[stream.position_T[rows] >= skip_positions] for rows in blocks]
    if min(len(rows) for rows in rows_B) == 0:
        raise Refused(f"skip_positions: got {skip_positions}, which leaves no token in a block")
    return x_TN, rows_B


def _covariances(
    x_TN: np.ndarray, rows_B: list[np.ndarray], keep_R: list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of every replicate from sums by block, and in how many blocks a unit varies."""
    origin_N = x_TN[rows_B[0]].mean(axis=0)
    sums, outers = [], []
    varies_N = np.zeros(x_TN.shape[1], dtype=np.int64)
    for rows in rows_B:
        block_TN = x_TN[rows]
        varies_N += block_TN.max(axis=0) > block_TN.min(axis=0)
        block_TN -= origin_N
        sums.append(block_TN.sum(axis=0, dtype=np.float64))
        outers.append((block_TN.T @ block_TN).astype(np.float64))
    covariances = []
    for keep in keep_R:
        count = sum(len(rows_B[b]) for b in keep)
        mean_N = sum(sums[b] for b in keep) / count
        covariances.append(sum(outers[b] for b in keep) / count - np.outer(mean_N, mean_N))
    return np.array(covariances), varies_N


def _replicates(num_blocks: int) -> list[list[int]]:
    """Blocks kept: all of them first, then, with two or more, all but one."""
    everything = list(range(num_blocks))
    left_out = everything if num_blocks > 1 else []
    return [everything, *([b for b in everything if b != out] for out in left_out)]


def _estimate(result_R: np.ndarray | Refused, *, n: int) -> Estimate | Refused:
    """Jackknife over `_replicates`; one block has no error."""
    if isinstance(result_R, Refused):
        return result_R
    if np.isnan(result_R).any():
        return Refused(f"eigenvalues inside clusters below {MIN_EIGENVALUE:g}: units are copies")
    num_blocks = len(result_R) - 1
    if num_blocks == 0:
        return unknown(result_R[0], n=n)
    every = np.arange(num_blocks)
    return jackknife(
        lambda keep: result_R[1 + np.setdiff1d(every, keep).sum() if len(keep) < len(every) else 0],
        num_blocks,
    )


def _curve(x: np.ndarray, y_R: np.ndarray) -> Curve:
    left_out = y_R[1:]
    stderr = np.sqrt((len(left_out) - 1) * left_out.var(axis=0)) if len(left_out) else None
    return Curve(x, y_R[0], stderr)


def _beta(
    x_TN: np.ndarray,
    rows_B: list[np.ndarray],
    keep_R: list[list[int]],
    top_RCK: list[np.ndarray],
) -> np.ndarray | Refused:
    """Exponent of -ln P(cluster silent), per replicate; fitted where the whole has enough."""
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
    return np.array([_slope(enough * math.log(2), np.log(-np.log(share))) for share in share_RK])


def _silent(silent_B: list[np.ndarray], keep: list[int], top_CK: np.ndarray) -> list[int]:
    """Cluster-tokens in which all units are zero, for cluster sizes 1, 2, 4, .. up to the top."""
    bits_CT = np.concatenate([silent_B[b] for b in keep], axis=1)[top_CK.ravel()]
    counts = []
    for _ in range(top_CK.shape[1].bit_length()):
        counts.append(int(np.bitwise_count(bits_CT).sum(dtype=np.int64)))
        bits_CT = bits_CT[0::2] & bits_CT[1::2] if len(bits_CT) > len(top_CK) else bits_CT
    return counts


def _z(
    stream: Activations,
    x_TN: np.ndarray,
    rows_B: list[np.ndarray],
    keep_R: list[list[int]],
    top_CK: np.ndarray,
) -> np.ndarray | Refused:
    """Exponent of the correlation time over positions, per replicate; one set of clusters."""
    rows = np.concatenate(rows_B)
    rows = rows[np.lexsort((stream.position_T[rows], stream.sequence_T[rows]))]
    position_T, num_sequences = stream.position_T[rows], len(np.unique(stream.sequence_T[rows]))
    grid_P = position_T[0] + np.arange(len(rows) // num_sequences)
    alike = np.array_equal(position_T, np.tile(grid_P, num_sequences))
    if len(grid_P) < MIN_POSITIONS or not alike:
        return Refused(f"positions: need the same {MIN_POSITIONS} or more, without gaps, in each")
    x_NSP = x_TN[np.ix_(rows, top_CK.ravel())].T.reshape(-1, num_sequences, len(grid_P))
    x_NSP = x_NSP - x_NSP.mean(axis=1, keepdims=True)
    block_S = np.repeat(np.arange(len(rows_B)), [len(block) // len(grid_P) for block in rows_B])
    member_SB = np.equal.outer(block_S, np.arange(len(rows_B))).astype(x_NSP.dtype)
    level_KGCB = _lagged(x_NSP, member_SB, num_clusters=len(top_CK))
    curve_RKG = [[_autocorrelation(level, keep) for level in level_KGCB] for keep in keep_R]
    first = min(curve_G[1] for curve_KG in curve_RKG for curve_G in curve_KG)
    if not first >= MIN_AUTOCORRELATION:
        return Refused(f"autocorrelation at lag 1: got {first:.3f}, needs {MIN_AUTOCORRELATION}")
    time_RK = np.array([[_correlation_time(curve) for curve in curve_KG] for curve_KG in curve_RKG])
    if np.isnan(time_RK).any():
        return Refused(f"autocorrelation: above 1/e up to lag {len(grid_P) // 4}")
    return np.array([_slope(np.arange(len(level_KGCB)) * math.log(2), np.log(t)) for t in time_RK])


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
