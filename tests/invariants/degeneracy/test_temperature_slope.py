"""Fits along a ladder of temperatures: exact curves, errors, refusals. Suffix K: rungs."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.degeneracy.temperature_slope import log_slope, multiplicity_fit

NBETA_K = np.array([10.0, 30.0, 100.0, 300.0])


def test_a_constant_is_its_weighted_mean() -> None:
    value_K, stderr_K = np.array([3.0, 3.2, 2.9, 3.1]), np.array([0.1, 0.2, 0.1, 0.4])
    found = multiplicity_fit(NBETA_K, value_K, stderr_K, multiplicity=1)
    assert found.value == pytest.approx(np.average(value_K, weights=stderr_K**-2.0))
    assert found.stderr == pytest.approx((stderr_K**-2.0).sum() ** -0.5)


def test_a_curve_that_is_no_constant_widens_the_error() -> None:
    value_K = np.array([1.0, 2.0, 3.0, 4.0])
    found = multiplicity_fit(NBETA_K, value_K, np.full(4, 0.01), multiplicity=1)
    assert found.stderr == pytest.approx(value_K.std(ddof=1) / 2)


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("offset", [2.5, 4.0, 10.0])
def test_the_logarithm_is_taken_out(m: int, offset: float) -> None:
    value_K = 5.0 - (m - 1) / (np.log(NBETA_K / NBETA_K[0]) + offset)
    found = multiplicity_fit(NBETA_K, value_K, np.full(4, 1e-3), multiplicity=m)
    assert found.stderr is not None
    assert found.value == pytest.approx(5.0, abs=2 * found.stderr)
    assert found.stderr < 0.05


def test_the_order_and_unit_of_nbeta_change_nothing() -> None:
    value_K = 5.0 - 1 / (np.log(NBETA_K) + 2)
    found = multiplicity_fit(NBETA_K, value_K, np.full(4, 1e-2), multiplicity=2)
    moved = multiplicity_fit(NBETA_K[::-1] * 7, value_K[::-1], np.full(4, 1e-2), multiplicity=2)
    assert moved.value == pytest.approx(found.value, rel=1e-12)


def test_slopes_within_groups_share_no_level() -> None:
    x_K = np.array([1.0, 10.0, 1.0, 10.0, 100.0])
    level_K = np.array([1.0, 1.0, 50.0, 50.0, 50.0])
    group_K = np.array([0, 0, 1, 1, 2])  # the last is alone and says nothing
    found = log_slope(x_K, level_K * x_K**-0.3, 0.01 * level_K, group_K)
    assert found.value == pytest.approx(-0.3, rel=1e-9)
    assert found.n == 4


def test_the_error_of_a_slope_is_its_scatter() -> None:
    rng = np.random.default_rng(0)
    found = [
        log_slope(NBETA_K, 3.0 + 0.06 * rng.normal(size=4), np.full(4, 0.06), np.zeros(4))
        for _ in range(400)
    ]
    scatter = float(np.std([f.value for f in found], ddof=1))
    claimed = [f.stderr for f in found if f.stderr is not None]
    assert min(claimed) == pytest.approx(scatter, rel=0.15)  # never below; wider where points miss


def test_refusals() -> None:
    with pytest.raises(Refused, match="got 2 different nbeta, needs 3"):
        multiplicity_fit(NBETA_K[:2], np.ones(2), np.ones(2), multiplicity=2)
    with pytest.raises(Refused, match="no two different values"):
        log_slope(np.ones(3), np.ones(3), np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="multiplicity: got 0"):
        multiplicity_fit(NBETA_K, np.ones(4), np.ones(4), multiplicity=0)
