"""Clouds of points: centred rows, duplicates, neighbours, rows of two models matched.

Shape suffixes: T rows (points), D width, P points of a chosen set, B block, K order of neighbour.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples

_NEAR = 0.1
"""Rows nearer than this multiple of the median nearest-neighbour distance are near-duplicates."""
_CENTRE = 1e-10
"""Rows nearer to the mean than this multiple of the largest norm have a direction of rounding."""
_BLOCK = 512
"""Rows of a distance matrix held at a time."""


class DistinctRows(NamedTuple):
    """Rows of a cloud without duplicates, and the fractions of rows dropped.

    Attributes:
        x_TD: rows kept, centred, the largest entry of size 1.
        duplicates: fraction of rows equal, to the precision of a distance, to a row kept.
        near_duplicates: fraction of rows within 0.1 median nearest-neighbour distances of one.
        kept_T: indices of the rows kept, ascending.
    """

    x_TD: np.ndarray
    duplicates: float
    near_duplicates: float
    kept_T: np.ndarray

    def flags(self) -> dict[str, float | int | str]:
        """What was dropped, for `Measured.flags`."""
        return {
            "distinct_rows": len(self.x_TD),
            "duplicates": self.duplicates,
            "near_duplicates": self.near_duplicates,
        }


class MatchedSubsamples(NamedTuple):
    """Disjoint random sets of sequences, each as points of two models.

    Attributes:
        pairs: (x_PD, y_PE) of every set, prepared by `centred_rows`, the rows in the same order.
        matched: sequences that both clouds have.
        distinct: those of them that are no duplicates in either cloud.
    """

    pairs: list[tuple[np.ndarray, np.ndarray]]
    matched: int
    distinct: int

    def flags(self) -> dict[str, float | int | str]:
        """What was matched and left, for `Measured.flags`."""
        return {"matched_rows": self.matched, "distinct_rows": self.distinct}


def centred_rows(cloud: Activations, *, unit_norm: bool = False) -> np.ndarray:
    """Rows of a cloud in float64: centred, and divided by the largest entry.

    Distances by matrix products lose |mean|^2 / d^2 in precision (an offset of 1000 in one
    coordinate turned a dimension of 9.6 into 97), hence the centring; the scale guards the squares.

    Args:
        cloud: x_TD of any scale. Where a LayerNorm follows (`removes_mean`) the mean over the
            units of every row is removed first.
        unit_norm: the view of directions: every centred row is divided by its norm. A row at the
            mean has no direction and is zero.

    Returns:
        x_TD, float64; zeros where all rows are equal.

    Raises:
        Refused: as `sound`.
    """
    sound(cloud, powers=False)
    x_TD = _unit_scale(np.asarray(cloud.x_TD, dtype=np.float64))
    if cloud.removes_mean:
        x_TD = x_TD - x_TD.mean(axis=1, keepdims=True)
    x_TD = _unit_scale(x_TD - x_TD.mean(axis=0))
    if not unit_norm:
        return x_TD
    norm_T = np.sqrt(np.einsum("td,td->t", x_TD, x_TD))
    return x_TD / np.where(norm_T > _CENTRE * norm_T.max(), norm_T, np.inf)[:, None]


def distinct_rows(cloud: Activations, *, unit_norm: bool = False) -> DistinctRows:
    """Drops duplicate and near-duplicate rows of a cloud; of each group the first row stays.

    Near-duplicates (repeated contexts) dominate whatever looks at nearest neighbours: they moved
    the TwoNN dimension of an untrained network from 2.6 to 70.

    Args:
        cloud: x_TD.
        unit_norm: as in `centred_rows`; duplicates are then rows of one direction.

    Returns:
        The rows kept, prepared by `centred_rows`, with the fractions dropped.

    >>> x_TD = np.repeat(np.eye(4), 2, axis=0)
    >>> index = np.arange(8)
    >>> cloud = Activations(x_TD=x_TD, sequence_T=index, position_T=index)
    >>> distinct_rows(cloud).duplicates
    0.5
    """
    x_TD = centred_rows(cloud, unit_norm=unit_norm)
    num_rows = len(x_TD)
    # Rounding of s_i + s_j - 2 <x_i, x_j>: below this a distance is not told from zero.
    largest = math.sqrt(np.einsum("td,td->t", x_TD, x_TD).max())
    resolution = math.sqrt(x_TD.shape[1] * np.finfo(np.float64).eps) * largest
    nearest_T = _nearest(x_TD)
    unequal_T = _first_of_each(x_TD, nearest_T, resolution)
    if not unequal_T.all():
        x_TD = x_TD[unequal_T]
        nearest_T = _nearest(x_TD)
    apart_T = _first_of_each(x_TD, nearest_T, _NEAR * float(np.median(nearest_T)))
    duplicates = 1 - len(x_TD) / num_rows
    near_duplicates = float((~apart_T).sum()) / num_rows
    kept_T = np.flatnonzero(unequal_T)[apart_T]
    return DistinctRows(x_TD[apart_T], duplicates, near_duplicates, kept_T)


def neighbour_distances(x_PD: np.ndarray, *, num_neighbours: int) -> np.ndarray:
    """Euclidean distances to the nearest neighbours, by float64 matrix products in blocks.

    Args:
        x_PD: centred points.
        num_neighbours: neighbours wanted, 1..P-1.

    Returns:
        distance_PK, ascending along K, the point itself left out.

    Raises:
        ValueError: where there are not so many neighbours.

    >>> neighbour_distances(np.array([[-2.0], [-1.0], [3.0]]), num_neighbours=2).tolist()
    [[1.0, 5.0], [1.0, 4.0], [4.0, 5.0]]
    """
    _check_neighbours(x_PD, num_neighbours)
    squared_PK = np.empty((len(x_PD), num_neighbours))
    for start, squared_BP in _squared_distances(x_PD):
        squared_BP.partition(num_neighbours - 1, axis=1)
        squared_PK[start : start + len(squared_BP)] = squared_BP[:, :num_neighbours]
    squared_PK.sort(axis=1)
    np.maximum(squared_PK, 0, out=squared_PK)
    return np.sqrt(squared_PK, out=squared_PK)


def neighbour_indices(x_PD: np.ndarray, *, num_neighbours: int) -> np.ndarray:
    """Which points are the nearest of every point.

    Args:
        x_PD: centred points.
        num_neighbours: neighbours wanted, 1..P-1.

    Returns:
        index_PK, in no order along K, the point itself left out.

    Raises:
        ValueError: where there are not so many neighbours.

    >>> neighbour_indices(np.array([[-2.0], [-1.0], [3.0]]), num_neighbours=1).tolist()
    [[1], [0], [1]]
    """
    _check_neighbours(x_PD, num_neighbours)
    return np.concatenate([
        squared_BP.argpartition(num_neighbours - 1, axis=1)[:, :num_neighbours]
        for _, squared_BP in _squared_distances(x_PD)
    ])


def matched_rows(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two clouds that belong to the same sequences.

    Args:
        first: sequence ids of one cloud, each once.
        second: those of the other.

    Returns:
        Row indices into the first and into the second, by ascending id.

    Raises:
        Refused: where an id occurs twice, or no sequence is in both.

    >>> matched_rows(np.array([4, 2, 7]), np.array([2, 4, 5]))
    (array([1, 0]), array([0, 1]))
    """
    for ids in (first, second):
        if len(np.unique(ids)) < len(ids):
            raise Refused(f"sequence_T: got {len(ids)} rows of {len(np.unique(ids))} sequences")
    ids, rows, others = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    if len(ids) == 0:
        raise Refused("sequence_T: no sequence is in both records")
    return rows, others


