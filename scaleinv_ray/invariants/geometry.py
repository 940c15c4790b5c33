"""Geometry of activation clouds: distinct rows, neighbour distances, neighbour-scaling dimension.

Shape suffixes: T rows (points), D width, P points of a chosen set, K order of the neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import exprel

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, unknown
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples

_NEAR = 0.1
"""Rows nearer than this multiple of the median nearest-neighbour distance are near-duplicates."""
_BLOCK = 512
"""Rows of a distance matrix held at a time."""


class DistinctRows(NamedTuple):
    """Rows of a cloud without duplicates, and the fractions of rows dropped.

    Attributes:
        x_TD: rows kept, centred, the largest entry of size 1.
        duplicates: fraction of rows equal, to the precision of a distance, to a row kept.
        near_duplicates: fraction of rows within 0.1 median nearest-neighbour distances of one.
    """

    x_TD: np.ndarray
    duplicates: float
    near_duplicates: float

    def flags(self) -> dict[str, float | int | str]:
        """What was dropped, for `Measured.flags`."""
        return {
            "distinct_rows": len(self.x_TD),
            "duplicates": self.duplicates,
            "near_duplicates": self.near_duplicates,
        }


def centred_rows(cloud: Activations) -> np.ndarray:
    """Rows of a cloud in float64: centred, and divided by the largest entry.

    Distances by matrix products lose |mean|^2 / d^2 in precision (an offset of 1000 in one
    coordinate turned a dimension of 9.6 into 97), hence the centring; the scale guards the squares.

    Args:
        cloud: x_TD of any scale. Where a LayerNorm follows (`removes_mean`) the mean over the
            units of every row is removed first.

    Returns:
        x_TD, float64; zeros where all rows are equal.

    Raises:
        ValueError: unless x_TD is a matrix.
        Refused: where an entry is not finite.
    """
    if cloud.x_TD.ndim != 2:
        raise ValueError(f"x_TD: got {cloud.x_TD.ndim} axes, allowed 2 (rows, units)")
    x_TD = np.asarray(cloud.x_TD, dtype=np.float64)
    if x_TD.size == 0 or not np.isfinite(x_TD).all():
        raise Refused("x_TD: empty or not finite")
    x_TD = _unit_scale(x_TD)
    if cloud.removes_mean:
        x_TD = x_TD - x_TD.mean(axis=1, keepdims=True)
    return _unit_scale(x_TD - x_TD.mean(axis=0))


def distinct_rows(cloud: Activations) -> DistinctRows:
    """Drops duplicate and near-duplicate rows of a cloud; of each group the first row stays.

    Near-duplicates (repeated contexts) dominate whatever looks at nearest neighbours: they moved
    the TwoNN dimension of an untrained network from 2.6 to 70.

    Args:
        cloud: x_TD.

    Returns:
        The rows kept, prepared by `centred_rows`, with the fractions dropped.

    >>> x_TD = np.repeat(np.eye(4), 2, axis=0)
    >>> index = np.arange(8)
    >>> cloud = Activations(x_TD=x_TD, sequence_T=index, position_T=index)
    >>> distinct_rows(cloud).duplicates
    0.5
    """
    x_TD = centred_rows(cloud)
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
    return DistinctRows(x_TD[apart_T], duplicates, near_duplicates)


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
    if not 1 <= num_neighbours < len(x_PD):
        raise ValueError(
            f"num_neighbours: got {num_neighbours}, allowed 1..{len(x_PD) - 1} (points - 1)"
        )
    squared_PK = np.empty((len(x_PD), num_neighbours))
    for start, squared_BP in _squared_distances(x_PD):
        squared_BP.partition(num_neighbours - 1, axis=1)
        squared_PK[start : start + len(squared_BP)] = squared_BP[:, :num_neighbours]
    squared_PK.sort(axis=1)
    return np.sqrt(squared_PK, out=squared_PK)


def twonn_dimension(distance_PK: np.ndarray) -> float:
    """TwoNN dimension, unbiased: (P - 1) / sum log(r_2 / r_1).

    Facco, d'Errico, Rodriguez & Laio 2017 (Pareto law of r_2 / r_1); Denti et al. 2022, eq. 5,
    for the unbiased constant. All points are used, none is discarded.

    Args:
        distance_PK: distances to at least two neighbours, positive and ascending.

    Returns:
        The dimension.

    >>> round(twonn_dimension(np.array([[1.0, np.e]] * 5)), 12)
    0.8
    """
    log_sum = float(_log_ratios(distance_PK, 1).sum())
    return (len(distance_PK) - 1) / log_sum


def gride_dimension(distance_PK: np.ndarray, *, neighbour_order: int) -> float:
    """Gride: maximum likelihood dimension from the ratio of two neighbour distances.

    With n1 = neighbour_order, n2 = 2 n1 and mu = r_n2 / r_n1 the density of mu is
    d (mu^d - 1)^(n2-n1-1) mu^(-d(n2-1)-1) / B(n2-n1, n1) (Denti, Doimo, Laio & Mira 2022, eq. 9).
    Its logarithm is strictly concave in d where it is maximal: with y = d log mu the score is
    [P + (n2-n1-1) sum y / (1 - e^-y) - (n2-1) sum y] / d, and 1 + y/2 <= y / (1 - e^-y) <= 1 + y
    brackets its only zero. At n1 = 1 the constant is P - 1 (`twonn_dimension`).

    Args:
        distance_PK: distances to at least 2 n1 neighbours, positive and ascending.
        neighbour_order: n1 >= 1.

    Returns:
        The dimension at the scale of the n1-th to the 2 n1-th neighbour.

    Raises:
        ValueError: where distance_PK has fewer neighbours.
    """
    if not 1 <= neighbour_order <= distance_PK.shape[1] // 2:
        allowed = distance_PK.shape[1] // 2
        raise ValueError(f"neighbour_order: got {neighbour_order}, allowed 1..{allowed}")
    if neighbour_order == 1:
        return twonn_dimension(distance_PK)
    log_mu_P = _log_ratios(distance_PK, neighbour_order)
    log_sum = float(log_mu_P.sum())
    num_points, between = len(log_mu_P), neighbour_order - 1

    def score(dimension: float) -> float:
        inner = float((1 / exprel(-dimension * log_mu_P)).sum())
        return num_points + between * inner - (2 * neighbour_order - 1) * dimension * log_sum

    high = num_points / log_sum
    low = high * neighbour_order / (1.5 * neighbour_order - 0.5)
    return float(brentq(score, low * (1 - 1e-9), high * (1 + 1e-9), xtol=1e-13 * high))


@invariant(
    scheme="cloud",
    quantities={"twonn": Quantity(law="constant"), "gride": Quantity(law="constant")},
    curves=("gride_profile",),
    symmetries=("rotation", "scale", "translation", "mean_shift", "permutation"),
)
def neighbour_dimension(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 5000,
    num_subsamples: int = 10,
    neighbour_order: int = 16,
    max_neighbour_order: int = 64,
) -> Measured:
    """Neighbour-scaling dimension: Gride over the scales n1 = 1, 2, 4, .. and TwoNN.

    Duplicates are dropped (`distinct_rows`), `num_points` of the rest are drawn, and one pass
    finds their neighbours. The estimators assume a density that is constant over the neighbours:
    above ten or so the values are lower bounds (N(0, I_64), 5000 points: 38.7), and they depend on
    the number of points, hence it is fixed: a smaller cloud is refused, never used as it is.
    Dropping near-duplicates thins true neighbours of very low-dimensional clouds: it moves the
    value at n1 = 1 from 1 to 1.16 on a circle and by 1 to 3 % on surfaces, above that not at all.

    The error is that of `num_subsamples` disjoint parts of the points, each of P / S points:
    value * (relative standard deviation over the parts, ddof 1) / sqrt(S). (value / sqrt(P) is
    1.1 to 1.4 times too small, neighbours being shared.)

    Args:
        cloud: x_TD, independent rows.
        rng: draws the points and their parts.
        num_points: P, points used.
        num_subsamples: S, disjoint parts behind the error; with 1 the error is unknown.
        neighbour_order: n1 of the quantity `gride`, a power of two.
        max_neighbour_order: largest n1 of the profile, a power of two.

    Returns:
        Quantities `twonn`, `gride`; curve `gride_profile` (x = n1, y = dimension); flags
        `distinct_rows`, `duplicates`, `near_duplicates` (fractions of the rows, dropped).

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    if not 1 <= num_subsamples <= num_points:
        raise ValueError(f"num_subsamples: got {num_subsamples}, allowed 1..{num_points}")
    size = num_points // num_subsamples
    orders = _neighbour_orders(neighbour_order, max_neighbour_order, size)
    distinct = distinct_rows(cloud)
    if len(distinct.x_TD) < num_points:
        raise Refused(
            f"distinct rows: got {len(distinct.x_TD)} of {len(cloud.x_TD)}, needs num_points "
            f"{num_points} (dimensions at other numbers of points are not comparable)"
        )
    draw = disjoint_subsamples(len(distinct.x_TD), size=num_points, count=1, rng=rng)[0]
    x_PD = distinct.x_TD[draw]
    parts = disjoint_subsamples(num_points, size=size, count=num_subsamples, rng=rng)
    value_K = _profile(x_PD, orders)
    stderr_K: np.ndarray | None = None
    if num_subsamples > 1:
        part_SK = np.array([_profile(x_PD[part], orders) for part in parts])
        spread_K = part_SK.std(axis=0, ddof=1) / part_SK.mean(axis=0)
        stderr_K = value_K * spread_K / math.sqrt(num_subsamples)

    def estimate(index: int) -> Estimate:
        if stderr_K is None:
            return unknown(value_K[index], n=num_points)
        return Estimate(float(value_K[index]), float(stderr_K[index]), num_subsamples, "subsamples")

    return Measured(
        values={"twonn": estimate(0), "gride": estimate(orders.index(neighbour_order))},
        curves={"gride_profile": Curve(np.array(orders, dtype=np.float64), value_K, stderr_K)},
        flags=distinct.flags(),
    )


