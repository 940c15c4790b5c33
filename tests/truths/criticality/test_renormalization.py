"""Critical exponents of systems where they are known."""

import numpy as np
import pytest

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.renormalization import (
    critical_exponents,
    depth_flow,
    kurtosis_flow,
    size_flow,
)
from scaleinv_ray.records import Activations, DepthStack
from tests.truths.criticality.ising import CRITICAL_TEMPERATURE, sample_ising


def stream(x_SPN: np.ndarray) -> Activations:
    num_sequences, num_positions, num_units = x_SPN.shape
    return Activations(
        x_TD=x_SPN.reshape(-1, num_units),
        sequence_T=np.repeat(np.arange(num_sequences), num_positions),
        position_T=np.tile(np.arange(num_positions), num_sequences),
    )


def measure(x_SPN: np.ndarray) -> Measured:
    return critical_exponents(stream(x_SPN), rng=np.random.default_rng(0), skip_positions=0)


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


def test_the_permuted_surrogate_is_independent() -> None:
    measured = measure(power_law_field(0.7, 128))
    assert number(measured, "alpha_tilde") > 1.3
    assert number(measured, "alpha_tilde_permuted") == pytest.approx(1, abs=0.03)
    assert number(measured, "mu_permuted") == pytest.approx(0, abs=0.08)


def test_ten_latents_imitate_a_critical_system() -> None:
    # ten latents without criticality: exponents like those of a field, and those of its surrogate
    loading = np.random.default_rng(15).standard_normal((10, 128)).astype(np.float32)
    latent = measure(0.5 * normal(16, 60, 128, 10) @ loading + normal(17, 60, 128, 128))
    assert number(latent, "alpha_tilde") == pytest.approx(1.44, abs=0.06)  # reference: 1.46
    assert number(latent, "mu") > 0.7  # reference: .8
    for name, tolerance in (("alpha_tilde", 0.04), ("mu", 0.12)):
        surrogate = number(latent, f"{name}_latent")
        assert surrogate == pytest.approx(number(latent, name), abs=tolerance)


def test_one_latent_factor_is_its_own_surrogate() -> None:
    measured = measure(normal(18, 60, 128, 128) + normal(19, 60, 128, 1))
    assert number(measured, "alpha_tilde") == pytest.approx(
        number(measured, "alpha_tilde_latent"), abs=0.01
    )
    # more factors than there are fit noise only
    assert number(measured, "mu_latent") == pytest.approx(number(measured, "mu"), abs=0.05)


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.7])
def test_consistency_of_a_field_is_that_of_its_surrogate(exponent: float) -> None:
    wave = np.arange(65)
    amplitude = np.maximum(wave, 1.0) ** (-exponent / 2)  # with a uniform mode
    white = np.fft.rfft(normal(20, 60, 128, 128), axis=-1)
    measured = measure(np.fft.irfft(white * amplitude, n=128, axis=-1))
    found = number(measured, "consistency")
    assert found < -0.08  # finite N, although the infinite system has 0
    assert found == pytest.approx(number(measured, "consistency_surrogate"), abs=0.08)


def flow_over_sizes(x_SPN: np.ndarray) -> Measured:
    return size_flow(stream(x_SPN), rng=np.random.default_rng(0), skip_positions=0)


def test_size_flow_of_independent_units_is_flat() -> None:
    measured = flow_over_sizes(normal(0, 60, 128, 128))
    # greedy choice and the noise of T/N = 60 are alike at every size but for the ranks fitted
    assert number(measured, "alpha_size_slope") == pytest.approx(0, abs=0.03)
    assert number(measured, "mu_size_slope") == pytest.approx(0, abs=0.05)
    assert number(measured, "alpha_tilde_smallest") == pytest.approx(1, abs=0.05)
    assert number(measured, "mu_smallest") == pytest.approx(0, abs=0.12)


def test_size_flow_of_one_common_factor() -> None:
    measured = flow_over_sizes(normal(3, 60, 128, 128) + normal(4, 60, 128, 1))
    alpha = measured.curves["alpha_by_size"]
    for size, found in zip((32, 16, 8), alpha.y, strict=True):  # K up to N/4: (K + K^2) / 2
        cluster = 2.0 ** np.arange(np.log2(size) + 1)
        exact = np.polyfit(np.log(cluster), np.log((cluster + cluster**2) / 2), 1)[0]
        assert found == pytest.approx(exact, abs=0.03)
    assert number(measured, "alpha_size_slope") > 0.04  # to 2, only as N grows without end


