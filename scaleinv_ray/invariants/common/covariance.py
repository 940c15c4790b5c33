"""Spectra of Gram matrices, and of covariances that come as moments of independent blocks.

Shape suffixes: O outputs, I inputs, M = min(O, I); B block of sequences, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused

SLAB = 8192
MIN_SIDE = 8
"""Of a tile: Hill's exponent of noise is 2.19 there, 2.05-2.13 above, 2.12 in the limit."""


class Blocks(NamedTuple):
    """Moments of independent blocks about a common point; `floor` bounds their rounding error."""

    count_B: np.ndarray
    mean_BD: np.ndarray
    second_BDD: np.ndarray
    floor: float


class SquaredTraces(NamedTuple):
    """Unbiased estimates of (tr Sigma)^2 and tr Sigma^2."""

    trace_squared: float
    square_trace: float


class _Half(NamedTuple):
    """Covariance of half of the blocks with its eigenvalues, descending, and eigenvectors."""

    covariance_DD: np.ndarray
    eigenvalue_D: np.ndarray
    vector_DD: np.ndarray


def gram_eigenvalues(w_OI: np.ndarray, *, precision: str = "float64") -> np.ndarray:
    """Squared singular values of a matrix, through its smaller Gram matrix.

    The Gram matrix is summed over slabs, so that a low-precision tensor is never copied whole.

    Args:
        w_OI: matrix of any real dtype.
        precision: 'float64' or 'float32', of the Gram matrix and its eigenvalues.

    Returns:
        lambda_M, ascending, float64, M = min(O, I); absolute rounding error ~ eps lambda_max, eps
        of the precision.

    Raises:
        ValueError: with another precision.
        Refused: not a matrix, or not finite.

    >>> gram_eigenvalues(np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    array([4., 9.])
    """
    if precision not in {"float64", "float32"}:
        raise ValueError(f"precision: got {precision!r}, allowed 'float64', 'float32'")
    if w_OI.ndim != 2 or w_OI.size == 0:
        raise Refused(f"w_OI: got shape {w_OI.shape}, a weight spectrum needs a matrix")
    tall = w_OI if w_OI.shape[0] >= w_OI.shape[1] else w_OI.T
    gram_MM = np.zeros((tall.shape[1], tall.shape[1]), dtype=precision)
    for start in range(0, tall.shape[0], SLAB):
        slab = np.asarray(tall[start : start + SLAB], dtype=precision)
        if not np.isfinite(slab).all():
            raise Refused("w_OI: has NaN or infinite entries")
        gram_MM += slab.T @ slab
    return np.maximum(np.linalg.eigvalsh(gram_MM), 0.0).astype(np.float64)


def without_zeros(w_OI: np.ndarray) -> tuple[np.ndarray, int]:
    """A matrix without the rows and columns that are zero throughout (pruned units, padding).

    They change the shape, and with it the law that noise of this shape would follow, but no
    eigenvalue other than zero.

    Args:
        w_OI: an array; what is no matrix, or zero throughout, comes back as it is.

    Returns:
        The matrix, and how many rows and columns were dropped.

    >>> without_zeros(np.array([[1.0, 0.0], [0.0, 0.0]]))
    (array([[1.]]), 2)
    """
    if w_OI.ndim != 2:
        return w_OI, 0
    filled_OI = w_OI != 0
    row_O, column_I = filled_OI.any(axis=1), filled_OI.any(axis=0)
    dropped = int((~row_O).sum() + (~column_I).sum())
    if not dropped or not row_O.any():
        return w_OI, 0
    return w_OI[row_O][:, column_I], dropped


