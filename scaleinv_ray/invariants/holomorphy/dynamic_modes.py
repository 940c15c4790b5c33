"""Dynamic mode decomposition over depth: the linear map that takes a layer's rows to the next's.

Shape suffixes: L depths (layers + 1), T rows, D width, R rank, B blocks of sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from scaleinv_ray.contract import Refused
from scaleinv_ray.records import DepthStack
from scaleinv_ray.resample import sequence_blocks

ROWS_PER_DIM = 50
MIN_LAYERS = 3


class DepthSums(NamedTuple):
    """Sums over rows: their number, x [L, D], sum_l x_l x_l^T and sum_l x_{l+1} x_l^T (l < L-1).

    Attributes:
        num_rows: how many.
        sum_LD: sums of the rows at every depth.
        own_DD: second moments of the depths that have a next one.
        next_DD: their cross moments with the next depth, [next, own].
    """

    num_rows: int
    sum_LD: np.ndarray
    own_DD: np.ndarray
    next_DD: np.ndarray


class DepthModes(NamedTuple):
    """The fitted map on its leading subspace.

    Attributes:
        operator_RR: x_{l+1} = operator x_l in the coordinates of the basis.
        basis_DR: orthonormal columns, leading principal directions of the pooled rows.
        mean_LD: mean over rows at every depth, taken off.
        energy: share of the pooled variance in the subspace.
    """

    operator_RR: np.ndarray
    basis_DR: np.ndarray
    mean_LD: np.ndarray
    energy: float

    @property
    def eigenvalue_R(self) -> np.ndarray:
        """Eigenvalues of the map, by descending modulus."""
        value_R = np.linalg.eigvals(self.operator_RR)
        return value_R[np.argsort(-abs(value_R), kind="stable")]


class HeldOut(NamedTuple):
    """Modes of all rows, and how modes of one half of them predict the other half.

    Attributes:
        eigenvalue_R: eigenvalues of the map, by descending modulus.
        energy: share of the pooled variance in the subspace.
        error: sqrt(sum |x_{l+1} - A x_l|^2 / sum |x_{l+1}|^2), both halves.
        identity_error: the same of A = 1.
    """

    eigenvalue_R: np.ndarray
    energy: float
    error: float
    identity_error: float


def depth_blocks(stack: DepthStack, *, num_blocks: int, rank: int) -> list[np.ndarray]:
    """Rows of blocks of whole sequences, about their common mean at every depth.

    Fits centre by their own rows; the common mean only keeps sums of squares from cancelling.

    Args:
        stack: x_LTD; where a LayerNorm follows, the mean over units is taken off.
        num_blocks: blocks wanted.
        rank: dimensions to be fitted.

    Returns:
        x_LTD of every block, float64.

    Raises:
        Refused: not finite, fewer than 3 layers, or fewer than 50 sequences a dimension.
    """
    num_layers, num_sequences = len(stack.x_LTD) - 1, len(np.unique(stack.sequence_T))
    if num_layers < MIN_LAYERS:
        raise Refused(f"layers: got {num_layers}, allowed >= {MIN_LAYERS}")
    if num_sequences < ROWS_PER_DIM * rank:
        allowed = f"{ROWS_PER_DIM} * rank = {ROWS_PER_DIM * rank}"
        raise Refused(f"sequences: got {num_sequences}, allowed >= {allowed}")
    if not np.isfinite(stack.x_LTD).all():
        raise Refused("x_LTD: has NaN or infinite entries")
    mean_L1D = stack.x_LTD.mean(axis=1, keepdims=True, dtype=np.float64)
    rows = sequence_blocks(stack.sequence_T, num_blocks)
    blocks = [stack.x_LTD[:, block_T] - mean_L1D for block_T in rows]
    if not stack.removes_mean:
        return blocks
    return [x_LTD - x_LTD.mean(axis=2, keepdims=True) for x_LTD in blocks]


def depth_sums(x_LTD: np.ndarray) -> DepthSums:
    """First and second moments that a fit over depth needs.

    Args:
        x_LTD: the same rows at every depth.

    Returns:
        Sums over the rows.
    """
    width = x_LTD.shape[2]
    own_DD, next_DD = np.zeros((width, width)), np.zeros((width, width))
    for here_TD, after_TD in zip(x_LTD[:-1], x_LTD[1:], strict=True):
        own_DD += here_TD.T @ here_TD
        next_DD += after_TD.T @ here_TD
    return DepthSums(x_LTD.shape[1], x_LTD.sum(axis=1), own_DD, next_DD)


def fit_modes(parts: Sequence[DepthSums], *, rank: int) -> DepthModes:
    """Exact DMD of rank R of pooled rows, each depth centred over its rows.

    A = argmin sum_{l,t} |x_{l+1,t} - A x_{l,t}|^2 on the R leading principal directions U of the
    pooled x_l: U^T A U = U^T C U (U^T G U)^-1 with G = sum x_l x_l^T, C = sum x_{l+1} x_l^T (Tu et
    al., J. Comput. Dyn. 1:391, 2014). Centring takes the layers' biases out, x_{l+1} = A x_l + b_l.

    Args:
        parts: sums over disjoint sets of rows.
        rank: R.

    Returns:
        The modes.

    Raises:
        Refused: where the rows span fewer than R directions.

    >>> rows = np.random.default_rng(0).standard_normal((50, 2))
    >>> stack = np.array([rows * np.array([0.5, -2.0]) ** depth for depth in range(4)])
    >>> fit_modes([depth_sums(stack)], rank=2).eigenvalue_R.round(9).real.tolist()
    [-2.0, 0.5]
    """
    count = sum(part.num_rows for part in parts)
    mean_LD = sum((part.sum_LD for part in parts), np.zeros_like(parts[0].sum_LD)) / count
    own_DD = -count * mean_LD[:-1].T @ mean_LD[:-1]
    next_DD = -count * mean_LD[1:].T @ mean_LD[:-1]
    for part in parts:
        own_DD += part.own_DD
        next_DD += part.next_DD
    width = len(own_DD)
    value_R, basis_DR = eigh(own_DD, subset_by_index=(max(width - rank, 0), width - 1))
    floor = width * np.finfo(np.float64).eps * value_R[-1]
    if len(value_R) < rank or not value_R[0] > floor:
        found = int((value_R > floor).sum())
        raise Refused(f"rank: got {rank}, the rows span {found} directions")
    operator_RR = basis_DR.T @ next_DD @ basis_DR / value_R
    energy = float(value_R.sum() / np.trace(own_DD))
    return DepthModes(operator_RR, basis_DR, mean_LD, energy)


def squared_errors(modes: DepthModes, x_LTD: np.ndarray) -> tuple[float, float, float]:
    """Squared errors of predicting each depth from the one before, in the modes' coordinates.

    Args:
        modes: fitted to other rows.
        x_LTD: rows to predict.

    Returns:
        sum |x_{l+1} - A x_l|^2, sum |x_{l+1} - x_l|^2 (the identity), and sum |x_{l+1}|^2.
    """
    own = identity = total = 0.0
    before_TR = (x_LTD[0] - modes.mean_LD[0]) @ modes.basis_DR
    for here_TD, mean_D in zip(x_LTD[1:], modes.mean_LD[1:], strict=True):
        here_TR = (here_TD - mean_D) @ modes.basis_DR
        own += float(((here_TR - before_TR @ modes.operator_RR.T) ** 2).sum())
        identity += float(((here_TR - before_TR) ** 2).sum())
        total += float((here_TR**2).sum())
        before_TR = here_TR
    return own, identity, total


def held_out_modes(blocks: Sequence[np.ndarray], *, rank: int) -> dict[tuple[int, ...], HeldOut]:
    """Modes over depth with their held-out errors, of all blocks and with each left out.

    Even and odd blocks are the halves; errors are those of a half's modes on the other half, in
    the coordinates of the modes.

    Args:
        blocks: rows x_LTD of independent blocks of sequences, at least four.
        rank: dimensions of the subspace.

    Returns:
        Indices of the blocks kept -> numbers.

    Raises:
        Refused: where the rows span fewer directions, or do not vary.
    """
    sums = [depth_sums(x_LTD) for x_LTD in blocks]
    everything = tuple(range(len(blocks)))
    kept = [everything, *(everything[:b] + everything[b + 1 :] for b in everything)]
    return {index: _held_out(blocks, sums, index, rank) for index in kept}


def _held_out(
    blocks: Sequence[np.ndarray], sums: Sequence[DepthSums], index: tuple[int, ...], rank: int
) -> HeldOut:
    halves = [[b for b in index if b % 2 == parity] for parity in (0, 1)]
    errors = np.zeros(3)
    for train, test in (halves, halves[::-1]):
        modes = fit_modes([sums[b] for b in train], rank=rank)
        errors += np.sum([squared_errors(modes, blocks[b]) for b in test], axis=0)
    own, identity, total = errors
    whole = fit_modes([sums[b] for b in index], rank=rank)
    return HeldOut(
        whole.eigenvalue_R,
        whole.energy,
        float(np.sqrt(own / total)),
        float(np.sqrt(identity / total)),
    )
