"""Distances between persistence diagrams, exact: bottleneck and 1-Wasserstein.

Bars are matched one to one, or to the diagonal, with the ground distance L-infinity between
(birth, death) points. Shape suffixes: B, M, N bars; the last axis of 2 is (birth, death).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from scaleinv_ray.contract import Diagram


def bars_of(diagram: Diagram, dimension: int) -> np.ndarray:
    """Bars of one homology dimension.

    Args:
        diagram: finite bars.
        dimension: homology dimension.

    Returns:
        bars_B2, (birth, death) by row.

    >>> bars_of(Diagram(np.array([0, 1]), np.array([0.0, 1.0]), np.array([1.0, 1.5])), 1).tolist()
    [[1.0, 1.5]]
    """
    chosen_B = diagram.dimension == dimension
    return np.stack([diagram.birth[chosen_B], diagram.death[chosen_B]], axis=1)


def bottleneck_distance(first_M2: np.ndarray, second_N2: np.ndarray) -> float:
    """Bottleneck distance: the least possible largest distance within a matching.

    Between the Rips diagrams of two matrices of distances of the same points it is at most the
    largest difference of their entries (Cohen-Steiner, Edelsbrunner & Harer 2007). gudhi's
    algorithm may be asymmetric in the last digits, hence the larger of both orders.

    Args:
        first_M2: finite bars.
        second_N2: finite bars.

    Returns:
        max of both orders; 0 for two diagrams without bars.

    >>> round(bottleneck_distance(np.array([[0.0, 4.0], [0.0, 1.0]]), np.array([[0.0, 3.0]])), 12)
    1.0
    """
    import gudhi  # only where it is needed: all other invariants can be had without

    return max(
        float(gudhi.bottleneck_distance(first_M2, second_N2)),
        float(gudhi.bottleneck_distance(second_N2, first_M2)),
    )


def wasserstein_distance(first_M2: np.ndarray, second_N2: np.ndarray) -> float:
    """1-Wasserstein distance: the least possible sum of distances within a matching.

    A bar of length l is l / 2 away from the diagonal. With everything on the diagonal the sum is
    sum l / 2; matching bars i and j at distance d_ij saves (l_i + l_j) / 2 - d_ij where that is
    positive, so that the best matching is a linear assignment of M x N entries. That is exact and
    symmetric, which an auction (hera) is not. Order 1 is the one by which total
    persistence is stable: | sum l - sum l' | <= 2 W_1.

    Args:
        first_M2: finite bars.
        second_N2: finite bars.

    Returns:
        W_1 with ground distance L-infinity; 0 for two diagrams without bars.

    >>> wasserstein_distance(np.array([[0.0, 4.0], [0.0, 1.0]]), np.array([[0.0, 3.0]]))
    1.5
    """
    half_M = (first_M2[:, 1] - first_M2[:, 0]) / 2
    half_N = (second_N2[:, 1] - second_N2[:, 0]) / 2
    apart_MN = np.abs(first_M2[:, None, :] - second_N2).max(axis=2)
    saved_MN = np.maximum(half_M[:, None] + half_N - apart_MN, 0)
    rows, columns = linear_sum_assignment(saved_MN, maximize=True)
    matched = saved_MN[rows, columns] > 0
    # Summed anew, because the difference of the sums loses digits: equal diagrams give exactly 0.
    alone_M, alone_N = np.ones(len(half_M), dtype=bool), np.ones(len(half_N), dtype=bool)
    alone_M[rows[matched]] = alone_N[columns[matched]] = False
    between = float(apart_MN[rows, columns][matched].sum())
    return between + float(half_M[alone_M].sum()) + float(half_N[alone_N].sum())