def matched_subsamples(
    cloud: Activations,
    other: Activations,
    *,
    rng: np.random.Generator,
    num_points: int,
    num_subsamples: int,
) -> MatchedSubsamples:
    """Disjoint subsamples of the sequences of two models, without those that either has twice.

    Args:
        cloud: x_TD of one model, each sequence once.
        other: x_TD of the other, of any width and order of rows.
        rng: draws the subsamples.
        num_points: P, sequences of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are drawn.

    Returns:
        At least one subsample.

    Raises:
        ValueError: where no subsample is wanted.
        Refused: as `sound`; where a sequence occurs twice in a cloud, none is in both, positions
            differ, or fewer than num_points rows are distinct in both.
    """
    if num_subsamples < 1:
        raise ValueError(f"num_subsamples: got {num_subsamples}, allowed >= 1")
    sound(cloud, other, powers=False)
    rows, others = matched_rows(cloud.sequence_T, other.sequence_T)
    if not np.array_equal(cloud.position_T[rows], other.position_T[others]):
        raise Refused("position_T: the clouds have their rows at different positions")
    first, second = distinct_rows(_rows_of(cloud, rows)), distinct_rows(_rows_of(other, others))
    kept, a, b = np.intersect1d(
        first.kept_T, second.kept_T, assume_unique=True, return_indices=True
    )
    draws = disjoint_subsamples(len(kept), size=num_points, count=num_subsamples, rng=rng)
    if not draws:
        raise Refused(
            f"distinct rows: got {len(kept)} of {len(rows)} in both clouds, needs num_points "
            f"{num_points} (other numbers of points are not comparable)"
        )
    pairs = [(first.x_TD[a[draw]], second.x_TD[b[draw]]) for draw in draws]
    return MatchedSubsamples(pairs, len(rows), len(kept))


