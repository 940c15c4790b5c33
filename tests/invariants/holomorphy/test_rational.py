"""Behaviour of rational fits: tolerance, partners, what counts as spurious or isolated."""

import numpy as np
import pytest

from scaleinv_ray.invariants.holomorphy.rational import (
    MAX_TERMS,
    branch_points,
    fit_poles,
    isolated_poles,
    match,
    stieltjes,
)

X_K = np.linspace(-1, 4, 80)
Z_K = np.concatenate([X_K + 0.5j, X_K - 0.5j])


def test_a_tolerance_that_is_not_reached_is_told_and_warns_nothing() -> None:
    f_K = np.random.default_rng(0).standard_normal(len(Z_K)) + 0j
    found = fit_poles(Z_K, f_K, rtol=1e-14)
    assert not found.converged
    assert len(found.at_P) <= MAX_TERMS
    assert fit_poles(Z_K, 1 / (Z_K - 2), rtol=1e-10).converged


def test_partners_are_assigned_one_to_one() -> None:
    at_P = np.array([1.0, 1.2])
    both = match(at_P, np.array([1.1]), distance_P=np.full(2, 0.5))
    assert sorted(both.tolist()) == [-1, 0]
    none = match(at_P, np.zeros(0), distance_P=np.full(2, 0.5))
    assert none.tolist() == [-1, -1]
    crossed = match(at_P, np.array([1.25, 0.9]), distance_P=np.full(2, 0.5))
    assert crossed.tolist() == [1, 0]


def bulk(count: int) -> np.ndarray:
    """Quantiles of a semicircle of radius 1 about 2."""
    grid = np.linspace(-1, 1, 4001)
    distribution = np.cumsum(np.sqrt(1 - grid**2))
    levels = (np.arange(count) + 0.5) / count
    return 2 + np.interp(levels, distribution / distribution[-1], grid)


def test_eigenvalues_apart_from_the_bulk_are_isolated() -> None:
    lambda_M = np.concatenate([bulk(100), [5.0, 9.0]])
    rng = np.random.default_rng(0)
    jittered = [lambda_M * (1 + 0.01 * rng.standard_normal(102)) for _ in range(10)]
    found = isolated_poles(lambda_M, jittered)
    np.testing.assert_array_equal(found.at_P, [9.0, 5.0])
    np.testing.assert_allclose(found.weight_P, 1, atol=0.05)
    assert found.residue_sum == pytest.approx(-1, abs=1e-3)
    assert found.at_BP.shape == (10, 2)
    # partners are those of the jittered spikes, at the resolution of the fit
    spikes_BP = np.array([other_M[[101, 100]] for other_M in jittered])
    np.testing.assert_allclose(found.at_BP, spikes_BP, rtol=0.02)


def test_a_pole_that_resamples_lack_is_spurious() -> None:
    lambda_M = np.concatenate([bulk(100), [9.0]])
    rng = np.random.default_rng(1)
    jittered = [lambda_M * (1 + 0.01 * rng.standard_normal(101)) for _ in range(10)]
    for other_M in jittered[:2]:
        other_M[-1] = 2.0
    found = isolated_poles(lambda_M, jittered)
    assert len(found.at_P) == 0
    assert found.num_spurious >= 1
    kept = isolated_poles(lambda_M, [*jittered[1:], jittered[-1]])
    np.testing.assert_array_equal(kept.at_P, [9.0])


def test_a_double_eigenvalue_is_no_single_one() -> None:
    lambda_M = np.concatenate([bulk(100), [9.0, 9.0]])
    rng = np.random.default_rng(2)
    jittered = [lambda_M * (1 + 0.01 * rng.standard_normal(102)) for _ in range(10)]
    for other_M in jittered:
        other_M[-1] = other_M[-2]
    assert len(isolated_poles(lambda_M, jittered).at_P) == 0


def test_edges_of_a_semicircle() -> None:
    edges = branch_points(bulk(2000))
    assert edges.lower == pytest.approx(1, abs=0.02)
    assert edges.upper == pytest.approx(3, abs=0.02)


def test_a_hard_edge_at_zero_has_no_lower_branch_point() -> None:
    quarter_circle = 2 * np.sin(np.linspace(0, np.pi / 2, 1000))
    assert branch_points(quarter_circle**2 * 0.9 + 0.0).lower is None


def test_stieltjes_transform_of_a_mirror_image() -> None:
    z_K = np.array([0.3 + 1j, 2 - 0.1j])
    m_K = stieltjes(bulk(10), z_K)
    np.testing.assert_allclose(stieltjes(bulk(10), z_K.conj()), m_K.conj())
    assert m_K[0].imag > 0
