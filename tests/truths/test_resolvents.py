"""Poles and residues of matrices where they are known."""

import numpy as np
import pytest
from scipy.stats import gamma, ortho_group

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import (
    contour_count,
    deflate,
    residue_norms,
    residue_overlap,
    resolvent_counts,
)
from scaleinv_ray.records import Jacobians


def counts(j_TDD: np.ndarray, *, near_radius: float = 0.1, **labels: object) -> Measured:
    jacobians = Jacobians(j_TDD=j_TDD, **labels)
    return resolvent_counts(jacobians, rng=np.random.default_rng(0), near_radius=near_radius)


def number(measured: Measured, name: str) -> float:
    value = measured.values[name]
    assert isinstance(value, Estimate), value
    return value.value


def ginibre(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])


def radius_with(distances: np.ndarray, num_inside: int) -> float:
    """A circle in the middle of the gap beyond the `num_inside` nearest points."""
    distances = np.sort(distances)
    return float(distances[num_inside - 1 : num_inside + 1].mean())


@pytest.mark.parametrize("num_inside", [9, 17, 37])
def test_contour_integral_counts_the_eigenvalues_of_a_ginibre_matrix(num_inside: int) -> None:
    # of a few matrices the one whose gap is widest, since eigenvalues near the circle blur counts
    matrices = [ginibre(seed, 60, 60) for seed in range(20)]
    radii = [radius_with(abs(np.linalg.eigvals(a)), num_inside) for a in matrices]
    distances = [
        abs(abs(np.linalg.eigvals(a)) / r - 1).min() for a, r in zip(matrices, radii, strict=True)
    ]
    best = int(np.argmax(distances))
    a, radius, nearest = matrices[best], radii[best], distances[best]
    integral = contour_count(a, center=0.0, radius=radius)
    # the nearest eigenvalues, a conjugate pair on each side, set the error of the 256 nodes
    tolerance = 1e-9 + 8 * np.exp(-256 * nearest / (1 + nearest))
    assert tolerance < 0.3
    assert integral == pytest.approx(num_inside, abs=tolerance)
    assert number(counts(a[None] / radius), "count_inside_unit") * 60 == pytest.approx(num_inside)


def test_contour_integral_close_to_eigenvalues_is_the_trapezoid_sum() -> None:
    a = ginibre(1, 60, 60)
    w = np.linalg.eigvals(a) / 0.8
    expected = (1 / (1 - w**256)).sum().real
    assert contour_count(a, center=0.0, radius=0.8) == pytest.approx(expected, abs=1e-8)
    assert abs(expected - round(expected)) > 0.01


def test_contour_around_one_agrees_with_the_count_near_one() -> None:
    a = np.eye(40) + 0.3 * ginibre(2, 40, 40)
    distances = np.sort(abs(np.linalg.eigvals(a) - 1))
    num_inside = 8 + int(np.argmax(np.diff(distances)[7:14]))  # the widest gap between circles
    radius = radius_with(distances, num_inside)
    near = number(counts(a[None], near_radius=radius), "count_near_one") * 40
    assert near == pytest.approx(num_inside)
    integral = contour_count(a, center=1.0, radius=radius, nodes=1024)
    assert integral == pytest.approx(num_inside, abs=0.01)


def test_ginibre_fills_the_disk_uniformly() -> None:
    j = np.eye(64) + 0.5 * ginibre(3, 40, 64, 64)
    measured = counts(j, near_radius=0.25)
    near = measured.values["count_near_one"]
    assert isinstance(near, Estimate)
    assert near.stderr is not None
    # |lambda - 1| < .25 is a quarter of the disk of radius .5; 1/D from real eigenvalues
    assert near.value == pytest.approx(0.25, abs=4 * near.stderr + 1 / 64)
    assert near.value == pytest.approx(number(measured, "count_near_one_null"), abs=0.02)


