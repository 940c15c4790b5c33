"""Real-space coarse-graining: the most correlated units are paired and summed, level by level.

Everything works on a stack of R matrices at once (replicates of a jackknife, draws of a
surrogate): a round of the pairing costs a few array operations however many matrices there are.

Shape suffixes: R matrices, N units, C clusters, K units in a cluster, P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Hierarchy(NamedTuple):
    """Clusters of 1, 2, 4, .. units.

    Attributes:
        clusters: unit indices [R, C, K] of every level, K = 1, 2, 4, .., largest; the halves of a
            cluster are clusters of the level before.
        variance_RK: mean variance of the sums over clusters of K units, by level.
    """

    clusters: tuple[np.ndarray, ...]
    variance_RK: np.ndarray


def greedy_pairs(similarity_RNN: np.ndarray) -> np.ndarray:
    """Pairs units greedily: the most similar pair first, each unit used once.

    Equal to walking through all pairs in order of falling similarity, but by rounds: two units
    that are each other's best partner are always a pair of the greedy matching (Preis 1999), so
    each round takes all of those at once, in all matrices; only units whose best partner is gone
    look for another. Ties go to the lower index; of an odd number of units one is left over.

    Args:
        similarity_RNN: symmetric similarities, finite; the diagonals are ignored.

    Returns:
        Indices [R, N // 2, 2], lower one first, in the order found.

    Raises:
        ValueError: for a matrix that is not symmetric (to the last bit, where it matters).

    >>> s = np.array([[1, .9, .8, 0], [.9, 1, .95, 0], [.8, .95, 1, 0], [0, 0, 0, 1]])
    >>> greedy_pairs(s[None])[0].tolist()
    [[1, 2], [0, 3]]
    """
    num_matrices, num_units = similarity_RNN.shape[:2]
    value = np.array(similarity_RNN, dtype=np.float64)
    value[:, np.arange(num_units), np.arange(num_units)] = -np.inf
    value = value.reshape(-1, num_units)  # units of all matrices in one row of numbers
    matrix = np.arange(num_matrices).repeat(num_units)
    best = value.argmax(axis=1) + matrix * num_units if num_units > 1 else matrix
    gone_RN = np.zeros((num_matrices, num_units))  # -inf where a unit is paired
    gone = gone_RN.reshape(-1)
    unit, found, missing = np.arange(len(value)), [], num_matrices * (num_units // 2)
    while missing:
        mutual = best[best[unit]] == unit
        gone[unit[mutual]] = -np.inf
        first = unit[mutual & (unit < best[unit])]
        found.append(np.stack([first, best[first]], axis=1))
        missing -= len(first)
        if not len(first):
            raise ValueError("similarity_RNN: got a matrix that is not symmetric")
        unit = unit[~mutual]
        stale = unit[gone[best[unit]] < 0]
        left = value[stale]
        left += gone_RN[matrix[stale]]
        best[stale] = left.argmax(axis=1) + matrix[stale] * num_units
    pairs = np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)
    order = np.argsort(matrix[pairs[:, 0]], kind="stable")
    return pairs[order].reshape(num_matrices, -1, 2) % num_units


def correlation(covariance_RNN: np.ndarray) -> np.ndarray:
    """Correlation of a stack of covariances with positive diagonals; symmetric to the last bit."""
    scale_RN = 1 / np.sqrt(np.diagonal(covariance_RNN, axis1=1, axis2=2))
    return covariance_RNN * (scale_RN[:, :, None] * scale_RN[:, None, :])


def hierarchy(covariance_RNN: np.ndarray, *, largest: int) -> Hierarchy:
    """Clusters found by pairing the most correlated sums, level by level.

    X^(2K) = X^(K)_i + X^(K)_j for the pairs (i, j) of `greedy_pairs` on the correlation of the
    sums (Meshulam, Gauthier, Brody, Tank & Bialek, PRL 123:178103, 2019; sums not rescaled).

    Args:
        covariance_RNN: symmetric covariances of the units, with positive diagonals.
        largest: largest cluster size, a power of two.

    Returns:
        The clusters and the mean variances of their sums.

    >>> hierarchy(0.5 + 0.5 * np.eye(8)[None], largest=4).variance_RK.tolist()  # K/2 + K^2/2
    [[1.0, 3.0, 10.0]]
    """
    num_matrices, num_units = covariance_RNN.shape[:2]
    cluster_RCK = np.broadcast_to(np.arange(num_units)[None, :, None], (num_matrices, num_units, 1))
    coarse, levels, variances = covariance_RNN, [cluster_RCK], [_mean_variance(covariance_RNN)]
    matrix = np.arange(num_matrices)[:, None]
    while 2 * cluster_RCK.shape[2] <= largest:
        pairs_RP2 = greedy_pairs(correlation(coarse))
        coarse = _sums(coarse, pairs_RP2)
        both = cluster_RCK[matrix[..., None], pairs_RP2]
        cluster_RCK = both.reshape(num_matrices, len(pairs_RP2[0]), -1)
        levels.append(cluster_RCK)
        variances.append(_mean_variance(coarse))
    return Hierarchy(tuple(levels), np.stack(variances, axis=1))


def within(matrix_RNN: np.ndarray, cluster_RCK: np.ndarray) -> np.ndarray:
    """The blocks [R, C, K, K] of a stack of matrices that belong to the clusters."""
    matrix = np.arange(len(matrix_RNN))[:, None, None, None]
    return matrix_RNN[matrix, cluster_RCK[..., :, None], cluster_RCK[..., None, :]]


def _mean_variance(covariance_RNN: np.ndarray) -> np.ndarray:
    return np.diagonal(covariance_RNN, axis1=1, axis2=2).mean(axis=1)


def _sums(covariance_RNN: np.ndarray, pairs_RP2: np.ndarray) -> np.ndarray:
    """Covariance of the sums of pairs; added in an order that keeps it exactly symmetric."""
    matrix = np.arange(len(covariance_RNN))[:, None]
    order = pairs_RP2.reshape(len(pairs_RP2), -1)
    rows = covariance_RNN[matrix, order]
    rows = rows[:, 0::2] + rows[:, 1::2]
    columns = np.ascontiguousarray(rows.transpose(0, 2, 1))[matrix, order]
    sums = columns[:, 0::2] + columns[:, 1::2]
    return (sums + sums.transpose(0, 2, 1)) / 2
