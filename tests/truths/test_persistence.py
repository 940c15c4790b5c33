"""Clouds and complexes whose persistence diagrams are known exactly."""

import itertools

import gudhi
import numpy as np
import pytest

from scaleinv_ray.contract import Diagram
from scaleinv_ray.invariants.topology import (
    bar_summaries,
    betti_numbers,
    median_scaled_distances,
    persistence,
    rips_diagram,
)
from scaleinv_ray.records import Activations

ROOT2, ROOT3 = np.sqrt(2), np.sqrt(3)


def cloud_of(x_TD: np.ndarray) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud")


def distances(x_PD: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x_PD[:, None] - x_PD[None], axis=2)


def polygon(num_points: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(num_points) / num_points
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def bars(diagram: Diagram, dimension: int) -> np.ndarray:
    chosen = diagram.dimension == dimension
    found = np.stack([diagram.birth[chosen], diagram.death[chosen]], axis=1)
    return found[np.lexsort(found.T[::-1])]


CUBE = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)])
POLYGON_100 = (2 * np.sin(np.pi / 100), 2 * np.sin(np.pi * 34 / 100))


@pytest.mark.parametrize(
    ("x_PD", "dimension", "expected"),
    [
        (np.array([[0.0, 0], [0, 1], [1, 1], [1, 0]]), 1, [(1, ROOT2)]),
        (polygon(6), 1, [(1, ROOT3)]),
        (polygon(6), 2, [(ROOT3, 2)]),
        (polygon(100), 1, [POLYGON_100]),
        (OCTAHEDRON, 1, []),
        (OCTAHEDRON, 2, [(ROOT2, 2)]),
        (CUBE, 1, [(1, ROOT2)] * 5),
        (CUBE, 2, []),
        (CUBE, 3, [(ROOT2, ROOT3)]),
    ],
)
def test_regular_clouds(x_PD: np.ndarray, dimension: int, expected: list) -> None:
    found = bars(rips_diagram(distances(x_PD), max_dimension=dimension), dimension)
    assert found == pytest.approx(np.array(expected).reshape(-1, 2), abs=1e-12)


def barycentric_distances(facets: list[tuple[int, ...]]) -> np.ndarray:
    """Distances 1 and 2 whose Rips complex at 1 is the barycentric subdivision (a flag complex)."""
    faces = {
        frozenset(face)
        for facet in facets
        for size in range(1, len(facet) + 1)
        for face in itertools.combinations(facet, size)
    }
    ordered = sorted(faces, key=lambda face: (len(face), sorted(face)))
    nested = np.array([[a <= b or b <= a for b in ordered] for a in ordered])
    return np.where(nested, 1.0, 2.0) - np.eye(len(ordered))


PROJECTIVE_PLANE = [
    *[(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 1, 5)],
    *[(1, 2, 4), (2, 3, 5), (1, 3, 4), (2, 4, 5), (1, 3, 5)],
]
TORUS_7 = [
    tuple(sorted((i + shift) % 7 for shift in shifts))
    for i in range(7)
    for shifts in ((0, 1, 3), (0, 2, 3))
]


def klein_bottle() -> list[tuple[int, ...]]:
    """A 4 x 4 grid of triangulated squares, glued with a flip in one direction."""

    def vertex(i: int, j: int) -> int:
        return 4 * (i % 4) + (j if i < 4 else -j) % 4

    squares = itertools.product(range(4), range(4))
    return [
        triangle
        for i, j in squares
        for triangle in (
            (vertex(i, j), vertex(i + 1, j), vertex(i + 1, j + 1)),
            (vertex(i, j), vertex(i, j + 1), vertex(i + 1, j + 1)),
        )
    ]


@pytest.mark.parametrize(
    ("facets", "betti"),
    [
        (PROJECTIVE_PLANE, (1, 1, 1)),  # (1, 0, 0) over the engine's default field Z/11
        (TORUS_7, (1, 2, 1)),
        (klein_bottle(), (1, 2, 1)),  # (1, 1, 0) over Z/11
    ],
    ids=["projective_plane", "torus", "klein_bottle"],
)
def test_surfaces_over_two(facets: list[tuple[int, ...]], betti: tuple[int, ...]) -> None:
    diagram = rips_diagram(barycentric_distances(facets), max_dimension=2)
    found = [int(betti_numbers(diagram, k, np.array([1.0]))[0]) for k in range(3)]
    assert tuple(found) == betti


def test_torus_cloud_has_two_loops() -> None:
    rng = np.random.default_rng(0)
    cell = np.stack(np.divmod(np.arange(400), 20), axis=1)
    angles = 2 * np.pi * (cell + rng.random((400, 2))) / 20  # one point in each of 20 x 20 cells
    x_PD = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)  # flat torus in R^4
    diagram = rips_diagram(median_scaled_distances(x_PD), max_dimension=1)
    length = np.sort(np.diff(bars(diagram, 1), axis=1).ravel())[::-1]
    gap = length[:9] / length[1:10]
    assert gap.argmax() == 1
    assert gap[1] > 2


@pytest.mark.parametrize("max_dimension", [1, 2])
def test_agrees_with_the_simplex_tree(max_dimension: int) -> None:
    rng = np.random.default_rng(1)
    distance_PP = median_scaled_distances(rng.normal(size=(30, 5)))
    tree = gudhi.RipsComplex(distance_matrix=distance_PP).create_simplex_tree(max_dimension + 1)
    tree.compute_persistence(homology_coeff_field=2)
    diagram = rips_diagram(distance_PP, max_dimension=max_dimension)
    for k in range(max_dimension + 1):
        expected = tree.persistence_intervals_in_dimension(k)
        expected = expected[np.isfinite(expected[:, 1])]
        expected = expected[np.lexsort(expected.T[::-1])]
        assert bars(diagram, k) == pytest.approx(expected, abs=1e-12)


def test_summaries_of_three_bars() -> None:
    diagram = Diagram(np.ones(3, dtype=int), np.array([1.0, 1.5, 2.0]), np.array([2.0, 3.5, 3.0]))
    found = bar_summaries(diagram, 1, num_points=4)
    assert found == pytest.approx({
        "total_persistence": 1.0,
        "max_persistence": 2.0,
        "log_ratio_max": np.log(3.5 / 1.5),
        "num_bars": 0.75,
        "betti_peak": 0.5,  # at t = 2 the first bar dies as the third is born
        "persistence_entropy": 1.5 * np.log(2) / np.log(3),
    })


def test_octagon_as_a_cloud() -> None:
    # Chords 2 sin(pi k / 8): 8 each of k = 1, 2, 3 and 4 diameters; the median is k = 2.
    median = 2 * np.sin(np.pi / 4)
    birth, death = 2 * np.sin(np.pi / 8) / median, 2 * np.sin(3 * np.pi / 8) / median
    found = persistence(
        cloud_of(polygon(8) + 5), rng=np.random.default_rng(0), num_points=8, num_subsamples=1
    )
    assert found.values["total_persistence_0"].value == pytest.approx(7 / 8 * birth)
    assert found.values["max_persistence_1"].value == pytest.approx(death - birth)
    assert found.values["log_ratio_max_1"].value == pytest.approx(np.log(death / birth))
    t = found.curves["betti_1"].x
    inside = (t > birth) & (t < death)
    assert np.array_equal(found.curves["betti_1"].y, inside.astype(float))
    assert np.array_equal(found.curves["betti_0"].y, np.where(t < birth, 8.0, 1.0))
    euler = found.curves["betti_0"].y - found.curves["betti_1"].y
    assert np.array_equal(found.curves["euler_truncated"].y, euler)
