"""Poles, residues and branch points of Stieltjes transforms where they are known."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import covariance_poles, stieltjes_poles
from scaleinv_ray.invariants.holomorphy.rational import branch_points, fit_poles, stieltjes
from scaleinv_ray.records import Moments, WeightMatrix

POLES = np.array([0.4, 1.1, 2.5])
RESIDUES = np.array([0.3, -0.7, 1.2])


def transfer(z: np.ndarray) -> np.ndarray:
    return (RESIDUES / (z[:, None] - POLES)).sum(axis=1)


def around() -> np.ndarray:
    """Points on both sides of the real axis, half a unit off."""
    x_K = np.linspace(-0.5, 3.5, 50)
    return np.concatenate([x_K + 0.5j, x_K - 0.5j])


def marchenko_pastur(z: complex, ratio: float) -> complex:
    """q z m^2 + (z + q - 1) m + 1 = 0, the root that decays as -1/z."""
    roots = np.roots([ratio * z, z + ratio - 1, 1])
    return complex(roots[np.argmax(roots.imag * z.imag)] if z.imag else roots[abs(roots).argmin()])


def noise(num_small: int, num_large: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_small, num_large))


def poles(w_OI: np.ndarray) -> Measured:
    return stieltjes_poles(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))


def number(measured: Measured, name: str) -> float:
    value = measured.values[name]
    assert isinstance(value, Estimate), value
    return value.value


def test_three_poles_without_noise() -> None:
    found = fit_poles(around(), transfer(around()), rtol=1e-13)
    order = found.at_P.real.argsort()
    # measured 2e-15 and 1e-14
    np.testing.assert_allclose(found.at_P[order], POLES, atol=1e-13)
    np.testing.assert_allclose(found.residue_P[order], RESIDUES, atol=5e-13)


@pytest.mark.parametrize("seed", range(5))
def test_three_poles_with_noise_take_a_tolerance_of_three_sigma(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_K = around()
    sigma = 1e-3
    f_K = (
        transfer(z_K) + sigma * (rng.standard_normal(100) + 1j * rng.standard_normal(100)) / 2**0.5
    )
    found = fit_poles(z_K, f_K, rtol=3 * sigma / abs(f_K).max())
    strong = abs(found.residue_P) > 0.1
    assert strong.sum() == 3
    assert np.sort(found.at_P[strong].real) == pytest.approx(POLES, abs=7e-3)
    assert len(fit_poles(z_K, f_K, rtol=1e-13).at_P) > 30  # what no tolerance leads to


@pytest.mark.parametrize(("ratio", "exact"), [(0.25, 0.531129), (1.0, 0.618034)])
def test_marchenko_pastur_at_minus_one(ratio: float, exact: float) -> None:
    assert marchenko_pastur(-1.0, ratio).real == pytest.approx(exact, abs=1e-6)
    num_small = 400
    w = noise(num_small, round(num_small / ratio), 0)
    lambda_M = np.linalg.eigvalsh(w @ w.T / w.shape[1])
    # linear statistics fluctuate as 1/M = 2.5e-3: measured .53125 and .61851
    assert stieltjes(lambda_M, np.array([-1.0]))[0].real == pytest.approx(exact, abs=4e-3)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_poles_of_the_marchenko_pastur_law_weigh_one_together(ratio: float) -> None:
    x_K = np.linspace(-1, 6, 100)
    z_K = np.concatenate([x_K + 1j, x_K - 1j])
    m_K = np.array([marchenko_pastur(z, ratio) for z in z_K])
    found = fit_poles(z_K, m_K, rtol=1e-8)
    assert found.residue_P.sum() == pytest.approx(-1, abs=1e-6)
    # they line the cut between the branch points (1 -+ sqrt q)^2
    assert found.at_P.real.min() > (1 - math.sqrt(ratio)) ** 2 - 0.01
    assert found.at_P.real.max() < (1 + math.sqrt(ratio)) ** 2 + 0.01


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_branch_points_of_the_marchenko_pastur_law(ratio: float) -> None:
    root = math.sqrt(ratio)
    low, high = (1 - root) ** 2, (1 + root) ** 2

    def distribution(x: float) -> float:
        return quad(
            lambda y: math.sqrt((high - y) * (y - low)) / (2 * math.pi * ratio * y), low, x
        )[0]

    grid = low + (high - low) * np.sin(np.linspace(0, math.pi / 2, 400)) ** 2
    quantiles = np.interp((np.arange(2000) + 0.5) / 2000, [distribution(x) for x in grid], grid)
    edges = branch_points(quantiles)
    assert edges.lower == pytest.approx(low, rel=0.01)
    assert edges.upper == pytest.approx(high, rel=0.01)


def test_noise_has_no_isolated_pole_and_the_edges_of_its_law() -> None:
    for seed in range(3):
        measured = poles(noise(100, 400, seed))
        assert number(measured, "isolated_poles") == 0
        assert isinstance(measured.values["leading_over_edge"], Refused)
        # (1 -+ .5)^2 over the median .9115; edges fluctuate as M^(-2/3) = .05
        assert number(measured, "edge_upper") == pytest.approx(2.468, abs=0.15)
        assert number(measured, "edge_lower") == pytest.approx(0.274, abs=0.05)
        assert number(measured, "residue_sum") == pytest.approx(-1, abs=5e-3)


def test_square_noise_has_no_lower_edge() -> None:
    measured = poles(noise(150, 150, 0))
    assert isinstance(measured.values["edge_lower"], Refused)
    # 4 over the median .6528 of the law with q = 1
    assert number(measured, "edge_upper") == pytest.approx(6.13, abs=0.4)
    assert number(measured, "isolated_poles") == 0


def test_spikes_are_the_isolated_poles() -> None:
    w = noise(200, 800, 1)
    w[:3] *= np.sqrt(1 + np.array([[3.0], [6.0], [12.0]]))
    measured = poles(w)
    assert number(measured, "isolated_poles") == 3
    # Baik, Ben Arous & Peche: (1 + theta)(1 + q / theta) = 13.27 over the edge 2.25
    leading = measured.values["leading_over_edge"]
    assert isinstance(leading, Estimate)
    assert leading.stderr is not None
    # sd of the largest eigenvalue: l sqrt(2 / N) = 5 %
    assert leading.value == pytest.approx(13 * (1 + 0.25 / 12) / 2.25, rel=0.15)
    assert 0.02 < leading.stderr / leading.value < 0.10
    assert number(measured, "leading_weight") == pytest.approx(1, abs=0.1)
    assert number(measured, "residue_sum") == pytest.approx(-1, abs=1e-3)


def test_spike_below_the_transition_is_no_pole() -> None:
    w = noise(200, 800, 2)
    w[0] *= np.sqrt(1 + 0.3)  # theta < sqrt q = .5 stays in the bulk
    assert number(poles(w), "isolated_poles") == 0


def test_covariance_poles_of_a_spiked_population() -> None:
    rng = np.random.default_rng(3)
    blocks, tokens, width = 8, 400, 64
    scale = np.concatenate([[20.0, 9.0], np.linspace(0.6, 1.4, width - 2)])
    x_BTD = rng.standard_normal((blocks, tokens, width)) * np.sqrt(scale) + 3.0
    second = np.einsum("bti,btj->bij", x_BTD, x_BTD) / tokens
    measured = covariance_poles(
        Moments(count_B=np.full(blocks, tokens), mean_BD=x_BTD.mean(axis=1), second_BDD=second),
        rng=np.random.default_rng(0),
    )
    assert number(measured, "isolated_poles") == 2
    leading, edge = number(measured, "leading_over_edge"), number(measured, "edge_upper")
    covariance = np.cov(x_BTD.reshape(-1, width).T, bias=True)
    eigenvalue = np.linalg.eigvalsh(covariance)
    assert leading * edge == pytest.approx(eigenvalue[-1] / np.median(eigenvalue), rel=1e-6)
    assert edge == pytest.approx(eigenvalue[-3] / np.median(eigenvalue), rel=0.1)
