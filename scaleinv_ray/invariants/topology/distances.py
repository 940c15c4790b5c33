"""Alignment of the clouds of two models: how far apart their persistence diagrams are.

Shape suffixes: P points of a subsample, D width, S subsamples, Q quantities.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from scaleinv_ray.contract import Diagram, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.clouds import matched_subsamples
from scaleinv_ray.invariants.common.persistent_homology import median_scaled_distances, rips_diagram
from scaleinv_ray.invariants.topology.diagram_metrics import (
    bars_of,
    bottleneck_distance,
    wasserstein_distance,
)
from scaleinv_ray.records import Activations

_DISTANCES = {
    "bottleneck_0": "Bottleneck distance of components of two clouds, in median distances",
    "wasserstein_0": "Wasserstein distance of the components of two clouds, per point",
    "bottleneck_1": "Bottleneck distance of the loops of two clouds, in median distances",
    "wasserstein_1": "Wasserstein distance of the loops of two clouds, per point",
}


@invariant(
    scheme="cloud",
    quantities={
        **{
            name: Quantity(law="none", meaning=f"{meaning}; read against the floor")
            for name, meaning in _DISTANCES.items()
        },
        **{
            f"{name}_floor": Quantity(
                law="none", control=True, meaning=f"{meaning}, both of one cloud"
            )
            for name, meaning in _DISTANCES.items()
        },
    },
    symmetries=("rotation", "scale", "translation", "mean_shift", "permutation"),
)
def diagram_distance(
    cloud: Activations,
    other: Activations,
    *,
    rng: np.random.Generator,
    num_points: int = 400,
    num_subsamples: int = 10,
) -> Measured:
    """Bottleneck and Wasserstein distances between the persistence diagrams of two models.

    The Rips diagrams of the same sequences in both models, the distances of each divided by their
    median, are compared in dimensions k = 0, 1 with the ground distance L-infinity: bottleneck_k in
    median distances, and wasserstein_k = W_1 / P (order 1, per point). Both depend on P, hence it
    is fixed.

    The floor is what sampling alone does: the same distance between two subsamples of one cloud,
    which share no sequence, averaged over both models. At the floor two clouds look like draws from
    one shape, below it the same sequences lie alike in both; clouds equal up to rotation, scale and
    shift are at 0.

    Args:
        cloud: x_TD of one model.
        other: x_TD of the other, of any width.
        rng: draws the subsamples.
        num_points: P, points of a subsample.
        num_subsamples: disjoint subsamples wanted; as many as the rows allow are used. The error is
            over them, that of the floor over disjoint pairs of them; unknown where there is one.

    Returns:
        Quantities as declared, the floor refused where there is a single subsample; flags
        `matched_rows`, `distinct_rows`.

    Raises:
        ValueError: for parameters outside their range.
        Refused: with fewer than num_points rows distinct in both, or entries that are not finite.
    """
    if num_points < 4:  # the square is the smallest cloud with a loop
        raise ValueError(f"num_points: got {num_points}, allowed >= 4")
    subsamples = matched_subsamples(
        cloud, other, rng=rng, num_points=num_points, num_subsamples=num_subsamples
    )
    first, second = (
        [rips_diagram(median_scaled_distances(x_PD), max_dimension=1) for x_PD in side]
        for side in zip(*subsamples.pairs, strict=True)
    )
    between_SQ = [_distances(a, b, num_points) for a, b in zip(first, second, strict=True)]
    within_SQ = [
        np.mean([_distances(a, b, num_points) for a, b in sides], axis=0)
        for sides in list(zip(pairwise(first), pairwise(second), strict=True))[::2]
    ]
    floors = tuple(f"{name}_floor" for name in _DISTANCES)
    return Measured(
        values=_means(tuple(_DISTANCES), between_SQ) | _means(floors, within_SQ),
        flags=subsamples.flags(),
    )


def _distances(first: Diagram, second: Diagram, num_points: int) -> np.ndarray:
    """The numbers of _DISTANCES."""
    numbers = []
    for dimension in (0, 1):
        bars = bars_of(first, dimension), bars_of(second, dimension)
        numbers += [bottleneck_distance(*bars), wasserstein_distance(*bars) / num_points]
    return np.array(numbers)


def _means(names: tuple[str, ...], rows_SQ: list[np.ndarray]) -> dict[str, Estimate | Refused]:
    if not rows_SQ:
        return {name: Refused(f"{name}: needs two disjoint subsamples, got 1") for name in names}
    columns_QS = np.array(rows_SQ).T
    return {
        name: mean_of(samples, "subsamples")
        for name, samples in zip(names, columns_QS, strict=True)
    }
