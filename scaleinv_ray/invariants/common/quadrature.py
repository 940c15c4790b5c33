"""The Gauss quadrature of a density of states: what may be read, how much is curved, outliers.

Shape suffixes: R probe vectors, K nodes of one of them.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.stats import chi2

from scaleinv_ray.contract import Refused
from scaleinv_ray.records import Lanczos

OUTLIER_WEIGHT = 0.05
"""Largest share of the spectrum that may count as outliers."""
UNLIKELY = 1e-3
"""Chance below which the weight of nodes is not that of the eigenvalues that they may stand for."""
MULTIPLICITY = 3
"""Of outlying nodes on average, at most: more are a continuum that Lanczos has not resolved."""
SAME = 1e-6
"""Nodes nearer than this share of the largest are one eigenvalue (ghosts)."""


def checked_quadrature(
    lanczos: Lanczos, operator: str, *, flat: float, num_null: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a record, float64, if they are a quadrature of the operator.

    Args:
        lanczos: the record.
        operator: hessian or ggn.
        flat: relative size below which an eigenvalue counts as flat, in (0, 1).
        num_null: null matrices, one or more.

    Returns:
        nodes_RK and weights_RK.

    Raises:
        Refused: for another operator, values that are not finite, weights that are no
            probabilities, and an operator that vanishes.
        ValueError: with flat outside (0, 1), or without a null.
    """
    if not 0 < flat < 1:
        raise ValueError(f"flat: got {flat}, allowed 0 < flat < 1")
    if num_null < 1:
        raise ValueError(f"num_null: got {num_null}, allowed 1 or more")
    if lanczos.operator != operator:
        raise Refused(f"operator: got {lanczos.operator!r}, allowed {operator!r}")
    if lanczos.dim < 1:
        raise Refused(f"dim: got {lanczos.dim}, allowed integers >= 1")
    nodes_RK = np.asarray(lanczos.nodes_RK, dtype=np.float64)
    weights_RK = np.asarray(lanczos.weights_RK, dtype=np.float64)
    if not (np.isfinite(nodes_RK).all() and np.isfinite(weights_RK).all()):
        raise Refused("nodes_RK, weights_RK: got values that are not finite")
    if (weights_RK < 0).any() or not np.allclose(weights_RK.sum(axis=1), 1.0, atol=1e-6):
        raise Refused("weights_RK: got rows that are no probabilities")
    if not nodes_RK[weights_RK > 0].any():
        raise Refused("nodes_RK: got zeros only, an operator that vanishes has no scale")
    return nodes_RK, weights_RK


def curved_size(nodes_RK: np.ndarray, weights_RK: np.ndarray, *, dim: int, flat: float) -> int:
    """Number of eigenvalues that are not flat, the size of a null: share of the weight times dim.

    Args:
        nodes_RK: of the quadrature.
        weights_RK: sum to one in every row.
        dim: eigenvalues.
        flat: size relative to the largest modulus below which an eigenvalue is flat.

    Returns:
        The number, at least 2.

    >>> curved_size(np.array([[0.0, 1.0]]), np.array([[0.75, 0.25]]), dim=40, flat=1e-3)
    10
    """
    floor = flat * np.abs(nodes_RK[weights_RK > 0]).max()
    curved = float((weights_RK * (np.abs(nodes_RK) >= floor)).sum(axis=1).mean())
    return max(2, round(curved * dim))


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


def outlier_counts(
    nodes_RK: np.ndarray, weights_RK: np.ndarray, *, dim: int, flat: float, num_null: int,
    rng: np.random.Generator,
) -> list[int] | Refused:  # fmt: skip
    """What every probe vector counts as outliers (`count_outliers`) beside a random matrix's bulk.

    Nodes count distinct eigenvalues only where Lanczos has told them apart. dim times the weight of
    n eigenvalues is chi^2_n (to 1 / dim), which tells how many a node stands for.

    Args:
        nodes_RK: of the quadrature.
        weights_RK: sum to one in every row.
        dim: eigenvalues.
        flat: as of `curved_size`, the size of the null.
        num_null: null matrices a vector; the chance that any vector of a bulk without outliers
            counts some is 1 / (num_null + 1) at most.
        rng: draws the null.

    Returns:
        R counts, or a refusal where more weight lies there than three times as many eigenvalues
        have but once in a thousand times.
    """
    size = curved_size(nodes_RK, weights_RK, dim=dim, flat=flat)
    probes, steps = nodes_RK.shape
    limit = null_gap(size, min(steps, size), num_null=num_null * probes, rng=rng)
    counts = [
        count_outliers(nodes_K, weights_K, least_gap=limit)
        for nodes_K, weights_K in zip(nodes_RK, weights_RK, strict=True)
    ]
    _, weight_RK, number_RK = numbered(nodes_RK, weights_RK)
    found = dim * float(weight_RK[number_RK < np.array(counts)[:, None]].sum())
    if sum(counts) and found > chi2.isf(UNLIKELY, MULTIPLICITY * sum(counts)):
        return Refused(
            f"outliers: {sum(counts)} nodes of {probes} vectors stand for {found:.0f} eigenvalues, "
            "needs more Lanczos steps"
        )
    return counts


def numbered(
    nodes_RK: np.ndarray, weights_RK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes from the largest down, their weights, and the number of the eigenvalue of each.

    Args:
        nodes_RK: of the quadrature.
        weights_RK: nodes without weight come last.

    Returns:
        Nodes, weights and numbers from 0; ghosts of an eigenvalue have its number.

    >>> numbered(np.array([[1.0, 5.0, 5.0]]), np.array([[0.5, 0.25, 0.25]]))[2].tolist()
    [[0, 0, 1]]
    """
    order_RK = np.argsort(np.where(weights_RK > 0, -nodes_RK, np.inf), axis=1)
    node_RK = np.take_along_axis(nodes_RK, order_RK, axis=1)
    apart_RK = -np.diff(node_RK, axis=1) > SAME * np.abs(nodes_RK).max(axis=1, keepdims=True)
    number_RK = np.pad(np.cumsum(apart_RK, axis=1), ((0, 0), (1, 0)))
    return node_RK, np.take_along_axis(weights_RK, order_RK, axis=1), number_RK


def null_gap(size: int, num_steps: int, *, num_null: int, rng: np.random.Generator) -> float:
    """Widest relative gap in the quadrature of random symmetric matrices without outliers.

    Lanczos on a matrix of the Gaussian orthogonal ensemble from a random vector gives the leading
    block of its tridiagonal model exactly: diagonal N(0, 2), off-diagonal chi_{size - k}
    (Dumitriu & Edelman, J. Math. Phys. 43:5830, 2002), so that no matrix is built.

    Args:
        size: of the matrix.
        num_steps: K <= size.
        num_null: matrices; the level of a test of one vector is 1 / (num_null + 1).
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
