"""Modes over depth of systems with known eigenvalues."""

import numpy as np
import pytest

from scaleinv_ray.contract import Measured
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import depth_modes
from scaleinv_ray.invariants.holomorphy.dynamic_modes import depth_sums, fit_modes
from scaleinv_ray.records import DepthStack

MODES = np.array([0.9 * np.exp(-0.3j), 0.9 * np.exp(0.3j), 0.95])


def three_modes(depth: int, *, noise: float, seed: int, rows: int = 200, width: int = 8):
    """Rows in a random three-dimensional subspace under a linear map with the eigenvalues MODES."""
    rng = np.random.default_rng(seed)
    cosine, sine = 0.9 * np.cos(0.3), 0.9 * np.sin(0.3)
    map_RR = np.array([[0.95, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    basis_DR = np.linalg.qr(rng.standard_normal((width, 3)))[0]
    rows_TR = rng.standard_normal((rows, 3))
    layers = []
    for _ in range(depth + 1):
        layers.append(rows_TR @ basis_DR.T + noise * rng.standard_normal((rows, width)))
        rows_TR = rows_TR @ map_RR.T
    return np.array(layers)


def error(x_LTD: np.ndarray) -> float:
    found = np.sort_complex(fit_modes([depth_sums(x_LTD)], rank=3).eigenvalue_R)
    return float(abs(found - np.sort_complex(MODES)).max())


def modes(x_LTD: np.ndarray, *, rank: int) -> Measured:
    stack = DepthStack(x_LTD=x_LTD, sequence_T=np.arange(x_LTD.shape[1]))
    return depth_modes(stack, rng=np.random.default_rng(0), rank=rank, near_radius=0.1)


def number(measured: Measured, name: str) -> float:
    value = measured.values[name]
    assert isinstance(value, Estimate), value
    return value.value


@pytest.mark.parametrize("depth", [3, 7, 25])
def test_three_modes_without_noise(depth: int) -> None:
    # measured 4e-16 for a single trajectory and up to 9e-16 for pooled rows
    assert error(three_modes(depth, noise=0.0, seed=0)) < 1e-14


@pytest.mark.parametrize(("depth", "allowed"), [(7, 1.3e-2), (13, 4.4e-3), (25, 2.9e-3)])
def test_three_modes_with_noise_of_one_per_cent(depth: int, allowed: float) -> None:
    # a single trajectory reaches `allowed`; pooled rows do better, down to the attenuation by noise
    errors = [error(three_modes(depth, noise=1e-2, seed=seed)) for seed in range(10)]
    assert max(errors) < allowed / 2


def test_noise_in_the_rows_attenuates_the_modes() -> None:
    # errors in variables: one mode of modulus .8 over two depths, var 1 and .64, noise var .09
    rng = np.random.default_rng(1)
    start = rng.standard_normal((40_000, 1))
    layers = np.array([0.8**depth * start for depth in range(3)])
    noisy = layers + 0.3 * rng.standard_normal(layers.shape)
    expected = 0.8 * (1 + 0.64) / (1 + 0.64 + 2 * 0.09)
    found = fit_modes([depth_sums(noisy)], rank=1).eigenvalue_R[0].real
    assert found == pytest.approx(expected, abs=4 * 0.3 / np.sqrt(80_000))


def test_depth_modes_of_an_exact_map() -> None:
    measured = modes(three_modes(5, noise=0.0, seed=2) + 7.0, rank=3)
    assert number(measured, "prediction_error") < 1e-7
    assert number(measured, "error_ratio") < 1e-6
    assert number(measured, "spectral_radius") == pytest.approx(0.95, abs=1e-12)
    assert number(measured, "inside_unit") == 1
    assert number(measured, "near_one") == pytest.approx(1 / 3)
    np.testing.assert_allclose(measured.curves["moduli"].y, [0.95, 0.9, 0.9], atol=1e-12)
    assert measured.flags["energy"] == pytest.approx(1)


def test_a_bias_of_the_layers_is_no_mode() -> None:
    x_LTD = three_modes(6, noise=1e-3, seed=3)
    shifted = x_LTD + np.random.default_rng(4).standard_normal((7, 1, 8)) * 50
    for name in ("spectral_radius", "prediction_error"):
        assert number(modes(shifted, rank=3), name) == pytest.approx(
            number(modes(x_LTD, rank=3), name), rel=1e-6
        )


def test_random_walk_is_as_well_predicted_by_the_identity() -> None:
    rng = np.random.default_rng(5)
    steps = (
        rng.standard_normal((6, 1000, 4)) * np.array([1, 0.3, 0.3, 0.3, 0.3, 0.3])[:, None, None]
    )
    measured = modes(np.cumsum(steps, axis=0), rank=4)
    assert number(measured, "error_ratio") == pytest.approx(1, abs=0.01)
    # the step is .3 of 1, 1.09, ..: sqrt(5 * .09 / sum of 1.09 .. 1.45)
    assert number(measured, "identity_error") == pytest.approx(np.sqrt(0.45 / 6.35), rel=0.03)
    assert number(measured, "near_one") == 1
    radius = measured.values["spectral_radius"]
    assert isinstance(radius, Estimate)
    assert radius.stderr is not None
    assert radius.value == pytest.approx(1, abs=5 * radius.stderr + 0.01)