def disjoint_tiles(
    w_OI: np.ndarray, *, aspect: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The largest disjoint sub-matrices of one aspect ratio, of permuted rows and columns.

    Args:
        w_OI: matrix of any real dtype.
        aspect: longer over shorter side, >= 1; the longer lies along the longer side of w.
        count: tiles wanted.
        rng: permutes rows, then columns.

    Returns:
        Float64 [count, side, round(aspect side)] for the largest side of which `count` fit.

    Raises:
        Refused: not a finite matrix, or the side would be below `MIN_SIDE`.

    >>> rng = np.random.default_rng(0)
    >>> disjoint_tiles(np.ones((64, 256)), aspect=2.0, count=8, rng=rng).shape
    (8, 32, 64)
    """
    if w_OI.ndim != 2 or not np.isfinite(w_OI).all():
        raise Refused(f"w_OI: got shape {w_OI.shape}, sub-matrices need a finite matrix")
    w_MN = w_OI if w_OI.shape[0] <= w_OI.shape[1] else w_OI.T
    num_small, num_large = w_MN.shape
    for side in range(num_small, MIN_SIDE - 1, -1):
        longer = round(aspect * side)
        num_rows, num_columns = num_small // side, num_large // longer
        if num_rows * num_columns >= count:
            break
    else:
        raise Refused(
            f"w_OI: got shape {w_OI.shape}, {count} disjoint sub-matrices of aspect {aspect:g} "
            f"need a side >= {MIN_SIDE}"
        )
    row_RM = rng.permutation(num_small)[: num_rows * side].reshape(num_rows, side)
    column_CN = rng.permutation(num_large)[: num_columns * longer].reshape(num_columns, longer)
    tiles = [w_MN[np.ix_(row_M, column_N)] for row_M in row_RM for column_N in column_CN]
    return np.array(tiles[:count], dtype=np.float64)


def without_ones(mean_BD: np.ndarray, second_BDD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the D - 1 coordinates orthogonal to the all-ones direction.

    Args:
        mean_BD: means of blocks.
        second_BDD: their second moments about zero.

    Returns:
        The same in an orthonormal basis of the vectors whose entries sum to zero.

    >>> mean, second = without_ones(np.full((1, 4), 3.0), np.full((1, 4, 4), 9.0))
    >>> bool(np.abs(mean).max() < 1e-12), bool(np.abs(second).max() < 1e-12), second.shape
    (True, True, (1, 3, 3))
    """
    # The Householder reflection that maps (1, .., 1) / sqrt(D) onto the first axis costs O(D^2) a
    # block; the first coordinate is then dropped.
    dim = mean_BD.shape[1]
    normal_D = np.full(dim, 1.0 / math.sqrt(dim))
    normal_D[0] -= 1.0
    normal_D *= math.sqrt(2.0) / np.linalg.norm(normal_D)  # reflection: 1 - n n^T
    mean_BD = mean_BD - (mean_BD @ normal_D)[:, None] * normal_D
    half_BDD = second_BDD - (second_BDD @ normal_D)[:, :, None] * normal_D
    full_BDD = half_BDD - normal_D[:, None] * (normal_D @ half_BDD)[:, None, :]
    return mean_BD[:, 1:], full_BDD[:, 1:, 1:]


def rounding_floor(second_BDD: np.ndarray) -> float:
    """D eps max_b tr E x x^T: a bound on the rounding error of eigenvalues of the covariance."""
    floor = second_BDD.shape[1] * np.finfo(np.float64).eps
    return floor * float(np.trace(second_BDD, axis1=1, axis2=2).max())


def about_the_mean(
    count_B: np.ndarray, mean_BD: np.ndarray, second_BDD: np.ndarray, *, floor: float
) -> Blocks:
    """Moments of blocks about their common mean, in place of those about zero.

    Args:
        count_B: tokens of every block.
        mean_BD: their means.
        second_BDD: their second moments about zero, each divided by its count.
        floor: rounding error of the data, carried along.

    Returns:
        Blocks with E x - c and E (x - c)(x - c)^T, c the mean of all tokens.
    """
    common_D = (count_B / count_B.sum()) @ mean_BD
    deviation_BD = mean_BD - common_D
    # second - m m^T + (m - c)(m - c)^T cancels once where second - m c^T - c m^T + c c^T does twice
    centred_BDD = second_BDD - mean_BD[:, :, None] * mean_BD[:, None, :]
    centred_BDD += deviation_BD[:, :, None] * deviation_BD[:, None, :]
    return Blocks(count_B, deviation_BD, centred_BDD, floor)


def squared_traces(blocks: Blocks) -> dict[tuple[int, ...], SquaredTraces]:
    """(tr Sigma)^2 and tr Sigma^2 without bias, of all blocks and with each block left out.

    With A_b, m_b the second moment and the mean of block b, and sums over distinct blocks,
    tr Sigma^2 = <tr A_a A_b> - 2 <m_b^T A_a m_c> + <(m_a . m_b)(m_c . m_d)> and
    (tr Sigma)^2 = <tr A_a tr A_b> - 2 <tr A_a (m_b . m_c)> + <(m_a . m_b)(m_c . m_d)>:
    U-statistics, so that no block ever meets itself. They are unbiased for rows of any
    distribution, however correlated within a block, where Gaussian corrections are not, and
    centring every block by its own mean loses the variance between sequences. Blocks count alike.

    Args:
        blocks: at least 5 independent blocks with equal expectations.

    Returns:
        Indices of the blocks kept -> estimates.

    Raises:
        ValueError: with fewer than 5 blocks: each term needs 4 when one is left out.
    """
    num_blocks = len(blocks.mean_BD)
    if num_blocks < 5:
        raise ValueError(f"blocks: got {num_blocks}, allowed >= 5")
    m_BD, flat = blocks.mean_BD, blocks.second_BDD.reshape(num_blocks, -1)
    products = _Products(
        trace_B=np.trace(blocks.second_BDD, axis1=1, axis2=2),
        cross_BB=flat @ flat.T,
        mean_BB=m_BD @ m_BD.T,
        form_BBB=m_BD @ (blocks.second_BDD @ m_BD.T),
    )
    everything = tuple(range(num_blocks))
    kept = [everything, *(everything[:b] + everything[b + 1 :] for b in everything)]
    return {index: products.of(index) for index in kept}


class _Products(NamedTuple):
    """Scalars of single blocks, pairs and triples: tr A_a, tr A_a A_b, m_a m_b, m_b A_a m_c."""

    trace_B: np.ndarray
    cross_BB: np.ndarray
    mean_BB: np.ndarray
    form_BBB: np.ndarray

    def of(self, index: tuple[int, ...]) -> SquaredTraces:
        """U-statistics of the chosen blocks."""
        i = np.array(index)
        n = len(i)
        pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
        off = ~np.eye(n, dtype=bool)
        distinct = off[:, :, None] & off[:, None, :] & off[None, :, :]
        g = self.mean_BB[np.ix_(i, i)] * off
        trace = self.trace_B[i]
        # Pairs of pairs that share one index or two are taken off the square of the sum.
        fours = g.sum() ** 2 - 4.0 * (g.sum(axis=1) ** 2).sum() + 2.0 * (g**2).sum()
        fours /= triples * (n - 3)
        with_traces = np.einsum("a,bc,abc->", trace, g, distinct, optimize=True)
        forms = self.form_BBB[np.ix_(i, i, i)][distinct].sum()
        return SquaredTraces(
            trace_squared=float(
                (np.outer(trace, trace) * off).sum() / pairs - 2.0 * with_traces / triples + fours
            ),
            square_trace=float(
                (self.cross_BB[np.ix_(i, i)] * off).sum() / pairs - 2.0 * forms / triples + fours
            ),
        )


def _half(blocks: Blocks, kept: Iterable[int]) -> _Half:
    index = list(kept)
    weight_B = blocks.count_B[index] / blocks.count_B[index].sum()
    mean_D = weight_B @ blocks.mean_BD[index]
    covariance_DD = np.tensordot(weight_B, blocks.second_BDD[index], axes=1)
    covariance_DD -= np.outer(mean_D, mean_D)
    eigenvalue_D, vector_DD = np.linalg.eigh(covariance_DD)
    return _Half(covariance_DD, eigenvalue_D[::-1], vector_DD[:, ::-1])


def _crossed(halves: tuple[_Half, _Half], floor: float) -> np.ndarray:
    """Balanced spectrum of two halves; eigenvalues in the rounding error count as 0."""
    balanced_D = np.zeros_like(halves[0].eigenvalue_D)
    for own, other in (halves, halves[::-1]):
        vector_DD = own.vector_DD
        held_out_D = np.einsum("ij,ij->j", vector_DD, other.covariance_DD @ vector_DD)
        real = (own.eigenvalue_D > floor) & (held_out_D > floor)
        balanced_D += np.sqrt(np.where(real, own.eigenvalue_D * held_out_D, 0.0)) / 2.0
    if balanced_D[0] == 0:
        raise Refused("covariance: vanishes, the activations do not vary")
    return balanced_D


def balanced_spectra(blocks: Blocks) -> dict[tuple[int, ...], np.ndarray]:
    """Cross-validated eigenvalues of a covariance, of all blocks and with each block left out.

    Even and odd blocks are two halves with covariances C_1, C_2. With C_1 = sum l_i u_i u_i^T the
    in-sample l_i spread too widely and the cross-validated u_i^T C_2 u_i too little, by the same
    amount to first order in D / N; g_i = sqrt(l_i u_i^T C_2 u_i), averaged over the two
    directions, cancels it.

    Args:
        blocks: at least 4 blocks.

    Returns:
        Indices of the blocks kept -> g_D in the order of the in-sample eigenvalues, descending;
        B + 2 eigendecompositions.

    Raises:
        Refused: where nothing varies.
    """
    everything = tuple(range(len(blocks.count_B)))
    even, odd = everything[::2], everything[1::2]
    whole = _half(blocks, even), _half(blocks, odd)
    spectra = {everything: _crossed(whole, blocks.floor)}
    for left_out in everything:
        members, partner = (even, whole[1]) if left_out in even else (odd, whole[0])
        reduced = _half(blocks, (b for b in members if b != left_out))
        kept = tuple(b for b in everything if b != left_out)
        spectra[kept] = _crossed((reduced, partner), blocks.floor)
    return spectra