def flow_of_kurtosis(x_SPN: np.ndarray, *, num_halvings: int = 5) -> Measured:
    return kurtosis_flow(
        stream(x_SPN),
        rng=np.random.default_rng(0),
        skip_positions=0,
        num_halvings=num_halvings,
        num_blocks=4,
    )


def test_kurtosis_flow_of_gaussian_units_is_three() -> None:
    mixed = normal(21, 60, 64, 64) @ np.random.default_rng(0).standard_normal((64, 64))
    flow = flow_of_kurtosis(mixed.astype(np.float32)).curves["kurtosis_flow"]
    np.testing.assert_allclose(flow.y, 3, atol=0.15)  # kurtosis of one mode: sqrt(24 / 3840) = .08
    assert number(flow_of_kurtosis(mixed), "kurtosis_slope") == pytest.approx(0, abs=0.01)


def test_kurtosis_flow_of_independent_sources_in_known_modes() -> None:
    # x = H diag(s) source with H a Hadamard basis: modes are its columns, and unit i has
    # kurtosis(K) = 3 + (kappa - 3) sum_k<=K s_k^4 / (sum_k<=K s_k^2)^2 at every i
    rng = np.random.default_rng(22)
    hadamard = np.array([[1.0]])
    for _ in range(5):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    strength = np.arange(1, 33) ** -0.75
    source = rng.laplace(size=(200, 256, 32))  # kappa = 6
    flow = flow_of_kurtosis((source * strength) @ hadamard.T).curves["kurtosis_flow"]
    square = strength**2
    exact = [3 + 3 * (square[:k] ** 2).sum() / square[:k].sum() ** 2 for k in (32, 16, 8, 4, 2, 1)]
    np.testing.assert_allclose(flow.y, exact, rtol=0.05)


def test_kurtosis_flow_of_a_heavy_common_factor_stays_off_three() -> None:
    heavy = np.random.default_rng(23).laplace(size=(60, 64, 1))
    measured = flow_of_kurtosis(heavy + 0.7 * normal(24, 60, 64, 64))
    centred = heavy - heavy.mean()
    own = (centred**4).mean() / (centred**2).mean() ** 2  # 6 but for the sample
    # a unit of variance 2 + .49: 3 + 3 (2 / 2.49)^2, the projected one almost the factor alone
    share = centred.var() / (centred.var() + 0.49)
    assert number(measured, "kurtosis_full") == pytest.approx(3 + (own - 3) * share**2, rel=0.03)
    assert number(measured, "kurtosis_coarse") == pytest.approx(own, rel=0.05)


def flow_over_depth(x_LTD: np.ndarray) -> Measured:
    record = DepthStack(x_LTD=x_LTD, sequence_T=np.arange(x_LTD.shape[1]))
    return depth_flow(record, rng=np.random.default_rng(0), num_units=64)


def test_depth_flow_from_independent_units_to_one_factor() -> None:
    num_rows, depths = 64 * 60, 5
    strength = np.sqrt(np.linspace(0, 0.5, depths))[:, None, None]
    shared, private = normal(25, num_rows, 1), normal(26, num_rows, 80)
    measured = flow_over_depth(strength * shared + np.sqrt(1 - strength**2) * private)
    cluster = 2.0 ** np.arange(5)

    def exact_alpha(rho: float) -> float:
        variance = cluster * (1 - rho) + rho * cluster**2
        return float(np.polyfit(np.log(cluster), np.log(variance), 1)[0])

    alpha = measured.curves["alpha_by_depth"].y
    np.testing.assert_allclose(
        alpha, [exact_alpha(r) for r in np.linspace(0, 0.5, depths)], atol=0.05
    )
    # participation: (tr C)^2 / (N tr C^2) = 1 / (1 + rho^2 (N - 1)), and 1 + N/T at rho = 0
    share = measured.curves["participation_by_depth"].y
    rho = np.linspace(0, 0.5, depths)
    np.testing.assert_allclose(share, 1 / (1 + 63 * rho**2 + 64 / num_rows), rtol=0.08)
    assert number(measured, "alpha_change") == pytest.approx(
        exact_alpha(0.5) - exact_alpha(0.0), abs=0.05
    )
    assert number(measured, "mu_change") == pytest.approx(0, abs=0.05)
    assert number(measured, "participation_change") < -2


def test_depth_flow_of_equal_depths_is_zero() -> None:
    x_TD = normal(27, 64 * 52, 80) @ np.random.default_rng(1).standard_normal((80, 80))
    measured = flow_over_depth(np.stack([x_TD] * 3))
    for name in ("alpha_change", "mu_change", "alpha_depth_slope", "participation_change"):
        assert number(measured, name) == pytest.approx(0, abs=1e-12)
