"""Geometry of activation clouds: neighbour-scaling dimension.

Shape suffixes: T rows (points), D width, P points of a chosen set, K order of the neighbour.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import exprel

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, unknown
from scaleinv_ray.kernels.clouds import distinct_rows, neighbour_distances
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples


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
