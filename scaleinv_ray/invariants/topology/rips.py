"""Topology of activation clouds: persistent homology of the Vietoris-Rips filtration.

Everywhere duplicates are dropped, the cloud is cut into disjoint subsamples of a fixed number of
points, and values and errors are over them (`common.subsamples`); a cloud without as many distinct
rows is refused, no summary being free of the number of points. Lengths are in median distances
unless another unit is named. A law or a difference means something only beside the untrained
model's value.

Shape suffixes: T rows, P points, D width, L landmarks, S subsample, G grid, K homology dimension.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import pdist, squareform

from scaleinv_ray.contract import Diagram, Measured, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.persistent_homology import (
    bar_summaries,
    betti_difference,
    betti_numbers,
    edge_densities,
    median_distance,
    median_scaled_distances,
    num_significant,
    rips_diagram,
    universal_scores,
)
from scaleinv_ray.invariants.common.subsamples import (
    check_at_least,
    distinct_subsamples,
    gaussian_clouds,
    mean_curve,
    means_over_subsamples,
)
from scaleinv_ray.invariants.topology import quantities
from scaleinv_ray.invariants.topology.landmarks import farthest_points
from scaleinv_ray.records import Activations

_SYMMETRIES = ("rotation", "scale", "translation", "mean_shift", "permutation")
_GRID_END = 2.0  # largest filtration value of a Betti curve, in median distances
_NUM_DIAGRAMS = 3  # kept with the values: two tell a difference from noise, one more is a spare
_LEAST_BARS = 10
"""The universal null takes its centre from the bars themselves: fewer than this are no law."""


@invariant(
    scheme="cloud",
    quantities=quantities.PERSISTENCE,
    curves={
        "betti_0": "Number of components; scale at which points are joined",
        "betti_1": "Number of loops; scale at which points are joined",
        "betti_2": "Number of voids; scale at which points are joined",
        "euler_truncated": "Components less loops (and voids); scale at which points are joined",
    },
    symmetries=_SYMMETRIES,
    version=2,
)
def persistence(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 400,
    num_subsamples: int = 20,
    max_dimension: int = 1,
    num_gaussian: int = 2,
    num_grid: int = 101,
    memory_bounded: bool = False,
    unit_norm: bool = False,
) -> Measured:
    """Persistent homology of the Rips filtration, over disjoint subsamples of the cloud.

    Summaries of dimension k are those of `bar_summaries`; total_persistence_0 is the sum of the
    merge heights (the edges of the minimum spanning tree) / P. The controls `.._gaussian` are those
    of Gaussian clouds with the covariance of the whole cloud.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples and the Gaussian clouds.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used, the error is over
            them, and unknown where there is one.
        max_dimension: K, 1 or 2; quantities of dimension 2 are refused below 2.
        num_gaussian: Gaussian clouds.
        num_grid: filtration values in [0, 2] of the curves.
        memory_bounded: as in `rips_diagram`; the numbers are the same.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities as declared; curves `betti_k` (mean count over the subsamples) and
        `euler_truncated` = sum_(k <= K) (-1)^k beta_k; diagrams `rips`, `rips_2`, `rips_3` of the
        first subsamples; flags `distinct_rows`, `duplicates`, `near_duplicates` (fractions of the
        rows, dropped).

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    _check_dimension(max_dimension, num_points)
    check_at_least("num_gaussian", num_gaussian, 1)
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    diagrams = [_rips(x_PD, max_dimension, memory_bounded=memory_bounded) for x_PD in parts]
    null = [
        _rips(x_PD, 1, memory_bounded=memory_bounded)
        for x_PD in gaussian_clouds(
            distinct.x_TD, rng=rng, num_points=num_points, count=num_gaussian
        )
    ]
    values = _refused_beyond(
        max_dimension, tuple(n for n in quantities.PERSISTENCE if n.endswith("_2"))
    )
    values |= means_over_subsamples([_summaries(d, num_points, max_dimension) for d in diagrams])
    controls = means_over_subsamples([_summaries(d, num_points, 1) for d in null])
    values |= {
        name: controls[name.removesuffix("_gaussian")]
        for name in quantities.PERSISTENCE
        if name.endswith("_gaussian")
    }
    t_G = np.linspace(0, _GRID_END, num_grid)
    betti_KSG = np.array([
        [betti_numbers(d, k, t_G) for d in diagrams] for k in range(max_dimension + 1)
    ])
    curves = {f"betti_{k}": mean_curve(t_G, betti_SG) for k, betti_SG in enumerate(betti_KSG)}
    sign_K = (-1.0) ** np.arange(max_dimension + 1)
    curves["euler_truncated"] = mean_curve(t_G, np.einsum("k,ksg->sg", sign_K, betti_KSG))
    names = ["rips", *(f"rips_{i}" for i in range(2, _NUM_DIAGRAMS + 1))]
    kept = dict(zip(names, diagrams, strict=False))
    return Measured(values=values, curves=curves, diagrams=kept, flags=distinct.flags())


