"""Geometry of activation clouds: neighbour-scaling dimension, and what two models' clouds share.

Shape suffixes: T rows (points), D width, P points of a chosen set, K order of the neighbour,
S subsamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.optimize import brentq
from scipy.spatial.distance import squareform
from scipy.special import exprel
from scipy.stats import rankdata

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of, unknown
from scaleinv_ray.invariants.common.clouds import (
    MatchedSubsamples,
    distinct_rows,
    matched_subsamples,
    neighbour_distances,
    neighbour_indices,
)
from scaleinv_ray.invariants.common.persistent_homology import median_scaled_distances
from scaleinv_ray.records import Activations
from scaleinv_ray.resample import disjoint_subsamples

_SYMMETRIES = ("rotation", "scale", "translation", "mean_shift", "permutation")
_ROUNDING = 1e-10
"""Relative difference of two distances that is only rounding."""


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
    quantities={
        "twonn": Quantity(
            law="constant",
            meaning=(
                "Intrinsic dimension of the activations by the two nearest neighbours; a lower "
                "bound above ten"
            ),
        ),
        "gride": Quantity(
            law="constant",
            meaning=(
                "Intrinsic dimension of the activations at a larger scale of neighbours; a lower "
                "bound above ten"
            ),
        ),
    },
    curves={"gride_profile": "Intrinsic dimension; order of the nearer neighbour"},
    symmetries=_SYMMETRIES,
)
def neighbour_dimension(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 5000,
    num_subsamples: int = 10,
    neighbour_order: int = 16,
    max_neighbour_order: int = 64,
    unit_norm: bool = False,
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
        unit_norm: the view of directions instead of the centred one (`centred_rows`).

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
    distinct = distinct_rows(cloud, unit_norm=unit_norm)
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


@invariant(
    scheme="cloud",
    quantities={
        "neighbour_overlap": Quantity(
            law="none",
            meaning=(
                "Share of its nearest neighbours that a point has in both models; 1 for equal "
                "shapes"
            ),
        ),
        "neighbour_overlap_permuted": Quantity(
            law="none",
            control=True,
            meaning="The overlap of neighbours where points are paired at random",
        ),
    },
    symmetries=_SYMMETRIES,
)
def neighbour_overlap(
    cloud: Activations,
    other: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
    num_neighbours: int = 30,
) -> Measured:
    """Share of its nearest neighbours that a point has in both of two models.

    Mean over the points i of |N_a(i) & N_b(i)| / k, N the k nearest neighbours (Doimo et al. 2020,
    eq. 1), on the sequences that are distinct in both clouds. Each cloud may be turned, scaled and
    shifted by itself; clouds equal up to that give 1. The value depends on k and P, hence both are
    fixed. The floor, where the rows of the second cloud are permuted, is k / (P - 1) in the mean.

    Args:
        cloud: x_TD of one model.
        other: x_TD of the other, of any width.
        rng: draws the subsamples and the permutations.
        num_points: P, points of a subsample.
        num_subsamples: disjoint subsamples wanted; as many as the rows allow are used, the error is
            over them, and unknown where there is one.
        num_neighbours: k.

    Returns:
        Quantities as declared; flags `matched_rows`, `distinct_rows`, `expected_permuted`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer than num_points rows distinct in both, or entries that are not finite.
    """
    if not 1 <= num_neighbours < num_points:
        raise ValueError(f"num_neighbours: got {num_neighbours}, allowed 1..{num_points - 1}")

    def near(x_PD: np.ndarray) -> np.ndarray:
        near_PP = np.zeros((num_points, num_points), dtype=bool)
        index_PK = neighbour_indices(x_PD, num_neighbours=num_neighbours)
        np.put_along_axis(near_PP, index_PK, values=True, axis=1)
        return near_PP

    def overlap(first_PP: np.ndarray, second_PP: np.ndarray) -> float:
        return float((first_PP & second_PP).sum()) / (num_points * num_neighbours)

    subsamples = matched_subsamples(
        cloud, other, rng=rng, num_points=num_points, num_subsamples=num_subsamples
    )
    expected = num_neighbours / (num_points - 1)
    return Measured(
        values=_paired("neighbour_overlap", subsamples, rng, of=near, compare=overlap),
        flags=subsamples.flags() | {"expected_permuted": expected},
    )


@invariant(
    scheme="cloud",
    quantities={
        "merge_height_correlation": Quantity(
            law="none",
            meaning=(
                "Rank correlation of the distances at which points merge in two models; at most 1"
            ),
        ),
        "merge_height_correlation_permuted": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning="The correlation of merge heights where points are paired at random",
        ),
    },
    symmetries=_SYMMETRIES,
)
def merge_height_correlation(
    cloud: Activations,
    other: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
) -> Measured:
    """Rank correlation of the heights at which two points merge, in two models.

    The height of a pair of points is the smallest t at which steps of length <= t lead from one to
    the other: the cophenetic distance of single linkage, the longest edge of their path in the
    minimum spanning tree (Carlsson & Memoli 2010), that is where the bar of dimension 0 ends that
    holds them apart. Spearman's correlation, with mean ranks for ties, over all pairs of a
    subsample's points lies in [-1, 1], and is 1 for clouds equal up to rotation, scale and shift,
    and for any two whose heights are in the same order. With the rows of the second cloud permuted
    it is 0 in the mean.

    Args:
        cloud: x_TD of one model.
        other: x_TD of the other, of any width.
        rng: draws the subsamples and the permutations.
        num_points: P, points of a subsample.
        num_subsamples: disjoint subsamples wanted; as many as the rows allow are used, the error is
            over them (pairs share points and are no replicates), and unknown where there is one.

    Returns:
        Quantities as declared; flags `matched_rows`, `distinct_rows`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer than num_points rows distinct in both, where all points merge at one
            height, or entries are not finite.
    """
    if num_points < 3:
        raise ValueError(f"num_points: got {num_points}, allowed >= 3")
    subsamples = matched_subsamples(
        cloud, other, rng=rng, num_points=num_points, num_subsamples=num_subsamples
    )
    return Measured(
        values=_paired(
            "merge_height_correlation", subsamples, rng, of=_height_ranks, compare=_correlation
        ),
        flags=subsamples.flags(),
    )


def _paired(
    name: str,
    subsamples: MatchedSubsamples,
    rng: np.random.Generator,
    *,
    of: Callable[[np.ndarray], np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], float],
) -> dict[str, Estimate | Refused]:
    """Means over subsamples of compare(of(x), of(y)), and with the rows of y permuted."""
    matched, permuted = [], []
    for x_PD, y_PD in subsamples.pairs:
        first_PP, second_PP = of(x_PD), of(y_PD)
        order = rng.permutation(len(y_PD))
        matched.append(compare(first_PP, second_PP))
        permuted.append(compare(first_PP, second_PP[np.ix_(order, order)]))
    return {
        name: mean_of(matched, "subsamples"),
        f"{name}_permuted": mean_of(permuted, "subsamples"),
    }


def _height_ranks(x_PD: np.ndarray) -> np.ndarray:
    """Centred ranks of the merge heights of all pairs, as a square matrix of unit norm."""
    distance_PP = median_scaled_distances(x_PD)
    height_C = cophenet(linkage(squareform(distance_PP, checks=False), method="single"))
    if height_C.max() <= height_C.min() * (1 + _ROUNDING):
        raise Refused("x_TD: all points merge at one height")
    rank_C = rankdata(height_C)
    rank_C -= rank_C.mean()
    return squareform(rank_C / np.linalg.norm(rank_C))


def _correlation(first_PP: np.ndarray, second_PP: np.ndarray) -> float:
    """Sum over the pairs, each of which stands twice; rounding stays within [-1, 1]."""
    return float(np.clip(np.vdot(first_PP, second_PP) / 2, -1, 1))


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
