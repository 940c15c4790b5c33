"""Poles and residues of matrices where they are known."""

import numpy as np
import pytest
from scipy.stats import gamma, ortho_group

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import logit_residues, residue_overlap, resolvent_counts
from scaleinv_ray.invariants.holomorphy.resolvents import (
    deflated_jacobians,
    eigensystem,
    residue_norms,
)
from scaleinv_ray.invariants.holomorphy.transfer_function import logit_poles
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


def contour_count(a_DD: np.ndarray, *, center: complex, radius: float, nodes: int = 256) -> float:
    """Eigenvalues inside a circle: (1 / 2 pi i) contour-integral tr (z - A)^-1 dz, trapezoid rule.

    It gives sum_i 1 / (1 - w_i^nodes), w_i = (lambda_i - center) / radius: an integer but for
    eigenvalues close to the circle (Trefethen & Weideman, SIAM Rev. 56:385, 2014).
    """
    offset = radius * np.exp(2j * np.pi * np.arange(nodes) / nodes)
    shifted = (center + offset)[:, None, None] * np.eye(len(a_DD)) - a_DD
    trace = np.trace(np.linalg.inv(shifted), axis1=1, axis2=2)
    return float((offset * trace).mean().real)


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
    (rest_EE,) = deflated_jacobians(Jacobians(j_TDD=a[None], removes_mean=True)).j_TEE
    rest = np.sort(np.linalg.eigvals(rest_EE).real)
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


@pytest.mark.parametrize("imaginary", [0.0, 1.0])
def test_residues_are_projectors(imaginary: float) -> None:
    a = ginibre(8, 20, 20) + 1j * imaginary * ginibre(9, 20, 20)
    a = a if imaginary else a.real
    system = eigensystem(a)
    assert system.left_DD is not None
    projectors = system.right_DD.T[:, :, None] * system.left_DD[:, None, :]
    # measured 7e-16 for P^2 = P and tr P = 1 of one well conditioned projector
    np.testing.assert_allclose(projectors @ projectors, projectors, atol=1e-12)
    np.testing.assert_allclose(np.trace(projectors, axis1=1, axis2=2), 1, atol=1e-12)
    np.testing.assert_allclose(projectors.sum(axis=0), np.eye(20), atol=1e-12)
    resolvent = np.linalg.inv((2 + 1j) * np.eye(20) - a)
    sum_of_poles = (projectors / (2 + 1j - system.pole_D)[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(sum_of_poles, resolvent, atol=1e-12)
    poles, norms = residue_norms(a[None])
    np.testing.assert_array_equal(poles[0], system.pole_D)
    np.testing.assert_allclose(norms[0], (abs(projectors) ** 2).sum(axis=(1, 2)))


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


def test_overlap_of_ginibre_jacobians_is_their_null() -> None:
    measured = residue_overlap(
        Jacobians(j_TDD=np.eye(64) + 0.1 * ginibre(11, 60, 64, 64)), rng=np.random.default_rng(0)
    )
    for name in ("overlap_complex", "overlap_real"):
        value, null = measured.values[name], measured.values[f"{name}_null"]
        assert isinstance(value, Estimate)
        assert isinstance(null, Estimate)
        assert value.stderr is not None
        assert null.stderr is not None
        assert value.value == pytest.approx(null.value, abs=4 * np.hypot(value.stderr, null.stderr))


def logit(j_TDD: np.ndarray, u_VD: np.ndarray, e_TD: np.ndarray, **labels: object) -> Measured:
    record = Jacobians(j_TDD=j_TDD, u_VD=u_VD, e_TD=e_TD, **labels)
    return logit_residues(record, rng=np.random.default_rng(0))


def test_residues_of_a_known_transfer_function() -> None:
    # diagonal in the basis S: r_i = (u . S_i)(S^-1 v)_i
    rng = np.random.default_rng(12)
    s = rng.standard_normal((4, 4))
    poles, residues = np.array([0.5, 0.9, 1.2, -0.4]), np.array([1.0, -2.0, 6.0, 3.0])
    a, u, v = s @ np.diag(poles) @ np.linalg.inv(s), residues @ np.linalg.inv(s), s @ np.ones(4)
    measured = logit(a[None], u[None], v[None])
    expected = {
        "participation": 12**2 / 50 / 4,
        "leading_share": 6 / 12,
        "leading_residue": 6 / 8,
        "leading_real": 1.2,
        "leading_imag": 0,
        "leading_abs": 1.2,
        "leading_distance": 0.2,
        "leading_distance_scaled": 0.2 / np.sqrt(((poles - 1) ** 2).mean()),
    }
    for name, value in expected.items():
        assert number(measured, name) == pytest.approx(value, abs=1e-12), name


def test_leading_pole_of_a_pair_is_the_upper_one() -> None:
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    measured = logit(rotation[None], np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert number(measured, "leading_real") == pytest.approx(0.6)
    assert number(measured, "leading_imag") == pytest.approx(0.8)
    assert number(measured, "leading_abs") == pytest.approx(1)
    assert number(measured, "participation") == pytest.approx(1)


def test_residues_sum_to_the_product_of_both_ends() -> None:
    rng = np.random.default_rng(13)
    a, u, v = ginibre(14, 30, 30), rng.standard_normal((5, 30)), rng.standard_normal(30)
    system = eigensystem(a)
    assert system.left_DD is not None
    total = ((u @ system.right_DD) * (system.left_DD @ v)).sum(axis=1)
    np.testing.assert_allclose(total, u @ v, atol=1e-11)
    found = logit_poles(a, u, v)
    np.testing.assert_allclose(
        found.ratio_V * abs(u @ v) / found.share_V,
        abs((u @ system.right_DD) * (system.left_DD @ v)).sum(axis=1),
    )


def test_residues_of_random_ends_and_a_ginibre_matrix_are_their_null() -> None:
    rng = np.random.default_rng(15)
    measured = logit(
        np.eye(48) + 0.1 * ginibre(16, 40, 48, 48),
        rng.standard_normal((64, 48)),
        rng.standard_normal((40, 48)),
    )
    for name in ("participation", "leading_share"):
        value, null = measured.values[name], measured.values[f"{name}_null"]
        assert isinstance(value, Estimate)
        assert isinstance(null, Estimate)
        assert value.stderr is not None
        assert null.stderr is not None
        assert value.value == pytest.approx(null.value, abs=4 * np.hypot(value.stderr, null.stderr))


def test_a_structural_pole_is_no_leading_pole() -> None:
    values = np.array([1.0, 0.2, 0.5, 0.7, 1.4, -0.3])
    rng = np.random.default_rng(17)
    right = np.column_stack([np.ones(6), rng.standard_normal((6, 5))])
    a = right @ np.diag(values) @ np.linalg.inv(right)
    ends = rng.standard_normal((2, 6)) + 100.0  # almost along the structural mode
    bare = logit(a[None], ends[:1], ends[1:])
    assert number(bare, "leading_abs") == pytest.approx(1)
    measured = logit(a[None], ends[:1], ends[1:], removes_mean=True)
    assert min(abs(number(measured, "leading_real") - values[1:])) < 1e-9
    assert number(measured, "leading_share") < 1