def _unit_scale(x_TD: np.ndarray) -> np.ndarray:
    largest = float(np.abs(x_TD).max())
    return x_TD / largest if largest > 0 else x_TD


def _check_neighbours(x_PD: np.ndarray, num_neighbours: int) -> None:
    if not 1 <= num_neighbours < len(x_PD):
        raise ValueError(
            f"num_neighbours: got {num_neighbours}, allowed 1..{len(x_PD) - 1} (points - 1)"
        )


def _squared_distances(x_PD: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and squared distances of every block of rows, infinite on the diagonal.

    |x|^2 + |y|^2 - 2 <x, y> is one product of rows with two entries more, hence may be negative by
    rounding.

    Yields:
        Index of the first row, and the block, which the next one overwrites.
    """
    square_P1 = np.einsum("pd,pd->p", x_PD, x_PD)[:, None]
    ones_P1 = np.ones_like(square_P1)
    left_PE = np.concatenate([-2 * x_PD, square_P1, ones_P1], axis=1)
    right_EP = np.concatenate([x_PD, ones_P1, square_P1], axis=1).T
    block_BP = np.empty((min(_BLOCK, len(x_PD)), len(x_PD)))
    for start in range(0, len(x_PD), _BLOCK):
        rows_BE = left_PE[start : start + _BLOCK]
        squared_BP = np.matmul(rows_BE, right_EP, out=block_BP[: len(rows_BE)])
        rows = np.arange(len(squared_BP))
        squared_BP[rows, start + rows] = np.inf
        yield start, squared_BP


def _nearest(x_TD: np.ndarray) -> np.ndarray:
    nearest_T = np.concatenate([block.min(axis=1) for _, block in _squared_distances(x_TD)])
    return np.sqrt(np.maximum(nearest_T, 0))


def _first_of_each(x_TD: np.ndarray, nearest_T: np.ndarray, radius: float) -> np.ndarray:
    """Marks, in order, every row that is not within `radius` of an earlier marked row."""
    marked_T = np.ones(len(x_TD), dtype=bool)
    close = np.flatnonzero(nearest_T <= radius)
    if close.size == 0:
        return marked_T
    blocks = [block <= radius**2 for _, block in _squared_distances(x_TD[close])]
    kept = np.zeros(close.size, dtype=bool)
    for i, near in enumerate(np.concatenate(blocks)):
        kept[i] = not (near & kept).any()
    marked_T[close] = kept
    return marked_T


def _rows_of(cloud: Activations, rows: np.ndarray) -> Activations:
    return dataclasses.replace(
        cloud,
        x_TD=cloud.x_TD[rows],
        sequence_T=cloud.sequence_T[rows],
        position_T=cloud.position_T[rows],
    )
