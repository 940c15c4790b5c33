"""Critical exponents of systems where they are known."""

import numpy as np
import pytest

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.renormalization import critical_exponents
from scaleinv_ray.records import Activations
from tests.truths.ising import CRITICAL_TEMPERATURE, sample_ising


def measure(x_SPN: np.ndarray) -> Measured:
    num_sequences, num_positions, num_units = x_SPN.shape
    stream = Activations(
        x_TD=x_SPN.reshape(-1, num_units),
        sequence_T=np.repeat(np.arange(num_sequences), num_positions),
        position_T=np.tile(np.arange(num_positions), num_sequences),
    )
    return critical_exponents(stream, rng=np.random.default_rng(0), skip_positions=0)


def number(measured: Measured, name: str) -> float:
    value = measured.values[name]
    assert isinstance(value, Estimate), value
    return value.value


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def power_law_field(exponent: float, num_units: int, *, num_sequences: int = 60) -> np.ndarray:
    """A Gaussian field on a ring with spectrum S(k) = k^-exponent and no uniform mode."""
    wave = np.arange(num_units // 2 + 1, dtype=np.float64)
    amplitude = np.concatenate([[0.0], wave[1:] ** (-exponent / 2)])
    white = np.fft.rfft(normal(5, num_sequences, num_units, num_units), axis=-1)
    return np.fft.irfft(white * amplitude, n=num_units, axis=-1)


def test_independent_gaussian_units() -> None:
    measured = measure(normal(0, 60, 128, 128))  # T/N = 60
    assert number(measured, "alpha_tilde") == pytest.approx(1, abs=0.03)  # greedy choice: 1.02
    assert number(measured, "mu") == pytest.approx(0, abs=0.08)
    assert number(measured, "alpha_tilde_rotated") == pytest.approx(1, abs=0.03)
    assert isinstance(measured.values["beta_tilde"], Refused)


def test_independent_sparse_units() -> None:
    active = (np.random.default_rng(1).random((60, 128, 128)) < 0.05).astype(np.float32)
    measured = measure(active)
    assert number(measured, "alpha_tilde") == pytest.approx(1, abs=0.04)
    assert number(measured, "mu") == pytest.approx(0, abs=0.09)
    # pairs chosen for coincidences are silent a little more often than independent ones
    assert number(measured, "beta_tilde") == pytest.approx(1, abs=0.03)


def test_silence_of_units_that_fire_together() -> None:
    active = np.random.default_rng(2).random((60, 128, 1)) < 0.05
    measured = measure(active * np.exp(0.3 * normal(2, 60, 128, 128)))
    assert number(measured, "beta_tilde") == pytest.approx(0, abs=1e-9)


def test_one_common_factor() -> None:
    x = np.sqrt(0.5) * (normal(3, 60, 128, 128) + normal(4, 60, 128, 1))
    flow = measure(x).curves["variance_flow"]
    size = flow.x
    np.testing.assert_allclose(flow.y, size * 0.5 + 0.5 * size**2, rtol=0.02)


def test_heterogeneous_scales_leave_the_correlation_spectrum_flat() -> None:
    scale = np.exp(np.random.default_rng(6).standard_normal(128))
    assert number(measure(normal(7, 60, 128, 128) * scale), "mu") == pytest.approx(0, abs=0.08)


@pytest.mark.parametrize(("exponent", "alpha"), [(0.3, 1.13), (0.5, 1.27), (0.7, 1.40)])
def test_gaussian_field_spectrum(exponent: float, alpha: float) -> None:
    measured = measure(power_law_field(exponent, 128))
    # a reference at N = 128, not a truth: 1 + a for infinite N
    assert number(measured, "alpha_tilde") == pytest.approx(alpha, abs=0.05)
    # mu is the exponent of the spectrum up to the coarse ranks of clusters of 16 and 32 units
    assert number(measured, "mu") == pytest.approx(exponent, abs=0.15)
    # missing uniform mode: alpha_tilde stays below 1 + a at finite N
    assert -0.45 < number(measured, "consistency") < -0.1


def test_the_same_memory_in_every_unit_has_no_dynamic_exponent() -> None:
    x = normal(8, 60, 128, 128)
    for position in range(1, 128):
        x[:, position] = 0.7 * x[:, position - 1] + np.sqrt(1 - 0.7**2) * x[:, position]
    measured = measure(x)
    assert number(measured, "z_tilde") == pytest.approx(0, abs=0.05)


def test_memory_that_grows_with_scale_has_a_positive_dynamic_exponent() -> None:
    # a slow mode shared by all, under fast private noise: sums see ever more of the slow mode
    slow = normal(9, 60, 128, 1)
    for position in range(1, 128):
        slow[:, position] = 0.9 * slow[:, position - 1] + np.sqrt(1 - 0.9**2) * slow[:, position]
    fast = normal(10, 60, 128, 128)
    for position in range(1, 128):
        fast[:, position] = 0.4 * fast[:, position - 1] + np.sqrt(1 - 0.16) * fast[:, position]
    assert number(measure(0.4 * slow + fast), "z_tilde") > 0.3


def test_critical_ising_model() -> None:
    spin = sample_ising(
        16, CRITICAL_TEMPERATURE, num_chains=50, num_sweeps=300, rng=np.random.default_rng(11)
    )
    measured = measure(spin)
    # exact 1.875 and .875 (eta = 1/4, d = 2); L = 16 leaves 1.869 and .83 over three seeds
    assert number(measured, "alpha_tilde") == pytest.approx(1.875, abs=0.02)
    assert number(measured, "mu") == pytest.approx(0.875, abs=0.07)


def test_disordered_ising_model_flows_to_independence() -> None:
    spin = sample_ising(8, 5.0, num_chains=32, num_sweeps=150, rng=np.random.default_rng(12))
    flow = measure(spin).curves["variance_flow"]
    local = np.diff(np.log2(flow.y))  # the correlation length is .8 sites
    assert local[-1] == pytest.approx(1, abs=0.35)
    assert (np.diff(local) < 0.05).all()


def test_sampler_has_the_moments_of_all_states() -> None:
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    state = (2.0 * bits - 1).reshape(-1, 4, 4)

    def energy(spin: np.ndarray) -> np.ndarray:
        pairs = spin * np.roll(spin, 1, axis=1) + spin * np.roll(spin, 1, axis=2)
        return -pairs.mean(axis=(1, 2))

    weight = np.exp(-(energy(state) + 2) * 16 / 2.5)
    rng = np.random.default_rng(13)
    sample = sample_ising(4, 2.5, num_chains=200, num_sweeps=100, rng=rng).astype(np.float64)
    sample = sample.reshape(-1, 4, 4)
    for moment in (energy, lambda spin: spin.mean(axis=(1, 2)) ** 2):
        exact = np.average(moment(state), weights=weight)
        got = moment(sample).reshape(200, 100).mean(axis=1)
        assert got.mean() == pytest.approx(exact, abs=4 * got.std(ddof=1) / np.sqrt(200))


@pytest.mark.slow
def test_critical_ising_model_at_32() -> None:
    spin = sample_ising(
        32, CRITICAL_TEMPERATURE, num_chains=64, num_sweeps=800, rng=np.random.default_rng(14)
    )
    measured = measure(spin)
    assert number(measured, "alpha_tilde") == pytest.approx(1.875, abs=0.01)
    assert number(measured, "mu") == pytest.approx(0.875, abs=0.03)
