"""Random matrices: Marchenko-Pastur, Wigner, the spiked model of Baik, Ben Arous and Peche."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.covariance import gram_eigenvalues
from scaleinv_ray.invariants.weights import (
    fixed_aspect_tail,
    shuffle_null,
    weight_spikes,
    weight_tail,
)
from scaleinv_ray.invariants.weights.marchenko_pastur import (
    bulk_edge,
    gaussian_null_eigenvalues,
    marchenko_pastur_mean,
    marchenko_pastur_median,
)
from scaleinv_ray.invariants.weights.power_tail import hill_exponent
from scaleinv_ray.records import WeightMatrix

NUM_SMALL, NUM_LARGE, RATIO = 400, 1600, 0.25


def noise(num_small: int, num_large: int, seed: int | np.random.Generator) -> np.ndarray:
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


@pytest.mark.parametrize("ratio", [0.01, 0.25, 1.0])
def test_integrals_over_the_law_are_its_moments_and_its_resolvent(ratio):
    moments = {0: 1, 1: 1, 2: 1 + ratio, 3: 1 + 3 * ratio + ratio**2}
    for power, expected in moments.items():
        found = marchenko_pastur_mean(lambda x, k=power: x**k, ratio)
        assert found == pytest.approx(expected, rel=1e-9)
    # m(z) = (1 - q - z - sqrt((1 - q - z)^2 - 4 q z)) / (2 q z) at z = -1
    resolvent = (math.sqrt((2 - ratio) ** 2 + 4 * ratio) - (2 - ratio)) / (2 * ratio)
    found = marchenko_pastur_mean(lambda x: 1 / (x + 1), ratio)
    assert found == pytest.approx(resolvent, rel=1e-9)
    if ratio == 0.25:
        assert resolvent == pytest.approx(0.531129, abs=1e-6)
    if ratio == 1.0:
        assert resolvent == pytest.approx(0.618034, abs=1e-6)


def test_wigner_edge_and_fourth_moment():
    half = noise(500, 500, 1)
    symmetric = (half + half.T) / math.sqrt(2 * 500)
    signed = np.linalg.eigvalsh(symmetric)
    assert (signed[0], signed[-1]) == pytest.approx((-2, 2), abs=0.05)
    squares = gram_eigenvalues(symmetric)
    assert squares == pytest.approx(np.sort(signed**2), abs=1e-9)
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


def test_edge_is_crossed_by_its_tracy_widom_width():
    """The largest eigenvalue of noise is edge + width x, x of mean -1.21 and sd 1.27 (TW1)."""
    rng = np.random.default_rng(8)
    offset = []
    for _ in range(200):
        lambda_M = gaussian_null_eigenvalues(200, 800, rng=rng)
        bulk = bulk_edge(lambda_M, 800)
        offset.append((lambda_M[-1] - bulk.edge) / bulk.width)
    # the scatter of the median's scale is .1 widths here
    assert np.mean(offset) == pytest.approx(-1.21, abs=0.35)
    assert np.std(offset) == pytest.approx(1.27, rel=0.15)


def hill_of_noise(ratio: float) -> float:
    """alpha = 1 + (1/2) / integral of ln(x / median) over the upper half of the law."""
    median = marchenko_pastur_median(ratio)
    excess = marchenko_pastur_mean(lambda x: math.log(x / median), ratio, above=median)
    return 1 + 0.5 / excess


def farms(sample, count: int, **parameters) -> list[dict[str, Estimate]]:
    rng = np.random.default_rng(9)
    return [
        dict(fixed_aspect_tail(WeightMatrix(w_OI=sample()), rng=rng, **parameters).values)
        for _ in range(count)
    ]


@pytest.mark.parametrize(("aspect", "expected"), [(1.0, 2.1217), (4.0, 3.4546)])
def test_fixed_aspect_tail_of_noise_is_that_of_the_law(aspect, expected):
    assert hill_of_noise(1 / aspect) == pytest.approx(expected, abs=1e-4)
    rng = np.random.default_rng(10)
    found = farms(lambda: rng.standard_normal((256, 512)), 12, aspect=aspect)
    alpha = np.array([f["alpha_farms"].value for f in found])
    # of finite tiles: -.5 % at 64 x 64
    assert alpha.mean() == pytest.approx(expected, rel=0.012)


@pytest.mark.parametrize("degrees", [1e9, 3])  # 1e9: normal entries
def test_fixed_aspect_tail_removes_the_bias_of_shape(degrees):
    rng = np.random.default_rng(11)
    found = {
        shape: [f["alpha_farms"] for f in farms(lambda s=shape: rng.standard_t(degrees, s), 12)]
        for shape in ((128, 512), (256, 256))  # tiles of 64 x 64 in both
    }
    mean, stderr = [], []
    for estimates in found.values():
        alpha = np.array([e.value for e in estimates])
        mean.append(alpha.mean())
        stderr.append(alpha.std(ddof=1) / math.sqrt(12))
        # the scatter of 12 records is known to 21 %
        stated = np.mean([e.stderr for e in estimates])
        assert 0.6 < stated / alpha.std(ddof=1) < 2
    assert abs(mean[0] - mean[1]) < 4 * math.hypot(*stderr)
    plain = [
        hill_exponent(gaussian_null_eigenvalues(*shape, rng=rng))
        for shape in ((128, 512), (256, 256))
    ]
    assert plain[0] / plain[1] > 1.4


def test_null_score_of_the_fixed_aspect_tail():
    rng = np.random.default_rng(12)
    noise_z = [f["alpha_farms_null_z"].value for f in farms(lambda: noise(64, 256, rng), 24)]
    # sd 1.1 with ten null draws
    assert abs(np.mean(noise_z)) < 4 * 1.1 / math.sqrt(24)
    heavy = farms(lambda: rng.standard_t(3, (64, 256)), 4)
    assert max(f["alpha_farms_null_z"].value for f in heavy) < -2


def test_shuffle_null_sees_arrangement_and_not_entries():
    rng = np.random.default_rng(13)

    def found(sample, count):
        records = [WeightMatrix(w_OI=sample()) for _ in range(count)]
        return [shuffle_null(r, rng=rng).values for r in records]

    # Independent entries, however heavy-tailed, are their own shuffles; the Gaussian null differs.
    heavy = found(lambda: rng.standard_t(2.5, (48, 96)), 24)
    scores = [f["alpha_shuffle_z"].value for f in heavy]
    assert abs(np.mean(scores)) < 4 * np.std(scores, ddof=1) / math.sqrt(24)
    excess = [f["norm_excess"].value for f in heavy]
    assert abs(np.mean(excess)) < 4 * np.std(excess, ddof=1) / math.sqrt(24)
    # A planted direction of size theta: ln lambda_max rises from the edge to BBP's place.
    theta = 4.0
    for f in found(lambda: spiked(theta, 0), 1):
        place = (1 + theta) * (1 + RATIO / theta) / (1 + math.sqrt(RATIO)) ** 2
        assert f["norm_excess"].value == pytest.approx(math.log(place), abs=0.15)
