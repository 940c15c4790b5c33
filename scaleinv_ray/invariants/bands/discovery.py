"""Bands of a density of states: groups of Ritz values that stand apart.

Shape suffixes: R probe vectors, K nodes of a probe, N nodes of all probes, M buckets of a sketch,
D basis vectors of a band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

SEPARATION = 3.0
"""Gap over width from which a group of Ritz values is a band."""
SAME = 1e-7
"""Width, as a share of the largest node, below which nodes are one eigenvalue (rounding)."""
LEAST_WEIGHT = 1e-12
"""Weight below which a node is rounding: the copies of a degenerate eigenvalue."""
LEAST_NODES = 3.0
"""Nodes of a probe that a piece needs to be searched for gaps."""
RESOLVED = 2.0
"""Eigenvalues per node up to which a piece apart from the bulk is taken to be resolved."""
LEAST_DIRECTION = 0.3
"""Singular value, over the largest, from which a direction belongs to the subspace of a band."""


@dataclass(frozen=True)
class Band:
    """A group of Ritz values that stands apart.

    Attributes:
        centre: mean of its nodes by weight.
        centre_stderr: over probe vectors, None with one.
        low: smallest node.
        high: largest node.
        weight_R: share of the spectrum by probe vector; its mean times the dimension estimates
            the multiplicity.
        count: nodes in one probe vector, their median: the multiplicity where the eigenvalues
            are distinct and converged (an eigenvalue is seen once, however degenerate).
        subspace_DM: orthonormal basis of the sketches of its Ritz vectors, None without sketches.
    """

    centre: float
    centre_stderr: float | None
    low: float
    high: float
    weight_R: np.ndarray
    count: float
    subspace_DM: np.ndarray | None = None


class GapNull:
    """The widest gap between the Ritz values of random matrices, which have no bands."""

    def __init__(
        self, size: int, *, positive: bool, num_null: int, rng: np.random.Generator
    ) -> None:
        """Draws when it is asked.

        Args:
            size: of the matrices.
            positive: X X^T with a square X (Marchenko-Pastur), as a GGN has no eigenvalue below
                zero; else symmetric ones (semicircle).
            num_null: matrices; the level of the test is 1 / (num_null + 1).
            rng: source of randomness.
        """
        self._size, self._positive = size, positive
        self._num_null, self._rng = num_null, rng
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, num_nodes: int, share: float) -> float:
        """The widest gap in units of the angle (`angle_gaps`) among all draws.

        Lanczos on a matrix of the Gaussian orthogonal (the Laguerre) ensemble gives the leading
        block of its tridiagonal model (Dumitriu & Edelman, J. Math. Phys. 43:5830, 2002).

        Args:
            num_nodes: K of a piece of the spectrum.
            share: of the eigenvalues in the piece; its size is at least K.

        Returns:
            The gap.
        """
        # sizes a quarter apart have the same null: few are drawn for many checkpoints
        size = 1.25 ** round(math.log(max(share * self._size, 1.0), 1.25))
        key = num_nodes, max(num_nodes, round(size))
        if key not in self._known:
            self._known[key] = max(self._draw(*key) for _ in range(self._num_null))
        return self._known[key]

    def _draw(self, num_nodes: int, size: int) -> float:
        below_K = size - np.arange(1, num_nodes)
        if self._positive:
            on_K = self._rng.chisquare(size - np.arange(num_nodes))
            under_K = self._rng.chisquare(below_K)
            diagonal_K = on_K + np.concatenate([[0.0], under_K])
            off_K = np.sqrt(on_K[:-1] * under_K)
        else:
            diagonal_K = self._rng.normal(scale=math.sqrt(2.0), size=num_nodes)
            off_K = np.sqrt(self._rng.chisquare(below_K))
        return float(angle_gaps(eigvalsh_tridiagonal(diagonal_K, off_K), num_nodes).max())


def angle_gaps(nodes_N: np.ndarray, num_nodes: float) -> np.ndarray:
    """Gaps between neighbours on the arc over the interval they lie in, in units of pi / K.

    K Ritz values of a connected bulk lie evenly on the arc, x = cos(t), wherever its eigenvalues
    are (arcsine law: Kuijlaars, SIAM Rev. 48:3, 2006), about one unit apart; a gap of the spectrum
    is wider.

    Args:
        nodes_N: ascending, not all equal.
        num_nodes: K, nodes of one probe vector.

    Returns:
        One gap less than nodes.

    >>> angle_gaps(np.array([-1.0, 0.0, 1.0]), 2).round(12).tolist()
    [1.0, 1.0]
    """
    low, high = nodes_N[0], nodes_N[-1]
    share_N = np.clip((nodes_N - low) / (high - low), 0.0, 1.0)
    # asin(sqrt) keeps the digits at both ends
    angle_N = 2.0 * np.where(
        share_N < 0.5,
        np.arcsin(np.sqrt(share_N)),
        math.pi / 2 - np.arcsin(np.sqrt(np.clip((high - nodes_N) / (high - low), 0.0, 1.0))),
    )
    gap_N: np.ndarray = np.diff(angle_N) * num_nodes / math.pi
    return gap_N


@dataclass(frozen=True)
class _Pool:
    """The nodes of all probe vectors that carry weight, ascending."""

    nodes_N: np.ndarray
    weight_N: np.ndarray
    probe_N: np.ndarray
    num_probes: int
    sketch_NM: np.ndarray | None

    @classmethod
    def of(
        cls, nodes_RK: np.ndarray, weights_RK: np.ndarray, sketch_RKM: np.ndarray | None
    ) -> _Pool:
        num_probes, num_nodes = nodes_RK.shape
        order = np.argsort(nodes_RK, axis=None, kind="stable")
        order = order[weights_RK.ravel()[order] > LEAST_WEIGHT]
        flat = None if sketch_RKM is None else sketch_RKM.reshape(num_probes * num_nodes, -1)
        return cls(
            nodes_RK.ravel()[order],
            weights_RK.ravel()[order] / num_probes,
            order // num_nodes,
            num_probes,
            None if flat is None else flat[order],
        )


def find_bands(
    nodes_RK: np.ndarray,
    weights_RK: np.ndarray,
    *,
    dim: int,
    null: Callable[[int, float], float],
    sketch_RKM: np.ndarray | None = None,
) -> list[Band]:
    """Maximal groups of Ritz values apart from the others by more than three times their width.

    The nodes of all probe vectors are pooled: an isolated eigenvalue is seen once by each of them.
    From the whole spectrum downwards a piece is cut at its widest gap on the arc (`angle_gaps`),
    if that is wider than the null's. A piece cut off is a band where the gaps at its ends are more
    than three times its width, more than half of the probe vectors see it, and the median of the
    density of states is not inside (then it is the bulk); other pieces are cut further: where a
    gap was wider than the null's already, on their own arc, and everywhere if they are apart from
    the bulk and have a node for every eigenvalue (weight times dim). A group of one probe vector's
    nodes is scatter of what has not converged, and a piece without a gap is a continuum, whatever
    the number of nodes in it. Single eigenvalues at the end of a thin tail are bands.

    Args:
        nodes_RK: Ritz values, without ghosts (full reorthogonalisation).
        weights_RK: sum to one in every row.
        dim: eigenvalues of the operator.
        null: (K, share of the eigenvalues) -> widest gap that a bulk shows (`GapNull`).
        sketch_RKM: sketches of the unit Ritz vectors.

    Returns:
        The bands, from the largest centre downwards.

    >>> nodes, weights = np.array([[0.0, 1, 2, 3, 4, 5, 50]]), np.full((1, 7), 1 / 7)
    >>> [band.centre for band in find_bands(nodes, weights, dim=7, null=lambda k, share: 3.0)]
    [50.0]
    """
    pool = _Pool.of(nodes_RK, weights_RK, sketch_RKM)
    return sorted(
        (_band(pool, group) for group in _groups(pool, dim, null)), key=lambda b: -b.centre
    )


def _groups(pool: _Pool, dim: int, null: Callable[[int, float], float]) -> Iterator[slice]:
    x_N = pool.nodes_N
    middle = int(np.searchsorted(np.cumsum(pool.weight_N), 0.5 * pool.weight_N.sum()))
    least = SAME * float(np.abs(x_N).max())
    # a piece, and how far its gaps exceeded the null's in the piece it was cut from
    pieces = [(slice(0, len(x_N)), np.zeros(0))]
    while pieces:
        piece, before_N = pieces.pop()
        bulk = piece.start <= middle < piece.stop
        excess_N = before_N
        if bulk or before_N.max(initial=0.0) <= 1:
            excess_N = _excess(pool, piece, null, resolved=None if bulk else dim)
        if excess_N.max(initial=0.0) <= 1:
            continue
        at = int(excess_N.argmax())
        cut = piece.start + at + 1
        for part, rest_N in (
            (slice(piece.start, cut), excess_N[:at]),
            (slice(cut, piece.stop), excess_N[at + 1 :]),
        ):
            outside = [x_N[part.start] - x_N[part.start - 1]] if part.start else []
            outside += [x_N[part.stop] - x_N[part.stop - 1]] if part.stop < len(x_N) else []
            apart = min(outside) > SEPARATION * max(x_N[part.stop - 1] - x_N[part.start], least)
            seen = 2 * len(set(pool.probe_N[part].tolist())) > pool.num_probes
            if apart and seen and not part.start <= middle < part.stop:
                yield part
            else:
                pieces.append((part, rest_N))


def _excess(
    pool: _Pool, piece: slice, null: Callable[[int, float], float], *, resolved: int | None
) -> np.ndarray:
    """Gaps of a piece on its own arc over the null's widest; none where it has too few nodes."""
    x_N = pool.nodes_N[piece]
    num_nodes = len(x_N) / pool.num_probes
    if np.ptp(x_N) <= SAME * np.abs(pool.nodes_N).max():
        return np.zeros(0)
    gap_N, share = angle_gaps(x_N, num_nodes), float(pool.weight_N[piece].sum())
    # `resolved` counts all eigenvalues: a piece with a node for each of its own is no continuum
    if resolved is not None and share * resolved < RESOLVED * num_nodes:
        return 1.0 + gap_N
    if num_nodes < LEAST_NODES:
        return np.zeros(0)
    return gap_N / null(round(num_nodes), share)


