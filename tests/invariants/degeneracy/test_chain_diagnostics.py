"""Diagnostics of chains against closed forms of AR(1), and against an independent implementation.

Shape suffixes: C chains, S draws.
"""

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.degeneracy.chain_diagnostics import (
    chain_mean,
    effective_sample_size,
    geweke_z,
    rank_rhat,
    split_rhat,
)
from tests.invariants.synthetic_chains import autoregressive


def _halves(x_CS: np.ndarray) -> list[np.ndarray]:
    size = x_CS.shape[1] // 2
    return [half for x_S in x_CS for half in (x_S[:size], x_S[-size:])]


def _plain_rhat(x_CS: np.ndarray) -> float:
    """The formula written out, chain by chain."""
    halves = _halves(x_CS)
    size = len(halves[0])
    within = np.mean([np.var(h, ddof=1) for h in halves])
    between = size * np.var([h.mean() for h in halves], ddof=1)
    return float(np.sqrt(((size - 1) / size * within + between / size) / within))


def _plain_ess(x_CS: np.ndarray) -> float:
    """Lag by lag with loops, as Stan's reference manual states it."""
    halves = _halves(x_CS)
    chains, size = len(halves), len(halves[0])
    within = np.mean([np.var(h, ddof=1) for h in halves])
    total = (size - 1) / size * within + np.var([h.mean() for h in halves], ddof=1)

    def rho(lag: int) -> float:
        covariance = [
            ((h[: size - lag] - h.mean()) * (h[lag:] - h.mean())).sum() / size for h in halves
        ]
        return float(1 - (within - np.mean(covariance)) / total)

    tau, last = -1.0, np.inf
    for k in range(size // 2):
        even = 1.0 if k == 0 else rho(2 * k)
        pair = even + rho(2 * k + 1)
        if pair <= 0:
            tau += max(even, 0.0)
            break
        last = min(last, pair)
        tau += 2 * last
    return chains * size / max(tau, 1 / np.log10(chains * size))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, -0.4])
@pytest.mark.parametrize("shape", [(1, 60), (4, 101), (8, 250)])
def test_an_independent_implementation_agrees(shape: tuple[int, int], correlation: float) -> None:
    x_CS = autoregressive(shape, correlation, np.random.default_rng(shape[1]))
    assert split_rhat(x_CS) == pytest.approx(_plain_rhat(x_CS), rel=1e-12)
    assert effective_sample_size(x_CS) == pytest.approx(_plain_ess(x_CS), rel=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_effective_size_of_an_autoregression(correlation: float) -> None:
    """N (1 - rho) / (1 + rho)."""
    x_CS = autoregressive((8, 10_000), correlation, np.random.default_rng(1))
    exact = x_CS.size * (1 - correlation) / (1 + correlation)
    assert effective_sample_size(x_CS) == pytest.approx(exact, rel=0.1)


def test_draws_that_alternate_count_for_more() -> None:
    x_CS = autoregressive((4, 5000), -0.5, np.random.default_rng(2))
    assert effective_sample_size(x_CS) == pytest.approx(3 * x_CS.size, rel=0.1)
    strict_CS = np.tile([1.0, -1.0], (4, 500)) + 1e-3 * x_CS[:, :1000]
    assert effective_sample_size(strict_CS) <= 4000 * np.log10(4000)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_error_of_the_mean_covers(correlation: float) -> None:
    """Known variance of the mean of an AR(1), and 95 % within two errors."""
    rng = np.random.default_rng(3)
    long_run = (1 + correlation) / (1 - correlation)
    found = [chain_mean(autoregressive((8, 400), correlation, rng)) for _ in range(200)]
    stderr = np.array([f.stderr for f in found], dtype=float)
    exact = np.sqrt(long_run / 3200)
    # the larger of two errors is above either: by a tenth on eight chains
    assert np.sqrt(np.mean(stderr**2)) == pytest.approx(1.08 * exact, rel=0.08)
    assert 0.92 < np.mean(np.abs([f.value for f in found]) < 2 * stderr) < 0.995
    assert found[0].n == 8 and found[0].error_kind == "chains"


def test_geweke_is_standard_normal_and_sees_a_drift() -> None:
    rng = np.random.default_rng(4)
    z = np.array([geweke_z(autoregressive((8, 400), 0.5, rng)) for _ in range(400)])
    assert abs(z.mean()) < 0.2
    assert 0.85 < z.std() < 1.15
    drifting_CS = autoregressive((8, 400), 0.5, rng) - np.exp(-np.arange(400) / 40)
    assert geweke_z(drifting_CS) < -2
    apart_CS = drifting_CS + 100 * np.arange(8.0)[:, None]  # each chain about its own mean
    assert geweke_z(apart_CS) == pytest.approx(geweke_z(drifting_CS), rel=1e-6)


def test_what_each_r_hat_sees() -> None:
    rng = np.random.default_rng(5)
    same_CS = rng.normal(size=(4, 1000))
    assert max(split_rhat(same_CS), rank_rhat(same_CS)) < 1.01
    apart_CS = same_CS + np.array([0.0, 0.0, 0.0, 3.0])[:, None]
    assert min(split_rhat(apart_CS), rank_rhat(apart_CS)) > 1.2
    wide_CS = same_CS * np.array([1.0, 1.0, 1.0, 5.0])[:, None]
    assert split_rhat(wide_CS) < 1.02 < 1.1 < rank_rhat(wide_CS)
    trend_CS = same_CS + np.linspace(0, 3, 1000)  # halves of one chain disagree
    assert split_rhat(trend_CS) > 1.1
    heavy_CS = stats.cauchy.rvs(size=(4, 1000), random_state=rng)
    assert rank_rhat(heavy_CS) < 1.01


def test_unit_and_order_of_chains_change_nothing() -> None:
    rng = np.random.default_rng(6)
    x_CS = autoregressive((5, 200), 0.7, rng)
    moved_CS = 1e-6 * x_CS[rng.permutation(5)] + 3e-6
    for diagnostic in (split_rhat, rank_rhat, effective_sample_size, geweke_z):
        assert diagnostic(moved_CS) == pytest.approx(diagnostic(x_CS), rel=1e-6), diagnostic


@pytest.mark.parametrize(
    ("x_CS", "text"),
    [
        (np.zeros((4, 7)), "needs 8 draws"),
        (np.zeros(20), "got shape"),
        (np.full((2, 20), np.nan), "not finite"),
        (np.vstack([np.arange(20.0), np.ones(20)]), "a chain does not move"),
    ],
)
def test_refusals(x_CS: np.ndarray, text: str) -> None:
    for diagnostic in (split_rhat, rank_rhat, effective_sample_size, geweke_z, chain_mean):
        with pytest.raises(Refused, match=text):
            diagnostic(x_CS)


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match=r"first, last: got 0\.6, 0\.5"):
        geweke_z(np.random.default_rng(0).normal(size=(2, 20)), first=0.6)
