"""Triangulated surfaces and unions of balls whose homology and Euler characteristic are known."""

import itertools

import gudhi
import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.persistent_homology import (
    betti_difference,
    betti_numbers,
    rips_diagram,
)
from scaleinv_ray.invariants.topology import torsion_check
from scaleinv_ray.invariants.topology.alpha_complex import euler_curve
from scaleinv_ray.invariants.topology.shape import euler_characteristic
from scaleinv_ray.records import Activations


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


SURFACES = [
    # facets, Betti numbers over Z/2, over Z/3, Euler characteristic
    pytest.param(PROJECTIVE_PLANE, (1, 1, 1), (1, 0, 0), 1, id="projective_plane"),
    pytest.param(klein_bottle(), (1, 2, 1), (1, 1, 0), 0, id="klein_bottle"),
    pytest.param(TORUS_7, (1, 2, 1), (1, 2, 1), 0, id="torus"),
]


def cloud_of(x_TD: np.ndarray) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud")


@pytest.mark.parametrize(("facets", "over_2", "over_3", "euler"), SURFACES)
def test_surfaces_as_complexes(
    facets: list[tuple[int, ...]], over_2: tuple[int, ...], over_3: tuple[int, ...], euler: int
) -> None:
    tree = gudhi.SimplexTree()
    for facet in facets:
        tree.insert(facet)
    assert tree.euler_characteristic() == euler
    for field, betti in ((2, over_2), (3, over_3)):
        tree.compute_persistence(homology_coeff_field=field, persistence_dim_max=True)
        assert tuple(tree.betti_numbers()) == betti


@pytest.mark.parametrize(("facets", "over_2", "over_3", "euler"), SURFACES)
def test_surfaces_as_metric_spaces(
    facets: list[tuple[int, ...]], over_2: tuple[int, ...], over_3: tuple[int, ...], euler: int
) -> None:
    distance_PP = barycentric_distances(facets)
    diagrams = [rips_diagram(distance_PP, max_dimension=2, field=p) for p in (2, 3)]
    betti = [[int(betti_numbers(d, k, np.ones(1))[0]) for k in range(3)] for d in diagrams]
    assert (tuple(betti[0]), tuple(betti[1])) == (over_2, over_3)
    assert over_2[0] - over_2[1] + over_2[2] == euler
    # Up to the cone at 2 nothing happens: the classes over Z/2 alone live from 1 to 2.
    for k in range(3):
        apart = over_2[k] - over_3[k]
        assert betti_difference(*diagrams, k) == (apart, apart)


def veronese(sphere_T3: np.ndarray) -> np.ndarray:
    """The projective plane in the 3 x 3 matrices: x -> x x^T, of unit vectors."""
    unit_T3 = sphere_T3 / np.linalg.norm(sphere_T3, axis=1, keepdims=True)
    return np.einsum("ti,tj->tij", unit_T3, unit_T3).reshape(-1, 9)


def test_torsion_of_clouds() -> None:
    sphere_T3 = np.random.default_rng(0).normal(size=(330, 3))
    noise = np.random.default_rng(1).normal(size=(330, 9))
    parameters = {"num_points": 150, "num_landmarks": 50, "max_dimension": 2}
    plane, noise = (
        torsion_check(cloud_of(x), rng=np.random.default_rng(0), **parameters)
        for x in (veronese(sphere_T3), noise)
    )
    for k in (1, 2):
        assert plane.values[f"torsion_rank_{k}"].samples == (1, 1)
        assert plane.values[f"torsion_length_{k}"].value > 0.2
        assert noise.values[f"torsion_rank_{k}"].value == 0
        assert noise.values[f"torsion_length_{k}"].value == 0


OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)])
CUBE = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))


@pytest.mark.parametrize(
    ("x_P3", "radius", "chi"),
    [
        # Edges, the circumscribed circles of the faces, the circumscribed sphere.
        (OCTAHEDRON, [0, np.sqrt(1 / 2), np.sqrt(2 / 3), 1], [6, -6, 2, 1]),
        (CUBE, [0, 1, np.sqrt(2), np.sqrt(3)], [8, -4, 2, 1]),
        (OCTAHEDRON[[0, 1, 3, 4], :2], [0, np.sqrt(1 / 2), 1], [4, 0, 1]),
    ],
    ids=["octahedron", "cube", "square"],
)
def test_euler_curves(x_P3: np.ndarray, radius: list[float], chi: list[int]) -> None:
    found = euler_curve(x_P3)
    assert found.radius_F == pytest.approx(np.array(radius), abs=1e-9)
    assert found.chi_F.tolist() == chi


def test_octahedron_as_a_cloud() -> None:
    # Turned in six dimensions; the median of its distances is sqrt 2: t = sqrt 2 r.
    frame, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    found = euler_characteristic(
        cloud_of(7 * OCTAHEDRON @ frame[:3] + 1), rng=np.random.default_rng(0),
        num_points=6, num_subsamples=1,
    )  # fmt: skip
    step = np.sqrt(2) * np.array([0, np.sqrt(1 / 2), np.sqrt(2 / 3), 1])
    values = {name: value.value for name, value in found.values.items()}
    assert values["euler_min"] == -1
    assert values["euler_max"] == pytest.approx(1 / 3)
    assert values["euler_integral"] == pytest.approx(np.diff(step) @ [5, -7, 1] / 6)
    curve = found.curves["euler"]
    assert curve.y[[0, 50, 99]].tolist() == [1, 1, 1]
    assert found.flags["eigenvalue_gap"] == pytest.approx(1)


def test_shells_and_rings_between_their_scales() -> None:
    # Balls of .3 about 400 points: a spherical shell has chi 2, a ring 0.
    rng = np.random.default_rng(3)
    shell = rng.normal(size=(400, 3))
    shell /= np.linalg.norm(shell, axis=1, keepdims=True)
    angle = 2 * np.pi * rng.random(400)
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    ring += 0.02 * rng.normal(size=ring.shape)
    for x_P3, chi in ((shell, 2), (ring, 0)):
        assert euler_curve(x_P3).at(0.3) == chi


def test_eigenvalues_too_near() -> None:
    x_TD = np.random.default_rng(4).normal(size=(300, 6))
    with pytest.raises(Refused, match=r"eigenvalues 3 and 4 are 0\.\d+ sampling errors apart"):
        euler_characteristic(cloud_of(x_TD), rng=np.random.default_rng(0), num_points=100)
    with pytest.raises(Refused, match="rows span 2 dimensions, needs 3"):
        flat = x_TD[:, :2] @ x_TD[:2]
        euler_characteristic(cloud_of(flat), rng=np.random.default_rng(0), num_points=100)