def _band(pool: _Pool, group: slice) -> Band:
    x_N, weight_N, probe_N = pool.nodes_N[group], pool.weight_N[group], pool.probe_N[group]
    weight_R = np.bincount(probe_N, weight_N, pool.num_probes) * pool.num_probes
    first_R = np.bincount(probe_N, weight_N * x_N, pool.num_probes) * pool.num_probes
    seen_R = weight_R > 0
    centre_R = first_R[seen_R] / weight_R[seen_R]
    count_R = np.bincount(probe_N, minlength=pool.num_probes)
    sketch_NM = None if pool.sketch_NM is None else pool.sketch_NM[group]
    return Band(
        centre=float(first_R.sum() / weight_R.sum()),
        centre_stderr=_stderr(centre_R),
        low=float(x_N[0]),
        high=float(x_N[-1]),
        weight_R=weight_R,
        count=float(np.median(count_R)),
        subspace_DM=None if sketch_NM is None else orthonormal(sketch_NM).astype(np.float32),
    )


def _stderr(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def orthonormal(sketch_NM: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the span of vectors, small directions left out.

    Copies of one eigenvector from many probe vectors make one direction; what of them has not
    converged is small beside it.

    Args:
        sketch_NM: the vectors.

    Returns:
        The right singular vectors whose singular value is at least .3 of the largest.
    """
    _, s_D, basis_DM = np.linalg.svd(sketch_NM.astype(np.float64), full_matrices=False)
    kept: np.ndarray = basis_DM[s_D >= LEAST_DIRECTION * s_D[0]]
    return kept
