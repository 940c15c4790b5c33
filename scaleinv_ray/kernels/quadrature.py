"""Outliers in the Gauss quadrature of a density of states. Suffix K: nodes of one probe vector."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh_tridiagonal

OUTLIER_WEIGHT = 0.05
"""Largest share of the spectrum that may count as outliers."""
SAME = 1e-6
"""Nodes nearer than this share of the largest are one eigenvalue (ghosts)."""


def relative_gaps(nodes_K: np.ndarray, weights_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps below the largest nodes, relative to the distance from the middle of the bulk.

    With nodes descending, gap_j = (node_j - node_{j+1}) / (node_j - m), m the median of the
    density of states: 0 where nodes are dense, 1 where nothing lies between node_j and the middle.

    Args:
        nodes_K: of one probe vector.
        weights_K: sum to one.

    Returns:
        Gaps below those nodes that together carry at most 5 % of the weight, and how many
        distinct eigenvalues lie above each.

    >>> relative_gaps(np.array([0.0, 1.0, 9.0, 10.0]), np.array([0.8, 0.16, 0.02, 0.02]))[0]
    array([0.1       , 0.88888889])
    """
    order = np.argsort(nodes_K)[::-1]
    down_K, weight_K = nodes_K[order], weights_K[order]
    down_K, weight_K = down_K[weight_K > 0], weight_K[weight_K > 0]
    above_K = np.cumsum(weight_K)
    middle = down_K[np.searchsorted(above_K, 0.5)]
    step_K = -np.diff(down_K)
    apart_K = step_K > SAME * np.abs(nodes_K).max()
    candidate_K = (above_K[:-1] <= OUTLIER_WEIGHT) & (down_K[:-1] > middle) & apart_K
    height_K = (down_K[:-1] - middle)[candidate_K]
    return step_K[candidate_K] / height_K, np.cumsum(apart_K)[candidate_K]


def count_outliers(nodes_K: np.ndarray, weights_K: np.ndarray, *, least_gap: float) -> int:
    """Number of eigenvalues above the widest relative gap, if that is wider than a null allows.

    Args:
        nodes_K: of one probe vector.
        weights_K: sum to one.
        least_gap: widest gap that a bulk without outliers shows (`null_gap`).

    Returns:
        The count, 0 where no gap is wider.

    >>> spread = np.linspace(0, 1, 50)
    >>> nodes = np.concatenate([spread, [9.0, 10.0]])
    >>> count_outliers(nodes, np.full(52, 1 / 52), least_gap=0.5)
    2
    """
    gap_J, count_J = relative_gaps(nodes_K, weights_K)
    if not len(gap_J) or gap_J.max() <= least_gap:
        return 0
    return int(count_J[np.argmax(gap_J)])


def null_gap(size: int, num_steps: int, *, num_null: int, rng: np.random.Generator) -> float:
    """Widest relative gap in the quadrature of random symmetric matrices without outliers.

    Lanczos on a matrix of the Gaussian orthogonal ensemble from a random vector gives the leading
    block of its tridiagonal model exactly: diagonal N(0, 2), off-diagonal chi_{size - k}
    (Dumitriu & Edelman, J. Math. Phys. 43:5830, 2002), so that no matrix is built.

    Args:
        size: of the matrix.
        num_steps: K <= size.
        num_null: matrices; the level of the test is 1 / (num_null + 1).
        rng: source of randomness.

    Returns:
        The widest gap of all of them, 0 where no node is a candidate.
    """
    widest = 0.0
    for _ in range(num_null):
        diagonal_K = rng.normal(scale=np.sqrt(2.0), size=num_steps)
        off_K = np.sqrt(rng.chisquare(size - np.arange(1, num_steps)))
        nodes_K, vectors_KK = eigh_tridiagonal(diagonal_K, off_K)
        gap_J, _ = relative_gaps(nodes_K, vectors_KK[0] ** 2)
        widest = max(widest, float(gap_J.max(initial=0.0)))
    return widest
