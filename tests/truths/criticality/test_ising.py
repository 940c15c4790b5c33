"""Two-dimensional Ising model: the simulation has the exact energy, magnetisation, correlation."""

import numpy as np
import pytest

from tests.truths.criticality.ising import CRITICAL_TEMPERATURE, sample_ising


def energy(spin: np.ndarray, size: int) -> np.ndarray:
    """Energy a site, by chain and sweep."""
    s = spin.reshape(*spin.shape[:2], size, size).astype(np.float32)
    return -(s * np.roll(s, 1, axis=2) + s * np.roll(s, 1, axis=3)).mean(axis=(2, 3))


def inverse_correlation_length(spin: np.ndarray, size: int, *, largest: int) -> float:
    """From the correlation g of sums over rows at distances up to `largest`.

    On a ring g(r) ~ cosh((r - L/2) / xi), hence g(r + 1) + g(r - 1) = 2 cosh(1/xi) g(r).
    """
    row = spin.reshape(*spin.shape[:2], size, size).mean(axis=3, dtype=np.float64)
    power = np.abs(np.fft.rfft(row, axis=2)) ** 2
    g = np.fft.irfft(power, n=size, axis=2).mean(axis=(0, 1))
    both = g[2 : largest + 1].sum() + g[: largest - 1].sum()
    return float(np.arccosh(both / (2 * g[1:largest].sum())))


def exact_inverse_length(temperature: float) -> float:
    return float(np.log(1 / np.tanh(1 / temperature)) - 2 / temperature)


@pytest.fixture(scope="module")
def critical() -> dict[int, np.ndarray]:
    return {
        size: sample_ising(
            size,
            CRITICAL_TEMPERATURE,
            num_chains=60,
            num_sweeps=400,
            rng=np.random.default_rng(size),
        )
        for size in (8, 16)
    }


def test_critical_energy(critical) -> None:
    # E_L = -sqrt 2 - c / L + O(L^-3) (Ferdinand & Fisher 1969): two sizes cancel c / L
    found = {size: energy(spin, size).mean() for size, spin in critical.items()}
    assert found[8] < found[16] < -np.sqrt(2)
    assert 2 * found[16] - found[8] == pytest.approx(-np.sqrt(2), rel=0.01)  # error .0066


def test_critical_binder_ratio(critical) -> None:
    magnetisation = critical[16].mean(axis=2, dtype=np.float64)
    binder = 1 - (magnetisation**4).mean() / (3 * (magnetisation**2).mean() ** 2)
    assert binder == pytest.approx(0.6107, rel=0.01)


def test_spontaneous_magnetisation() -> None:
    spin = sample_ising(32, 2.0, num_chains=20, num_sweeps=100, rng=np.random.default_rng(0))
    exact = (1 - np.sinh(2 / 2.0) ** -4) ** (1 / 8)  # .9113
    found = np.abs(spin.mean(axis=2, dtype=np.float64)).mean()
    assert found == pytest.approx(exact, rel=0.004)  # statistical error .001


def test_correlation_length_above_the_critical_temperature() -> None:
    spin = sample_ising(16, 3.0, num_chains=60, num_sweeps=500, rng=np.random.default_rng(1))
    found = inverse_correlation_length(spin, 16, largest=6)  # length 2.137, seeds .5 %
    assert found == pytest.approx(exact_inverse_length(3.0), rel=0.015)


@pytest.mark.slow
def test_correlation_length_close_to_the_critical_temperature() -> None:
    spin = sample_ising(40, 2.6, num_chains=80, num_sweeps=500, rng=np.random.default_rng(2))
    found = inverse_correlation_length(spin, 40, largest=8)
    assert found == pytest.approx(exact_inverse_length(2.6), rel=0.02)  # length 4.27
