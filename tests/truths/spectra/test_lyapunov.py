"""Jacobians of a known spectrum, and Ginibre ones, whose exponents are known (Newman 1986)."""

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import ortho_group

from scaleinv_ray.invariants.stability import order_chaos
from scaleinv_ray.invariants.stability.log_singular_values import log_singular_values
from scaleinv_ray.records import Jacobians

DIM = 16
HALF_DEGREES = (DIM - np.arange(DIM)) / 2  # (d - k + 1) / 2 for k = 1 .. d
GINIBRE = 0.5 * (math.log(2 / DIM) + digamma(HALF_DEGREES))


def ginibre(seed: int, count: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim, dim)) / math.sqrt(dim)


def orthogonal(dim: int, seed: int) -> np.ndarray:
    return ortho_group.rvs(dim, random_state=seed)


def test_sum_of_the_singular_values_is_the_logarithm_of_the_determinant():
    factors = ginibre(2, count=9, dim=7)
    want = np.linalg.slogdet(factors)[1]
    assert log_singular_values(factors).sum(axis=1) == pytest.approx(want, abs=1e-10)
    found = order_chaos(Jacobians(j_TDD=factors), rng=np.random.default_rng(0)).values
    assert 7 * found["mean_log_singular"].value == pytest.approx(want.mean(), abs=1e-10)


def test_order_chaos_of_jacobians_with_a_known_spectrum():
    s = np.linspace(0.3, 1.2, DIM)
    j_TDD = np.array([orthogonal(DIM, t) * s @ orthogonal(DIM, 100 + t) for t in range(5)])
    measured = order_chaos(Jacobians(j_TDD=j_TDD), rng=np.random.default_rng(0))
    found, chi = measured.values, (s**2).mean()
    assert found["chi"].value == pytest.approx(chi, rel=1e-12)
    assert found["mean_log_singular"].value == pytest.approx(np.log(s).mean(), rel=1e-12)
    assert found["max_log_singular"].value == pytest.approx(math.log(1.2), rel=1e-12)
    assert found["correlation_length"].value == pytest.approx(-1 / math.log(chi), rel=1e-12)
    assert all(found[name].stderr < 1e-12 for name in ("chi", "mean_log_singular"))
    curve = measured.curves["log_singular_values"]
    assert curve.y == pytest.approx(np.log(s)[::-1], rel=1e-10)


def test_order_chaos_of_ginibre_jacobians():
    found = order_chaos(Jacobians(j_TDD=0.8 * ginibre(4, count=400)), rng=np.random.default_rng(0))
    values = found.values
    # chi: mean of D^2 squares of variance .64 / D; ln det: sum of the chi squares' logarithms
    assert values["chi"].value == pytest.approx(0.64, abs=4 * 0.64 * math.sqrt(2 / DIM**2 / 400))
    mean_log = math.log(0.8) + GINIBRE.mean()
    assert (
        abs(values["mean_log_singular"].value - mean_log) < 4 * values["mean_log_singular"].stderr
    )
    stderr = math.sqrt((polygamma(1, HALF_DEGREES) / 4).sum() / DIM**2 / 400)
    assert values["mean_log_singular"].stderr == pytest.approx(stderr, rel=0.15)
    length = values["correlation_length"]
    assert abs(length.value + 1 / math.log(0.64)) < 4 * length.stderr


def test_the_null_has_the_spectrum_of_what_it_imitates():
    j_TDD = np.eye(DIM) + 0.5 * ginibre(5, count=300)
    values = order_chaos(Jacobians(j_TDD=j_TDD), rng=np.random.default_rng(0)).values
    for name in ("mean_log_singular", "max_log_singular"):
        one, null = values[name], values[f"{name}_null"]
        assert abs(one.value - null.value) < 4 * math.hypot(one.stderr, null.stderr)
    assert values["chi"].value == pytest.approx(1.25, abs=4 * values["chi"].stderr)


def test_stated_errors_are_the_scatter_over_records():
    found = [
        order_chaos(
            Jacobians(j_TDD=0.8 * ginibre(seed, count=8, dim=8)), rng=np.random.default_rng(0)
        ).values
        for seed in range(100)
    ]
    for name in ("chi", "correlation_length", "mean_log_singular", "max_log_singular"):
        scatter = np.std([f[name].value for f in found], ddof=1)
        # the scatter of 100 is known to 7 %, the mean error of 8 positions is 4 % too small
        assert np.mean([f[name].stderr for f in found]) == pytest.approx(scatter, rel=0.3)
