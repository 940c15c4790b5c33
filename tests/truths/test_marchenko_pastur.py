"""Random matrices: Marchenko-Pastur, Wigner, the spiked model of Baik, Ben Arous and Peche."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from scaleinv_ray.invariants.weights import (
    gaussian_null_eigenvalues,
    gram_eigenvalues,
    marchenko_pastur_median,
    weight_spikes,
    weight_tail,
)
from scaleinv_ray.records import WeightMatrix

NUM_SMALL, NUM_LARGE, RATIO = 400, 1600, 0.25


def noise(num_small: int, num_large: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_small, num_large))


def spiked(theta: float, seed: int) -> np.ndarray:
    """Rows of variance 1 but for the first, of population eigenvalue 1 + theta."""
    w_OI = noise(NUM_SMALL, NUM_LARGE, seed)
    w_OI[0] *= math.sqrt(1 + theta)
    return w_OI


def test_marchenko_pastur_moments_and_edges():
    x = gram_eigenvalues(noise(NUM_SMALL, NUM_LARGE, 0)) / NUM_LARGE
    # Linear statistics fluctuate as 1 / N; the edges as N^(-2/3).
    assert x.mean() == pytest.approx(1, abs=0.01)
    assert (x**2).mean() == pytest.approx(1 + RATIO, abs=0.01)
    assert (x**3).mean() == pytest.approx(1 + 3 * RATIO + RATIO**2, abs=0.03)
    assert x[0] == pytest.approx((1 - math.sqrt(RATIO)) ** 2, abs=0.05)
    assert x[-1] == pytest.approx((1 + math.sqrt(RATIO)) ** 2, abs=0.05)


def test_wigner_edge_and_fourth_moment():
    half = noise(500, 500, 1)
    symmetric = (half + half.T) / math.sqrt(2 * 500)
    squares = gram_eigenvalues(symmetric)
    assert squares.mean() == pytest.approx(1, abs=0.02)
    assert (squares**2).mean() == pytest.approx(2, abs=0.05)
    assert math.sqrt(squares[-1]) == pytest.approx(2, abs=0.05)


def test_null_ensemble_has_the_exact_wishart_moments():
    rng = np.random.default_rng(2)
    m, n = 8, 20
    draws = np.stack([gaussian_null_eigenvalues(m, n, rng=rng) for _ in range(4000)])
    exact = {
        1: m * n,
        2: m * n * (m + n + 1),
        3: m * n * (n**2 + m**2 + 3 * m * n + 3 * m + 3 * n + 4),
    }
    for power, expected in exact.items():
        traces = (draws**power).sum(axis=1)
        assert abs(traces.mean() - expected) < 4 * traces.std() / math.sqrt(len(traces))


@pytest.mark.parametrize("ratio", [0.01, 0.25, 0.9, 0.999])
def test_median_halves_the_textbook_density(ratio):
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def density(x: float) -> float:
        return math.sqrt(max((high - x) * (x - low), 0)) / (2 * math.pi * ratio * x)

    median = marchenko_pastur_median(ratio)
    # points: towards q = 1 the density is steep at the lower edge
    knots = [low + (median - low) * f for f in (1e-6, 1e-4, 1e-2)]
    below, _ = quad(density, low, median, points=knots, limit=500)
    assert below == pytest.approx(0.5, abs=1e-6)


def test_median_of_square_matrices_is_that_of_the_quarter_circle():
    s = math.sqrt(marchenko_pastur_median(1.0))
    below = s * math.sqrt(4 - s**2) / (2 * math.pi) + 2 / math.pi * math.asin(s / 2)
    assert below == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("theta", "expected"), [(1.0, 2.5), (2.0, 3.375)])
def test_strong_spikes_stand_where_bbp_says(theta, expected):
    found = [
        weight_spikes(WeightMatrix(w_OI=spiked(theta, seed)), rng=np.random.default_rng(0))
        for seed in range(6)
    ]
    assert [f.values["spikes"].value for f in found] == [1] * 6
    top = np.array([f.values["edge_ratio"].value for f in found]) * (1 + math.sqrt(RATIO)) ** 2
    # one spike scatters by (1 + theta) sqrt(2 / N) and less: .07 and .11
    assert top.mean() == pytest.approx(expected, abs=4 * (1 + theta) * math.sqrt(2 / 1600 / 6))


def test_spike_just_above_the_threshold_sits_at_its_place_but_is_not_claimed():
    found = [
        weight_spikes(WeightMatrix(w_OI=spiked(0.6, seed)), rng=np.random.default_rng(0))
        for seed in range(6)
    ]
    top = [f.values["edge_ratio"].value * 2.25 for f in found]
    assert np.mean(top) == pytest.approx(2.2667, abs=0.05)
    assert sum(f.values["spikes"].value for f in found) <= 2


def test_weak_spikes_are_not_seen():
    for seed in range(4):
        matrix = WeightMatrix(w_OI=spiked(0.3, seed))
        found = weight_spikes(matrix, rng=np.random.default_rng(0)).values
        assert found["spikes"].value == 0
        assert found["edge_ratio"].value == pytest.approx(1, abs=0.03)


def test_noise_has_no_spikes_and_its_scale_is_found():
    found = [
        weight_spikes(WeightMatrix(w_OI=0.02 * noise(64, 200, s)), rng=np.random.default_rng(0))
        for s in range(300)
    ]
    assert sum(f.values["spikes"].value for f in found) <= 5  # measured .0035 a matrix
    scale = np.mean([f.flags["bulk_scale"] for f in found])
    assert scale == pytest.approx(200 * 0.02**2, rel=0.02)


def test_several_spikes_are_counted():
    w_OI = noise(NUM_SMALL, NUM_LARGE, 7)
    w_OI[:5] *= np.sqrt([3.0, 4.0, 5.0, 6.0, 7.0])[:, None]
    found = weight_spikes(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))
    assert found.values["spikes"].value == 5


def test_null_score_is_near_zero_for_noise_and_negative_for_heavy_tails():
    rng = np.random.default_rng(3)

    def scores(sample, count):
        records = [WeightMatrix(w_OI=sample()) for _ in range(count)]
        return [weight_tail(r, rng=rng).values["alpha_null_z"].value for r in records]

    # z of noise has sd 1.2 with ten null draws: .75 is 3.5 standard errors
    assert abs(np.mean(scores(lambda: rng.standard_normal((64, 32)), 32))) < 0.75
    assert np.mean(scores(lambda: rng.standard_t(2, (96, 384)), 8)) < -1.5