@invariant(
    scheme="cloud",
    quantities=quantities.ORDER_COMPLEX,
    curves={
        "betti_0": "Number of components; share of the pairs that are joined",
        "betti_1": "Number of loops; share of the pairs that are joined",
        "betti_1_gaussian": "Number of loops, Gaussian clouds; share of the pairs that are joined",
    },
    symmetries=_SYMMETRIES,
)
def order_complex(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 400,
    num_subsamples: int = 20,
    num_gaussian: int = 4,
    num_grid: int = 101,
    unit_norm: bool = False,
) -> Measured:
    """Betti numbers of the order complex: only the order of the distances counts.

    Distances are replaced by the edge density at which they enter (`edge_densities`; Giusti,
    Pastalkova, Curto & Itskov 2015), so that no monotone distortion of the distances matters, hence
    no change of norm by one; the dimension of the cloud does (100 points of N(0, I_d): integral of
    beta_1 .5, 1.6, 3.3, 4.2 at d = 2, 8, 64, 1024). It is therefore read against Gaussian clouds of
    the same covariance: excess_betti_1 = ln(integral_betti_1 / integral_betti_1_gaussian).

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples and the Gaussian clouds.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        num_gaussian: Gaussian clouds.
        num_grid: edge densities of the curves.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities: the integrals of beta_0 and beta_1 over the edge density in [0, 1], those of the
        Gaussian clouds, and the excess; curves over the edge density; flags as `persistence`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    check_at_least("num_points", num_points, 4)
    check_at_least("num_gaussian", num_gaussian, 1)
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    null = gaussian_clouds(distinct.x_TD, rng=rng, num_points=num_points, count=num_gaussian)
    diagrams, null_diagrams = (
        [rips_diagram(edge_densities(squareform(pdist(x_PD))), max_dimension=1) for x_PD in group]
        for group in (parts, null)
    )
    values = {
        f"integral_betti_{k}{suffix}": mean_of([_integral(d, k) for d in group], "subsamples")
        for suffix, group in (("", diagrams), ("_gaussian", null_diagrams))
        for k in (0, 1)
    }
    density_G = np.linspace(0, 1, num_grid)

    def betti(group: list[Diagram], k: int) -> np.ndarray:
        return np.array([betti_numbers(d, k, density_G) for d in group])

    ratio = _log_ratio(values["integral_betti_1"], values["integral_betti_1_gaussian"])
    return Measured(
        values=values | {"excess_betti_1": ratio},
        curves={
            "betti_0": mean_curve(density_G, betti(diagrams, 0)),
            "betti_1": mean_curve(density_G, betti(diagrams, 1)),
            "betti_1_gaussian": mean_curve(density_G, betti(null_diagrams, 1)),
        },
        flags=distinct.flags(),
    )


@invariant(
    scheme="cloud",
    quantities=quantities.SIGNIFICANT_BETTI,
    symmetries=_SYMMETRIES,
)
def significant_betti(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
    max_dimension: int = 1,
    level: float = 0.05,
    memory_bounded: bool = False,
    unit_norm: bool = False,
) -> Measured:
    """Bars that independent noise of any density would not have (Bobrowski & Skraba 2023).

    The scores of `universal_scores` are tested over all bars of a dimension (Holm's correction).
    Significant means not noise, not learnt: an untrained model's clouds have such bars in every
    layer, so that the count is to be read beside the untrained one.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        max_dimension: K, 1 or 2; quantities of dimension 2 are refused below 2.
        level: probability of calling noise significant, for a subsample and a dimension.
        memory_bounded: as in `rips_diagram`; the numbers are the same.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities `num_significant_k`, the mean count, and `max_score_k`, the largest score (a
        dimension with fewer than 10 bars has none); flags as `persistence`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    _check_dimension(max_dimension, num_points)
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, allowed between 0 and 1")
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    rows: list[dict[str, float | None]] = []
    for x_PD in parts:
        diagram = _rips(x_PD, max_dimension, memory_bounded=memory_bounded)
        rows.append({})
        for k in range(1, max_dimension + 1):
            score_B = universal_scores(diagram, k)
            enough = len(score_B) >= _LEAST_BARS
            count = num_significant(score_B, level=level)
            rows[-1][f"num_significant_{k}"] = count if enough else None
            rows[-1][f"max_score_{k}"] = float(score_B.max()) if enough else None
    values = _refused_beyond(max_dimension, ("num_significant_2", "max_score_2"))
    return Measured(values=values | means_over_subsamples(rows), flags=distinct.flags())


@invariant(
    scheme="cloud",
    quantities=quantities.TORSION_CHECK,
    symmetries=_SYMMETRIES,
)
def torsion_check(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
    num_landmarks: int = 200,
    max_dimension: int = 1,
    unit_norm: bool = False,
) -> Measured:
    """Betti numbers over Z/2 and over Z/3 differ only where the homology has 2- or 3-torsion.

    By the universal coefficient theorem; the loop of a projective plane dies over Z/3 when the
    plane forms, and lives on over Z/2. Every subsample is thinned to farthest-point landmarks: its
    bars are within `landmark_bound` (twice the largest cover radius) of those of the subsample,
    so that a shorter difference may be an accident of the draw.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        num_landmarks: L, landmarks of a subsample, at most P (where nothing is thinned).
        max_dimension: K, 1 or 2; quantities of dimension 2 are refused below 2.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities `torsion_rank_k`, the largest difference of beta_k over the filtration, and
        `torsion_length_k`, its integral; flags as `persistence` and `landmark_bound`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    _check_dimension(max_dimension, num_landmarks, name="num_landmarks")
    check_at_least("num_points", num_points, num_landmarks)
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    rows: list[dict[str, float | None]] = []
    radii = []
    for part_PD in parts:
        x_PD = part_PD / median_distance(part_PD)
        landmarks = farthest_points(x_PD, count=num_landmarks)
        radii.append(landmarks.cover_radius)
        distance_LL = squareform(pdist(x_PD[landmarks.index_L]))
        over_2, over_3 = (
            rips_diagram(distance_LL, max_dimension=max_dimension, field=p) for p in (2, 3)
        )
        rows.append({})
        for k in range(1, max_dimension + 1):
            rank, length = betti_difference(over_2, over_3, k)
            rows[-1] |= {f"torsion_rank_{k}": rank, f"torsion_length_{k}": length}
    values = _refused_beyond(max_dimension, ("torsion_rank_2", "torsion_length_2"))
    flags = distinct.flags() | {"landmark_bound": 2 * max(radii)}
    return Measured(values=values | means_over_subsamples(rows), flags=flags)


def _rips(x_PD: np.ndarray, max_dimension: int, *, memory_bounded: bool) -> Diagram:
    distance_PP = median_scaled_distances(x_PD)
    return rips_diagram(distance_PP, max_dimension=max_dimension, memory_bounded=memory_bounded)


def _check_dimension(max_dimension: int, num_points: int, *, name: str = "num_points") -> None:
    if max_dimension not in {1, 2}:
        raise ValueError(f"max_dimension: got {max_dimension}, allowed 1, 2")
    # The cross-polytope is the smallest Rips complex with H_K.
    check_at_least(name, num_points, 2 * max_dimension + 2)


def _refused_beyond(max_dimension: int, names: tuple[str, ...]) -> dict[str, Estimate | Refused]:
    return {name: Refused(f"{name}: needs max_dimension 2, got {max_dimension}") for name in names}


def _summaries(diagram: Diagram, num_points: int, max_dimension: int) -> dict[str, float | None]:
    death_B = diagram.death[diagram.dimension == 0]
    row: dict[str, float | None] = {"total_persistence_0": float(death_B.sum()) / num_points}
    for k in range(1, max_dimension + 1):
        found = bar_summaries(diagram, k, num_points=num_points)
        row |= {f"{name}_{k}": number for name, number in found.items()}
    return row


def _integral(diagram: Diagram, k: int) -> float:
    """Integral of beta_k over edge densities in [0, 1], the whole component included."""
    chosen_B = diagram.dimension == k
    return float((diagram.death - diagram.birth)[chosen_B].sum()) + (k == 0)


def _log_ratio(value: Estimate, null: Estimate) -> Estimate | Refused:
    """Logarithm of value / null, the relative errors added in quadrature."""
    if not (value.value > 0 and null.value > 0):
        return Refused("excess_betti_1: no loops in the cloud or in the Gaussian ones")
    logarithm = math.log(value.value / null.value)
    if value.stderr is None or null.stderr is None:
        return Estimate(logarithm, None, value.n, "none")
    stderr = math.hypot(value.stderr / value.value, null.stderr / null.value)
    return Estimate(logarithm, stderr, value.n, "subsamples")
