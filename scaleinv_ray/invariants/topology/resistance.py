"""Graph distances that follow the bulk of a cloud: neighbour graphs and effective resistances.

Shape suffixes: P points, D width, K neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform

from scaleinv_ray.contract import Refused

_KERNEL = 1e-10
"""Eigenvalues of a normalised Laplacian below this are zero: each counts one component."""


def neighbour_graph(distance_PP: np.ndarray, *, num_neighbours: int) -> np.ndarray:
    """Symmetric unweighted graph of nearest neighbours: an edge where either point lists the other.

    Args:
        distance_PP: symmetric distances.
        num_neighbours: K, 1..P-1; among equally far points the first ones are listed.

    Returns:
        adjacency_PP of zeros and ones, zero on the diagonal.

    Raises:
        ValueError: where there are not so many neighbours.

    >>> x_P = np.array([0.0, 1.0, 3.0])
    >>> neighbour_graph(np.abs(x_P[:, None] - x_P), num_neighbours=1).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    if not 1 <= num_neighbours < len(distance_PP):
        allowed = f"1..{len(distance_PP) - 1} (points - 1)"
        raise ValueError(f"num_neighbours: got {num_neighbours}, allowed {allowed}")
    away_PP = distance_PP + np.diag(np.full(len(distance_PP), np.inf))
    listed_PK = np.argsort(away_PP, axis=1, kind="stable")[:, :num_neighbours]
    adjacency_PP = np.zeros(distance_PP.shape)
    np.put_along_axis(adjacency_PP, listed_PK, 1.0, axis=1)
    return np.maximum(adjacency_PP, adjacency_PP.T)


def resistance_distances(adjacency_PP: np.ndarray, *, corrected: bool) -> np.ndarray:
    """Square roots of the effective resistances of a graph, or of the corrected ones.

    With degrees d, the normalised Laplacian 1 - d^-1/2 A d^-1/2 = sum_k lambda_k u_k u_k^T and
    R_ij = sum_(k > 1) (u_ki / sqrt d_i - u_kj / sqrt d_j)^2 / lambda_k. In large graphs R_ij tends
    to 1/d_i + 1/d_j and forgets the geometry (von Luxburg, Radl & Hein 2010); the correction
    R_ij - 1/d_i - 1/d_j + 2 A_ij / (d_i d_j) puts (1 - lambda_k)^2 / lambda_k in place of
    1 / lambda_k: a squared Euclidean distance, whose root finds loops through noise of high
    dimension (Damrich, Berens & Kobak 2024, eq. 5).

    Args:
        adjacency_PP: symmetric weights >= 0, zero on the diagonal.
        corrected: whether 1/d_i + 1/d_j - 2 A_ij / (d_i d_j) is taken off.

    Returns:
        distance_PP.

    Raises:
        ValueError: for weights that are negative, not finite, asymmetric, or on the diagonal.
        Refused: where the graph is not connected.

    >>> path = np.diag([1.0, 1.0], 1) + np.diag([1.0, 1.0], -1)
    >>> (resistance_distances(path, corrected=False)[0] ** 2).round(12).tolist()
    [0.0, 1.0, 2.0]
    """
    if not np.isfinite(adjacency_PP).all() or adjacency_PP.min() < 0:
        raise ValueError("adjacency_PP: got weights negative or not finite, allowed >= 0")
    if not np.array_equal(adjacency_PP, adjacency_PP.T) or adjacency_PP.diagonal().any():
        raise ValueError("adjacency_PP: got no symmetric matrix with zeros on the diagonal")
    degree_P = adjacency_PP.sum(axis=1)
    if not degree_P.all():
        raise Refused("neighbour graph: has points without edges")
    root_P = np.sqrt(degree_P)
    eigenvalue_P, vector_PP = np.linalg.eigh(-adjacency_PP / np.outer(root_P, root_P))
    eigenvalue_P += 1
    if (components := int((eigenvalue_P < _KERNEL).sum())) > 1:
        raise Refused(f"neighbour graph: falls into {components} components")
    lambda_K = eigenvalue_P[1:]
    weight_K = ((1 - lambda_K) if corrected else 1) / np.sqrt(lambda_K)
    return squareform(pdist(vector_PP[:, 1:] * weight_K / root_P[:, None]))