def _unit_scale(x_TD: np.ndarray) -> np.ndarray:
    largest = float(np.abs(x_TD).max())
    return x_TD / largest if largest > 0 else x_TD


def _squared_distances(x_PD: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row and squared distances of every block of rows, infinite on the diagonal."""
    square_P = np.einsum("pd,pd->p", x_PD, x_PD)
    for start in range(0, len(x_PD), _BLOCK):
        squared_BP = x_PD[start : start + _BLOCK] @ x_PD.T
        squared_BP *= -2
        squared_BP += square_P
        squared_BP += square_P[start : start + _BLOCK, None]
        np.maximum(squared_BP, 0, out=squared_BP)
        rows = np.arange(len(squared_BP))
        squared_BP[rows, start + rows] = np.inf
        yield start, squared_BP


def _nearest(x_TD: np.ndarray) -> np.ndarray:
    return np.sqrt(np.concatenate([block.min(axis=1) for _, block in _squared_distances(x_TD)]))


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


def _log_ratios(distance_PK: np.ndarray, neighbour_order: int) -> np.ndarray:
    """log(r_2n / r_n) at every point; refused where it is nowhere positive (lattices)."""
    near_P, far_P = distance_PK[:, neighbour_order - 1], distance_PK[:, 2 * neighbour_order - 1]
    if not near_P.min() > 0:
        raise ValueError("distance_PK: got distances of 0, drop duplicates first")
    log_mu_P = np.log(far_P / near_P)
    if not log_mu_P.max() > 0:
        raise Refused(f"distance_PK: neighbours {neighbour_order} and twice that are equally far")
    return log_mu_P


def _neighbour_orders(chosen: int, largest: int, part_size: int) -> list[int]:
    orders = [2**power for power in range(max(largest, 1).bit_length())]
    if orders[-1] != largest:
        raise ValueError(f"max_neighbour_order: got {largest}, allowed powers of two")
    if chosen not in orders:
        raise ValueError(f"neighbour_order: got {chosen}, allowed {orders}")
    if part_size <= 2 * largest:
        raise ValueError(
            f"num_points // num_subsamples: got {part_size}, needs more than {2 * largest} "
            "(2 max_neighbour_order)"
        )
    return orders


def _profile(x_PD: np.ndarray, orders: list[int]) -> np.ndarray:
    distance_PK = neighbour_distances(x_PD, num_neighbours=2 * orders[-1])
    return np.array([gride_dimension(distance_PK, neighbour_order=n1) for n1 in orders])
