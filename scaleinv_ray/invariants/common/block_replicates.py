"""Replicates over blocks of sequences: all blocks, then all but one, from sums by block.

Shape suffixes: T rows, N units, B blocks of sequences, R replicates (all blocks, then all but
one), K any axis of a curve.
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Curve, Refused
from scaleinv_ray.estimate import Estimate, unknown
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import jackknife, sequence_blocks

MIN_TOKENS_PER_UNIT = 50  # below it the noise of independent units alone shows mu > .05
# Of those, left after `skip_positions`: a stream of 50 a unit loses 1/128 of its rows where one
# position of 128 is skipped, and the floor of mu moves by < .001 (by .003 where a tenth is lost).
MIN_USED = 0.9
MIN_UNITS = 32  # clusters of 8 at N/4
MIN_LIVE = 0.75  # leaving out a quarter of 128 units moved alpha_tilde by .01-.03, in its margin


def stream_rows(
    stream: Activations, *, skip_positions: int, num_blocks: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The units of a stream by row, and the rows used of each block of sequences.

    Args:
        stream: record; where it `removes_mean`, `about_row_means`.
        skip_positions: positions at the start of each sequence to leave out.
        num_blocks: blocks wanted, at most the sequences.

    Returns:
        x_TN in single precision or better, and indices by sequence and position, block by block.

    Raises:
        Refused: under 32 units, under 50 tokens a unit in the record or under 45 in the rows used,
            no row left in a block, or as `sound`.
    """
    sound(stream)
    num_tokens, num_units = stream.x_TD.shape
    if num_units < MIN_UNITS:
        raise Refused(f"units: got {num_units}, allowed >= {MIN_UNITS} (clusters of 8 at N/4)")
    if num_tokens < MIN_TOKENS_PER_UNIT * num_units:
        raise Refused(
            f"tokens per unit: got {num_tokens}/{num_units} = {num_tokens / num_units:.1f}, "
            f"allowed >= {MIN_TOKENS_PER_UNIT}"
        )
    x_TN = stream.x_TD.astype(np.result_type(stream.x_TD.dtype, np.float32), copy=False)
    blocks = sequence_blocks(stream.sequence_T, min(num_blocks, len(np.unique(stream.sequence_T))))
    rows_B = []
    for rows in blocks:
        used = rows[stream.position_T[rows] >= skip_positions]
        order = np.lexsort((stream.position_T[used], stream.sequence_T[used]))
        rows_B.append(used[order])
    if min(len(rows) for rows in rows_B) == 0:
        raise Refused(f"skip_positions: got {skip_positions}, which leaves no token in a block")
    num_used = sum(len(rows) for rows in rows_B)
    if num_used < MIN_USED * MIN_TOKENS_PER_UNIT * num_units:
        raise Refused(
            f"tokens per unit from position {skip_positions} on: got {num_used}/{num_units} = "
            f"{num_used / num_units:.1f}, allowed >= {MIN_USED * MIN_TOKENS_PER_UNIT:g}"
        )
    return (about_row_means(x_TN, rows_B) if stream.removes_mean else x_TN), rows_B


def about_row_means(x_TN: np.ndarray, rows_B: list[np.ndarray]) -> np.ndarray:
    """Rows about their mean over the units that vary, which is what a LayerNorm passes on.

    Units constant in a replicate stay constant (0): less the mean they would all be one and the
    same signal, and none could be told from a living unit.

    Args:
        x_TN: rows.
        rows_B: rows of every block.

    Returns:
        An array of the same shape and dtype.

    >>> x_TN = np.array([[0.0, 2.0, 7.0], [3.0, 1.0, 7.0]])
    >>> about_row_means(x_TN, [np.arange(2)]).tolist()
    [[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]
    """
    alive_N = alive_in_replicates(x_TN, rows_B)
    total_T = x_TN[:, alive_N].sum(axis=1, dtype=np.float64, keepdims=True)
    mean_T = (total_T / max(alive_N.sum(), 1)).astype(x_TN.dtype)
    return np.where(alive_N, x_TN - mean_T, x_TN.dtype.type(0))


def sequence_parts(
    rows_B: list[np.ndarray], rank_T: np.ndarray, num_parts: int
) -> list[list[np.ndarray]]:
    """Every block divided into disjoint parts: sequence by sequence in turn.

    Args:
        rows_B: rows of every block.
        rank_T: number of the sequence of every row.
        num_parts: parts P.

    Returns:
        For each part its rows in every block.

    >>> [[rows.tolist() for rows in part] for part in sequence_parts(
    ...     [np.array([0, 1]), np.array([2, 3])], np.arange(4), 2)]
    [[[0], [2]], [[1], [3]]]
    """
    return [
        [rows[rank_T[rows] % num_parts == part] for rows in rows_B] for part in range(num_parts)
    ]


