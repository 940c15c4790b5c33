"""Streamed means and covariances against numpy; suffixes: B draws, V variables."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.invariants.degeneracy.welford import Welford, merge


def _is_numpy(found: Welford, x_BV: np.ndarray) -> bool:
    """Whether it is what numpy makes of all draws at once."""
    mean = np.allclose(found.mean_V, x_BV.mean(axis=0), rtol=1e-10, atol=1e-12)
    spread = np.allclose(found.covariance(), np.cov(x_BV.T, ddof=1), rtol=1e-10, atol=1e-10)
    return mean and spread and found.count == len(x_BV)


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 50), min_size=0, max_size=6),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 10_000),
)
def test_any_way_to_cut_and_merge_is_numpy(
    cuts: list[int], order: random.Random, seed: int
) -> None:
    x_BV = np.random.default_rng(seed).normal(size=(50, 3)) @ np.triu(np.ones((3, 3)))
    parts = [Welford.of(part) for part in np.split(x_BV, sorted(cuts))]
    order.shuffle(parts)
    assert _is_numpy(merge(parts), x_BV)


def test_one_draw_after_the_other() -> None:
    x_BV = np.random.default_rng(1).normal(size=(30, 2))
    running = Welford.of(np.empty((0, 2)))
    for x_V in x_BV:
        running = running.merged(Welford.of(x_V[None]))
    assert _is_numpy(running, x_BV)


def test_a_small_covariance_beside_a_large_mean_keeps_its_digits() -> None:
    """Sums of squares would have none left: the mean is 1e9 standard deviations."""
    small_BV = np.random.default_rng(2).normal(size=(400, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    small_BV = np.round(small_BV * 1024) / 1024  # so that the shift loses nothing
    far = merge(Welford.of(part + 2.0**30) for part in np.split(small_BV, 8))
    # the means themselves are known to 2^30 * 1e-16, 1e-7 of a standard deviation
    np.testing.assert_allclose(far.covariance(), np.cov(small_BV.T, ddof=1), rtol=1e-6)
    near = small_BV + 2.0**30
    naive = (near.T @ near / 400 - np.outer(near.mean(0), near.mean(0))) * 400 / 399
    assert np.abs(naive / np.cov(small_BV.T, ddof=1) - 1).max() > 1


def test_refusals() -> None:
    one = Welford.of(np.ones((1, 2)))
    with pytest.raises(ValueError, match="count: got 1, a covariance needs 2"):
        one.covariance()
    with pytest.raises(ValueError, match="other: got 3 variables, allowed 2"):
        one.merged(Welford.of(np.ones((1, 3))))
    with pytest.raises(ValueError, match="x_BV: got 1 axes"):
        Welford.of(np.ones(3))
    with pytest.raises(ValueError, match="parts: got none"):
        merge([])
