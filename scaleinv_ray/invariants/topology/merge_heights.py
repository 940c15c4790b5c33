"""Single linkage of a cloud: the minimum spanning tree of its points, without a distance matrix.

Shape suffixes: P points, D width, E = P - 1 edges, S sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaleinv_ray.invariants.topology.nearest import GrowingSet


class SpanningTree(NamedTuple):
    """A minimum spanning tree, in the order in which the points were attached.

    Attributes:
        edge_E2: the point already in the tree, and the point attached.
        length_E: their Euclidean distances.
    """

    edge_E2: np.ndarray
    length_E: np.ndarray


def minimum_spanning_tree(x_PD: np.ndarray) -> SpanningTree:
    """Minimum spanning tree of the complete graph of Euclidean distances (Prim 1957).

    The tree is that of the float64 distances although the products are float32 (`GrowingSet`).
    Time O(P^2 D), memory O(P D).

    Args:
        x_PD: points, finite, at least one; centred ones are quicker.

    Returns:
        The tree, grown from the first point.

    Raises:
        ValueError: unless x_PD is a matrix of finite numbers with a row.

    >>> tree = minimum_spanning_tree(np.array([[0.0], [5.0], [2.0]]))
    >>> tree.edge_E2.tolist(), tree.length_E.tolist()
    ([[0, 2], [2, 1]], [2.0, 3.0])
    """
    tree = GrowingSet(x_PD)
    tree.admit(0)
    edge_E2 = np.empty((len(tree.index_R), 2), dtype=np.intp)
    square_E = np.empty(len(tree.index_R))
    for step in range(len(square_E)):
        place = int(tree.square_R.argmin())
        edge_E2[step] = tree.parent_R[place], tree.index_R[place]
        square_E[step] = tree.square_R[place]
        tree.admit(place)
    return SpanningTree(edge_E2, tree.lengths(square_E))


def merge_heights(x_PD: np.ndarray) -> np.ndarray:
    """Heights at which the components of a cloud merge: sorted edges of its spanning tree.

    They are the deaths of the bars of dimension 0 of the Rips filtration.

    Args:
        x_PD: points, finite, at least one.

    Returns:
        height_E, ascending, P - 1 of them.

    Raises:
        ValueError: as `minimum_spanning_tree`.

    >>> merge_heights(np.array([[5.0], [0.0], [2.0]])).tolist()
    [2.0, 3.0]
    """
    return np.sort(minimum_spanning_tree(x_PD).length_E)


def length_slope(x_PD: np.ndarray, *, power: float, num_sizes: int) -> float:
    """Slope of ln E_a(m) over ln m, with E_a the sum of the merge heights to the power a.

    For m independent points of a d-dimensional density E_a grows as m^(1 - a / d) for 0 < a < d
    (Steele 1988), which makes a / (1 - slope) the persistent-homology dimension (Adams et al.
    2020, definition 3.1).

    Args:
        x_PD: points in random order.
        power: a.
        num_sizes: sizes m = P, P // 2, P // 4, ..; E_a(m) is the mean over the disjoint parts of
            m points.

    Returns:
        The slope of least squares.

    Raises:
        ValueError: with fewer than two sizes, or a smallest size below two points.

    >>> round(length_slope(np.arange(64.0)[:, None], power=1, num_sizes=2), 3)  # line: ln 63/31
    1.023
    """
    size_S = np.array([len(x_PD) >> halvings for halvings in range(num_sizes)])
    if num_sizes < 2 or size_S[-1] < 2:
        raise ValueError(f"num_sizes: got {num_sizes}, allowed >= 2 with len(x_PD) >> it >= 1")
    sums_S = [
        np.mean([(merge_heights(x_PD[i * m : (i + 1) * m]) ** power).sum() for i in range(1 << s)])
        for s, m in enumerate(size_S)
    ]
    return float(np.polyfit(np.log(size_S), np.log(sums_S), 1)[0])
