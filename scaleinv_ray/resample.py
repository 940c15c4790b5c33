"""Independent replicates: blocks of sequences, the delete-one jackknife, disjoint subsamples.

Sequences are replicates; tokens and overlapping subsamples are not (their errors came out
four and twelve times too small).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scaleinv_ray.estimate import ErrorKind, Estimate


def disjoint_subsamples(
    num_rows: int, *, size: int, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Up to `count` disjoint random index sets of `size` rows out of `num_rows`.

    Args:
        num_rows: rows to draw from.
        size: rows in a subsample.
        count: subsamples wanted.
        rng: source of randomness.

    Returns:
        min(count, num_rows // size) sorted index arrays, none of them overlapping.

    >>> [len(s) for s in disjoint_subsamples(10, size=3, count=9, rng=np.random.default_rng(0))]
    [3, 3, 3]
    """
    order = rng.permutation(num_rows)
    available = min(count, num_rows // size)
    return [np.sort(order[i * size : (i + 1) * size]) for i in range(available)]


def jackknife(
    statistic: Callable[[np.ndarray], float],
    num_blocks: int,
    *,
    error_kind: ErrorKind = "jackknife",
) -> Estimate:
    """Delete-one-block jackknife: the full value and its standard error.

    Args:
        statistic: takes the indices of the blocks kept, returns the value.
        num_blocks: number of independent blocks B >= 2.
        error_kind: recorded with the estimate.

    Returns:
        theta(all), with stderr = sqrt((B-1)/B sum_b (theta_(-b) - mean theta_(-.))^2)
        (Efron & Tibshirani 1993, eq. 11.5); samples are the B leave-one-out values.

    Raises:
        ValueError: with fewer than two blocks.

    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> e = jackknife(lambda keep: float(x[keep].mean()), 4)
    >>> round(e.stderr, 12) == round(float(x.std(ddof=1) / 2), 12)
    True
    """
    if num_blocks < 2:
        raise ValueError(f"num_blocks: got {num_blocks}, the jackknife needs at least 2")
    everything = np.arange(num_blocks)
    left_out = np.array([statistic(np.delete(everything, b)) for b in range(num_blocks)])
    spread = float(((left_out - left_out.mean()) ** 2).sum())
    stderr = math.sqrt((num_blocks - 1) / num_blocks * spread)
    return Estimate(
        float(statistic(everything)), stderr, num_blocks, error_kind, tuple(left_out.tolist())
    )


def sequence_blocks(sequence_T: np.ndarray, num_blocks: int) -> list[np.ndarray]:
    """Row indices of `num_blocks` blocks of whole sequences, in order of their ids.

    Args:
        sequence_T: sequence id of every row, int [T].
        num_blocks: blocks wanted; at most the number of sequences.

    Returns:
        One index array per block; every sequence lies in exactly one block.

    Raises:
        ValueError: with fewer sequences than blocks.
    """
    ids, rank_T = np.unique(sequence_T, return_inverse=True)
    if len(ids) < num_blocks:
        raise ValueError(f"num_blocks: got {num_blocks}, allowed at most {len(ids)} sequences")
    sizes = [len(part) for part in np.array_split(ids, num_blocks)]
    block_T = np.repeat(np.arange(num_blocks), sizes)[rank_T]
    return [np.flatnonzero(block_T == b) for b in range(num_blocks)]