def test_planted_mean_mode_is_deflated() -> None:
    values = np.array([1.0, 0.2, 0.5, 0.7, 1.4, -0.3])
    right = np.column_stack([np.ones(6), np.random.default_rng(4).standard_normal((6, 5))])
    a = right @ np.diag(values) @ np.linalg.inv(right)
    rest = np.sort(np.linalg.eigvals(deflate(a, np.ones((6, 1)))).real)
    np.testing.assert_allclose(rest, np.sort(values[1:]), atol=1e-10)
    measured = counts(a[None], removes_mean=True)
    assert measured.flags["structural_modes"] == 1
    assert number(measured, "count_near_one") == 0
    assert number(measured, "count_inside_unit") == pytest.approx(4 / 5)
    assert number(measured, "spectral_radius") == pytest.approx(1.4)


def test_mean_and_parallel_mode_are_deflated_together() -> None:
    values = np.array([1.0, 1.0, 0.5, 0.7, 1.4, -0.3])
    right = np.column_stack([np.ones(6), np.random.default_rng(5).standard_normal((6, 5))])
    a = right @ np.diag(values) @ np.linalg.inv(right)
    measured = counts(a[None], removes_mean=True, parallel_residual=True, h_TD=right[None, :, 1])
    assert measured.flags["structural_modes"] == 2
    assert number(measured, "count_near_one") == 0
    assert number(measured, "count_inside_unit") == pytest.approx(3 / 4)


def test_orthogonal_matrix_has_its_poles_on_the_circle() -> None:
    measured = counts(ortho_group.rvs(20, random_state=6)[None])
    assert number(measured, "spectral_radius") == pytest.approx(1, abs=1e-12)
    assert measured.flags["at_unit_circle"] == 20
    assert number(measured, "henrici") == pytest.approx(0, abs=1e-6)


def test_normal_matrix() -> None:
    rotation = ortho_group.rvs(12, random_state=7)
    blocks = np.kron(np.diag(np.arange(1.0, 7.0)), [[1.0, -0.5], [0.5, 1.0]])
    normal = (rotation @ blocks @ rotation.T)[None]
    assert number(counts(normal), "henrici") == pytest.approx(0, abs=1e-6)
    measured = residue_overlap(Jacobians(j_TDD=normal), rng=np.random.default_rng(0))
    assert number(measured, "overlap_complex") == pytest.approx(1 / 12)
    assert isinstance(measured.values["overlap_real"], Refused)


def test_henrici_of_a_nilpotent_matrix_is_one() -> None:
    nilpotent = np.diag(np.ones(3), k=1)[None]
    assert number(counts(nilpotent), "henrici") == pytest.approx(1)


def test_residues_are_projectors() -> None:
    a = ginibre(8, 20, 20)
    pole, right = np.linalg.eig(a)
    projector = right[:, :1] @ np.linalg.inv(right)[:1]
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
    assert np.trace(projector) == pytest.approx(1)
    poles, norms = residue_norms(a[None])
    assert poles[0, 0] == pole[0]
    assert norms[0, 0] == pytest.approx(np.linalg.norm(projector) ** 2)


def test_chalker_mehlig() -> None:
    rng = np.random.default_rng(9)
    size = 64
    a = (rng.standard_normal((60, size, size)) + 1j * rng.standard_normal((60, size, size))) / (
        np.sqrt(2 * size)
    )
    pole, norm = residue_norms(a)
    inner = abs(pole) < 0.5
    scaled = norm[inner] / size / (1 - abs(pole[inner]) ** 2)
    # O/N = (1 - |z|^2) / Gamma(2); matrices are the replicates of the median
    rows = np.nonzero(inner)[0]
    medians = [np.median(scaled[rows % 10 == k]) for k in range(10)]
    stderr = np.std(medians, ddof=1) / np.sqrt(10)
    assert np.median(scaled) == pytest.approx(1 / gamma(2).median(), abs=3 * stderr + 0.02)
    assert stderr < 0.05


@pytest.mark.parametrize("seed", [None, 10])
def test_jordan_block_is_refused(seed: int | None) -> None:
    a = np.diag([0.5, 0.5, 0.2, 0.9, 1.3]) + np.diag([1.0, 0, 0, 0], k=1)
    if seed is not None:
        basis = np.random.default_rng(seed).standard_normal((5, 5))
        a = basis @ a @ np.linalg.inv(basis)
    with pytest.raises(Refused, match="defective"):
        residue_overlap(Jacobians(j_TDD=a[None]), rng=np.random.default_rng(0))
    assert number(counts(a[None]), "count_inside_unit") == pytest.approx(4 / 5)
