"""Marchenko-Pastur kernel: allowed arguments, the edge's behaviour under scale and shape."""

import numpy as np
import pytest

from scaleinv_ray.invariants.weights.marchenko_pastur import (
    bulk_edge,
    gaussian_null_eigenvalues,
    marchenko_pastur_mean,
    marchenko_pastur_median,
)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5])
def test_ratio_is_named_where_it_is_wrong(ratio):
    with pytest.raises(ValueError, match="ratio: got"):
        marchenko_pastur_median(ratio)
    with pytest.raises(ValueError, match="ratio: got"):
        marchenko_pastur_mean(lambda x: x, ratio)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0])
def test_law_is_empty_above_its_edge_and_whole_below(ratio):
    high = (1 + ratio**0.5) ** 2
    assert marchenko_pastur_mean(lambda _: 1.0, ratio, above=high) < 1e-12
    assert marchenko_pastur_mean(lambda _: 1.0, ratio, above=2 * high) == 0
    assert marchenko_pastur_mean(lambda _: 1.0, ratio, above=-1.0) == pytest.approx(1, abs=1e-9)
    median = marchenko_pastur_median(ratio)
    assert marchenko_pastur_mean(lambda _: 1.0, ratio, above=median) == pytest.approx(0.5, abs=1e-9)


def test_edge_and_width_scale_with_the_eigenvalues():
    lambda_M = gaussian_null_eigenvalues(40, 90, rng=np.random.default_rng(0))
    assert bulk_edge(9.0 * lambda_M, 90) == pytest.approx(9.0 * np.array(bulk_edge(lambda_M, 90)))


def test_null_spectrum_is_sorted_positive_and_seeded():
    one, two, other = (
        gaussian_null_eigenvalues(30, 30, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert (np.diff(one) >= 0).all() and one[0] >= 0
    assert gaussian_null_eigenvalues(1, 5, rng=np.random.default_rng(0)).shape == (1,)
