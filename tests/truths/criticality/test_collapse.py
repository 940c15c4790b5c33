"""Collapse of finite-size scaling with known exponents, and of curves that do not collapse."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scaleinv_ray.conclude.universality.collapse import (
    ScalingCurve,
    collapse_quality,
    mean_curve_errors,
    rescaling,
    supercollapse,
)

EXPONENT_X, EXPONENT_Y = -0.75, -0.10417
CRITICAL_SHARE = 0.592746


def scaling_curves(rng, *, relative=0.02, correlated=False, bend=0.0, num_points=30):
    """y = N^b f(x N^-a) with f a sigmoid, and noise of known size."""
    curves = []
    for i in range(5):
        size = 8 * 2.0**i
        z = np.linspace(-3, 3, num_points)
        y = (1 / (1 + np.exp(-z)) + 0.2) * (1 + bend * i * np.sin(z)) * size**EXPONENT_Y
        noise = rng.normal() if correlated else rng.normal(size=num_points)
        curve = ScalingCurve(size, z * size**EXPONENT_X, y * (1 + relative * noise), relative * y)
        curves.append(curve)
    return curves


def at_truth(curves):
    return collapse_quality(curves, exponent_x=EXPONENT_X, exponent_y=EXPONENT_Y)


def test_quality_is_one_where_errors_are_right():
    rng = np.random.default_rng(0)
    found = [at_truth(scaling_curves(rng)) for _ in range(40)]
    assert np.mean(found) == pytest.approx(1.0, abs=3 * np.std(found) / np.sqrt(40) + 0.02)
    doubled = [c._replace(stderr_P=2 * c.stderr_P) for c in scaling_curves(rng)]
    assert at_truth(doubled) == pytest.approx(0.25, abs=0.1)


def test_quality_is_large_where_curves_do_not_collapse():
    rng = np.random.default_rng(1)
    assert collapse_quality(scaling_curves(rng)) > 100  # not rescaled
    bent = scaling_curves(rng, bend=0.1)
    assert at_truth(bent) > 10
    assert rescaling(bent).quality > 5  # no exponents mend another function


def test_exponents_are_recovered():
    rng = np.random.default_rng(2)
    found = [rescaling(scaling_curves(rng)) for _ in range(8)]
    for best in found:
        # 2 % noise on 150 points leaves .006 and .002
        assert best.exponent_x == pytest.approx(EXPONENT_X, abs=0.03)
        assert best.exponent_y == pytest.approx(EXPONENT_Y, abs=0.01)
        assert best.x_low < EXPONENT_X < best.x_high
        assert best.y_low < EXPONENT_Y < best.y_high
        assert best.quality < 1.5


def test_intervals_cover_when_the_points_of_a_curve_err_together():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(12):
        best = rescaling(scaling_curves(rng, correlated=True, num_points=12))
        covered += best.y_low < EXPONENT_Y < best.y_high
    assert covered >= 11


def test_errors_pooled_over_sizes_give_quality_one():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        sample = [1 + 0.1 * rng.normal(size=(3, 12)) for _ in range(4)]
        errors = mean_curve_errors(sample)
        grid = np.arange(12.0)
        found.append(
            collapse_quality([
                ScalingCurve(n + 1.0, grid, y.mean(axis=0), e)
                for n, (y, e) in enumerate(zip(sample, errors, strict=True))
            ])
        )
    assert np.mean(found) == pytest.approx(1.0, abs=0.05)


def test_common_noise_makes_supercollapse_and_independent_noise_does_not():
    rng = np.random.default_rng(5)
    shape = np.linspace(3, 1, 20)
    common = [shape * np.exp(0.1 * rng.normal(size=(4, 1))) * n for n in (1, 2, 4)]
    assert supercollapse(common) < 0.01
    independent = [shape * np.exp(0.1 * rng.normal(size=(4, 20))) for _ in range(3)]
    assert supercollapse(independent) > 1.0
    differing = [shape**k * np.exp(0.01 * rng.normal(size=(4, 20))) for k in (1, 1.5, 2)]
    assert supercollapse(differing) > 10


def largest_cluster(size, share, count, rng):
    """Share of sites in the largest cluster of site percolation on a periodic square lattice."""
    is_open = rng.random((count, size, size)) < share
    site = np.arange(is_open.size).reshape(is_open.shape)
    joined = [is_open & np.roll(is_open, -1, axis) for axis in (1, 2)]
    row = np.concatenate([site[on] for on in joined])
    neighbours = [np.roll(site, -1, axis) for axis in (1, 2)]
    column = np.concatenate([to[on] for to, on in zip(neighbours, joined, strict=True)])
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(site.size,) * 2)
    label = connected_components(graph, directed=False)[1].reshape(count, -1)
    return np.array([np.bincount(of - of.min()).max() for of in label]) / size**2


def percolation(sizes, counts, rng):
    curves = []
    for size, count in zip(sizes, counts, strict=True):
        off = np.linspace(-1, 1, 21) * size**EXPONENT_X
        found = np.array([largest_cluster(size, CRITICAL_SHARE + d, count, rng) for d in off])
        stderr = found.std(axis=1, ddof=1) / np.sqrt(count)
        curves.append(ScalingCurve(size, off, found.mean(axis=1), stderr))
    return curves


def test_percolation_collapses_with_its_exact_exponents():
    curves = percolation((32, 64, 128), (110, 60, 40), np.random.default_rng(6))
    assert collapse_quality(curves) > 10
    assert at_truth(curves) < 3  # L = 32 is not infinite: 1.7 with more samples
    best = rescaling(curves)
    assert best.quality < 2
    assert best.exponent_x == pytest.approx(EXPONENT_X, abs=0.08)  # 1/nu = 3/4
    assert best.exponent_y == pytest.approx(EXPONENT_Y, abs=0.02)  # beta/nu = 5/48
    assert best.x_low < EXPONENT_X < best.x_high
    assert best.y_low < EXPONENT_Y < best.y_high


@pytest.mark.slow
def test_percolation_on_larger_lattices():
    curves = percolation((64, 128, 256), (300, 150, 80), np.random.default_rng(7))
    assert at_truth(curves) < 2
    best = rescaling(curves)
    assert best.exponent_x == pytest.approx(EXPONENT_X, abs=0.05)
    assert best.exponent_y == pytest.approx(EXPONENT_Y, abs=0.01)
