"""Shape of activation clouds off the Rips filtration: merge trees, spectral loops, Euler curves.

Subsamples and refusals are those of the family `topology`. Lengths are in median distances.

Shape suffixes: T rows, P points, D width, S subsample, E edges, G grid.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import squareform

from scaleinv_ray.bounds import Range
from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.clouds import neighbour_distances
from scaleinv_ray.invariants.common.persistent_homology import (
    bar_summaries,
    loop_score,
    median_distance,
    median_scaled_distances,
    rips_diagram,
)
from scaleinv_ray.invariants.common.subsamples import (
    check_at_least,
    distinct_subsamples,
    mean_curve,
    means_over_subsamples,
)
from scaleinv_ray.invariants.topology.alpha_complex import (
    EulerCurve,
    euler_curve,
    principal_projection,
)
from scaleinv_ray.invariants.topology.merge_heights import length_slope, merge_heights
from scaleinv_ray.invariants.topology.resistance import neighbour_graph, resistance_distances
from scaleinv_ray.records import Activations

_SYMMETRIES = ("rotation", "scale", "translation", "mean_shift", "permutation")


@invariant(
    scheme="cloud",
    quantities={
        "mean_merge_height": Quantity(
            law="power_law",
            meaning=(
                "Mean distance at which components of the activation cloud merge, in median "
                "distances"
            ),
        ),
        "merge_height_spread": Quantity(
            law="constant",
            meaning=(
                "Spread of the merge distances over their mean; 0 for a lattice, larger with "
                "clusters"
            ),
        ),
        "ph_dimension": Quantity(
            law="constant",
            meaning=(
                "Dimension of the cloud by how merge distances shrink with the number of points"
            ),
        ),
    },
    curves={"merge_heights": "Distance at which a component is joined; quantile"},
    symmetries=_SYMMETRIES,
)
def merge_tree(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 2000,
    num_subsamples: int = 4,
    power: float = 1.0,
    num_sizes: int = 4,
    num_grid: int = 101,
    unit_norm: bool = False,
) -> Measured:
    """Heights at which the components of a cloud merge, and the dimension in how they shrink.

    The heights are the edges of the minimum spanning tree (H0 of the Rips filtration) in median
    distances (of at most 1000 points). The dimension is a / (1 - slope of ln E_a(m) over ln m)
    (`length_slope`), with the mean slope of the subsamples; like all dimensions from distances it
    is a lower bound above ten or so.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        power: a > 0, smaller than the dimension.
        num_sizes: sizes m = P, P/2, P/4, ..
        num_grid: quantiles of the curve.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities `mean_merge_height`, `merge_height_spread` (standard deviation / mean),
        `ph_dimension`; curve `merge_heights` (x = quantile, y = height); flags as
        `topology.persistence`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, or entries that are not finite.
    """
    if not power > 0:
        raise ValueError(f"power: got {power}, allowed > 0")
    check_at_least("num_sizes", num_sizes, 2)
    check_at_least("num_points", num_points, 8 * 2**num_sizes)
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    height_SE = np.array([merge_heights(x_PD) / median_distance(x_PD) for x_PD in parts])
    # Rows come in the order of the record, and neighbours there may be neighbours in the cloud.
    order_P = rng.permutation(num_points)
    slopes = [length_slope(x_PD[order_P], power=power, num_sizes=num_sizes) for x_PD in parts]
    mean_S = height_SE.mean(axis=1)
    quantile_G = np.linspace(0, 1, num_grid)
    height_SG = np.quantile(height_SE, quantile_G, axis=1).T
    return Measured(
        values={
            "mean_merge_height": mean_of(mean_S, "subsamples"),
            "merge_height_spread": mean_of(height_SE.std(axis=1) / mean_S, "subsamples"),
            "ph_dimension": _dimension(mean_of(slopes, "subsamples"), power),
        },
        curves={"merge_heights": mean_curve(quantile_G, height_SG)},
        flags=distinct.flags(),
    )


@invariant(
    scheme="cloud",
    quantities={
        "log_ratio_max_1": Quantity(
            law="constant",
            meaning=(
                "Log ratio of death to birth of the most persistent loop, in distances through the "
                "graph"
            ),
        ),
        "max_persistence_1": Quantity(
            law="none",
            meaning="Length of the longest loop, in median distances through the neighbour graph",
        ),
        "loop_score_1": Quantity(
            law="constant",
            unit=0.2,
            meaning=(
                "Gap behind the longest loop of the neighbour graph; near 1 a single clear loop, 0 "
                "none"
            ),
        ),
        "loop_score_1_euclidean": Quantity(
            law="none",
            unit=0.2,
            control=True,
            meaning="Gap behind the longest loop in plain Euclidean distances",
        ),
    },
    symmetries=_SYMMETRIES,
    bounds={"num_points": Range(4, 1000)},
)
def spectral_persistence(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
    num_neighbours: int = 15,
    unit_norm: bool = False,
) -> Measured:
    """Loops through noise of high dimension: H1 on the spectral distances of a neighbour graph.

    Distances are the roots of the corrected effective resistances of the symmetric graph of nearest
    neighbours (`resistance_distances`; Damrich, Berens & Kobak 2024), over their median. O(P^3).

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P <= 1000, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        num_neighbours: of the graph.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities `log_ratio_max_1`, `max_persistence_1` as in `bar_summaries`, `loop_score_1`, the
        gap behind the longest bar (`loop_score`), and the same on Euclidean distances; diagram
        `rips` of the first subsample; flags as `topology.persistence`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, entries that are not finite, or a graph
            that falls into components.
    """
    check_at_least("num_points", num_points, 4)
    if num_points > 1000:
        raise ValueError(f"num_points: got {num_points}, allowed 4..1000 (cubic time)")
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    diagrams = []
    rows: list[dict[str, float | None]] = []
    for x_PD in parts:
        distance_PP = median_scaled_distances(x_PD)
        graph_PP = neighbour_graph(distance_PP, num_neighbours=num_neighbours)
        spectral_PP = resistance_distances(graph_PP, corrected=True)
        spectral_PP /= np.median(squareform(spectral_PP))
        diagrams.append(rips_diagram(spectral_PP, max_dimension=1))
        found = bar_summaries(diagrams[-1], 1, num_points=num_points)
        euclidean = rips_diagram(distance_PP, max_dimension=1)
        rows.append({
            "log_ratio_max_1": found["log_ratio_max"],
            "max_persistence_1": found["max_persistence"],
            "loop_score_1": loop_score(diagrams[-1], 1),
            "loop_score_1_euclidean": loop_score(euclidean, 1),
        })
    values = means_over_subsamples(rows)
    return Measured(values=values, diagrams={"rips": diagrams[0]}, flags=distinct.flags())


@invariant(
    scheme="cloud",
    quantities={
        "euler_min": Quantity(
            law="constant",
            unit=0.1,
            meaning=(
                "Least Euler characteristic of balls about the cloud, per point; below 0 tunnels "
                "prevail"
            ),
        ),
        "euler_max": Quantity(
            law="constant",
            unit=0.01,
            meaning=(
                "Largest later Euler characteristic of balls about the cloud, per point; above 0 "
                "cavities"
            ),
        ),
        "euler_nearest": Quantity(
            law="constant",
            unit=0.1,
            meaning="Euler characteristic at the mean distance to the nearest neighbour, per point",
        ),
        "euler_integral": Quantity(
            law="none",
            unit=0.1,
            meaning="Integral of the Euler characteristic less 1 over the radius, per point",
        ),
    },
    curves={"euler": "Euler characteristic, a point; scale at which points are joined"},
    symmetries=_SYMMETRIES,
    bounds={"num_points": Range(5, 1_000_000)},
)
def euler_characteristic(
    cloud: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 1000,
    num_subsamples: int = 8,
    least_gap_errors: float = 1.0,
    num_grid: int = 101,
    unit_norm: bool = False,
) -> Measured:
    """Exact Euler characteristic of balls about the cloud in its top three principal components.

    chi(t) = beta_0 - beta_1 + beta_2 of the union of balls of diameter t median distances
    (`euler_curve`), from P at t = 0 to 1 in the end: below zero where tunnels prevail, above where
    cavities do. The components are those of all distinct rows. Where the third and the fourth
    eigenvalue are within their sampling error the space projected on is an accident: refused.

    Args:
        cloud: x_TD, independent rows.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: subsamples wanted; as many as the rows allow are used.
        least_gap_errors: least distance of the third eigenvalue from the fourth, in sampling
            errors sqrt(2 / T) of the third (North et al. 1982).
        num_grid: values of t in [0, 1] of the curve.
        unit_norm: look at the rows divided by their norms.

    Returns:
        Quantities, over P: `euler_min`, the least chi; `euler_max`, the largest one after it;
        `euler_nearest`, chi where t is the mean distance to the nearest neighbour;
        `euler_integral`, the integral of chi - 1 over t; curve `euler` (x = t, y = chi / P); flags
        as `topology.persistence`, `eigenvalue_gap` (relative) and `eigenvalue_gap_errors`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer distinct rows than num_points, entries that are not finite, fewer than
            three dimensions, or eigenvalues too near to each other.
    """
    check_at_least("num_points", num_points, 5)
    parts, distinct = distinct_subsamples(
        cloud, rng=rng, num_points=num_points, num_subsamples=num_subsamples, unit_norm=unit_norm
    )
    space = principal_projection(distinct.x_TD, num_components=3)
    if space.gap_errors < least_gap_errors:
        raise Refused(
            f"x_TD: eigenvalues 3 and 4 are {space.gap_errors:.2g} sampling errors apart, "
            f"needs {least_gap_errors} (least_gap_errors)"
        )
    t_G = np.linspace(0, 1, num_grid)
    rows: list[dict[str, float | None]] = []
    chi_SG = []
    for part_PD in parts:
        x_P3 = part_PD @ space.axes_D3
        x_P3 /= median_distance(x_P3)
        curve = euler_curve(x_P3)
        rows.append(_euler_summaries(curve, x_P3))
        chi_SG.append(curve.at(t_G / 2) / num_points)
    flags = {"eigenvalue_gap": space.gap, "eigenvalue_gap_errors": space.gap_errors}
    return Measured(
        values=means_over_subsamples(rows),
        curves={"euler": mean_curve(t_G, np.array(chi_SG))},
        flags=distinct.flags() | flags,
    )


def _dimension(slope: Estimate, power: float) -> Estimate | Refused:
    """The dimension a / (1 - slope), its error to first order."""
    if not slope.value < 1:
        return Refused(f"ph_dimension: slope {slope.value:.3g} of the lengths is not below 1")
    dimension = power / (1 - slope.value)
    if slope.stderr is None:
        return Estimate(dimension, None, slope.n, "none")
    return Estimate(dimension, dimension * slope.stderr / (1 - slope.value), slope.n, "subsamples")


def _euler_summaries(curve: EulerCurve, x_P3: np.ndarray) -> dict[str, float | None]:
    least = int(curve.chi_F.argmin())
    nearest = float(neighbour_distances(x_P3, num_neighbours=1).mean())
    integral = float(((curve.chi_F[:-1] - 1) * np.diff(2 * curve.radius_F)).sum())
    summaries = {
        "euler_min": float(curve.chi_F[least]),
        "euler_max": float(curve.chi_F[least:].max()),
        "euler_nearest": float(curve.at(nearest / 2)),
        "euler_integral": integral,
    }
    return {name: number / len(x_P3) for name, number in summaries.items()}