def living_units(variance_N: np.ndarray, alive_N: np.ndarray) -> np.ndarray:
    """Units that vary, in order of their variance: an order without names.

    Ties and random draws are then the same when units are renamed.

    Args:
        variance_N: variance of every unit.
        alive_N: whether it has a variance in every replicate.

    Returns:
        Their indices.

    Raises:
        Refused: where more than a quarter of the units are constant.
    """
    order = np.argsort(variance_N, kind="stable")
    unit_N = order[alive_N[order]]
    if len(unit_N) < MIN_LIVE * len(alive_N):
        raise Refused(f"units that vary: got {len(unit_N)} of {len(alive_N)}, needs {MIN_LIVE:.0%}")
    return unit_N


def replicates(num_blocks: int) -> list[list[int]]:
    """Blocks kept by every replicate.

    Returns:
        All of them first, then, with two or more, all but one.

    >>> replicates(2)
    [[0, 1], [1], [0]]
    """
    everything = list(range(num_blocks))
    left_out = everything if num_blocks > 1 else []
    return [everything, *([b for b in everything if b != out] for out in left_out)]


def alive_in_replicates(x_TN: np.ndarray, rows_B: list[np.ndarray]) -> np.ndarray:
    """Whether each unit varies in every replicate.

    Returns:
        Whether it does in two blocks (of one block: in that), [N].

    Raises:
        Refused: where a replicate is empty.

    >>> alive_in_replicates(np.eye(4), [np.array([0, 1]), np.array([2, 3])]).tolist()
    [False, False, False, False]
    """
    if not all(map(len, rows_B)):
        raise Refused(f"rows: got {[len(r) for r in rows_B]} in the replicates, needs some in each")
    varies_BN = np.array([x_TN[r].max(axis=0) > x_TN[r].min(axis=0) for r in rows_B])
    return varies_BN.sum(axis=0) >= min(2, len(rows_B))


def block_covariances(x_TN: np.ndarray, rows_B: list[np.ndarray]) -> np.ndarray:
    """Covariance of every replicate, by one product of matrices a block.

    Blocks about their own means, plus the covariance of those means: nothing cancels, so that
    units of `alive_in_replicates` have a positive variance. In double precision, as rounding of
    products in single precision would stand for the smallest eigenvalues, where rows repeat.

    Args:
        x_TN: rows of any real dtype, finite.
        rows_B: rows of every block.

    Returns:
        Covariances [R, N, N], float64, divided by the number of rows.
    """
    means, scatters = [], []
    for rows in rows_B:
        block_TN = x_TN[rows].astype(np.float64)
        means.append(block_TN.mean(axis=0))
        block_TN -= means[-1]
        scatters.append(block_TN.T @ block_TN)
    covariances, count_B, mean_BN = [], np.array([len(rows) for rows in rows_B]), np.array(means)
    for keep in replicates(len(rows_B)):
        share_B = count_B[keep] / count_B[keep].sum()
        apart_BN = np.sqrt(share_B)[:, None] * (mean_BN[keep] - share_B @ mean_BN[keep])
        within_NN = sum(scatters[b] for b in keep) / count_B[keep].sum()
        covariances.append(within_NN + apart_BN.T @ apart_BN)
    return np.array(covariances)


def estimate_of(result_R: np.ndarray | Refused, *, n: int) -> Estimate | Refused:
    """Value of the first replicate with the jackknife error of the others.

    Args:
        result_R: a value for each of `replicates`, or a refusal, which is passed on.
        n: rows, recorded where one block leaves the error unknown.

    Returns:
        The estimate.
    """
    if isinstance(result_R, Refused):
        return result_R
    num_blocks = len(result_R) - 1
    if num_blocks == 0:
        return unknown(result_R[0], n=n)
    every = np.arange(num_blocks)
    return jackknife(
        lambda keep: result_R[1 + np.setdiff1d(every, keep).sum() if len(keep) < len(every) else 0],
        num_blocks,
    )


def curve_of(x_K: np.ndarray, y_RK: np.ndarray) -> Curve:
    """Curve of the first replicate with the jackknife error of the others (one block: None)."""
    left_out = y_RK[1:]
    stderr = np.sqrt((len(left_out) - 1) * left_out.var(axis=0)) if len(left_out) else None
    return Curve(x_K, y_RK[0], stderr)
