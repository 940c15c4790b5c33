"""Power-law fits: symmetries and refusals; the scan against its literal definition is a truth."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate, unknown
from scaleinv_ray.invariants.weights.power_tail import (
    fit_power_tail,
    hill_exponent,
    null_score,
    stored_rounding,
)


def test_neither_fit_depends_on_scale_or_order():
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 1, 200)
    moved = 1e6 * rng.permutation(values)
    assert hill_exponent(moved) == pytest.approx(hill_exponent(values), rel=1e-12)
    found, want = fit_power_tail(moved), fit_power_tail(values)
    assert found.alpha == pytest.approx(want.alpha, rel=1e-12)
    assert found.xmin == pytest.approx(1e6 * want.xmin, rel=1e-12)
    assert found.n_tail == want.n_tail


def test_equal_values_have_no_tail():
    with pytest.raises(Refused, match="all 7 eigenvalues are equal"):
        fit_power_tail(np.full(7, 2.5))
    with pytest.raises(Refused, match="largest 4 eigenvalues are equal"):
        hill_exponent(np.r_[0.1, 0.2, 0.3, np.full(4, 2.5)])
    with pytest.raises(Refused, match="1 of 3 eigenvalues in the tail"):
        hill_exponent(np.array([1.0, 2.0, 3.0]))
    nearly = 2.5 + 1e-14 * np.arange(7)
    with pytest.raises(Refused, match="equal within rounding"):
        fit_power_tail(nearly)
    apart = 2.5 + 1e-3 * np.arange(7)
    assert fit_power_tail(apart).alpha > 1
    with pytest.raises(Refused, match="equal within rounding"):
        fit_power_tail(apart, rounding=stored_rounding("float16", 7))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_fraction_lies_inside_the_unit_interval(fraction):
    with pytest.raises(ValueError, match="fraction: got"):
        hill_exponent(np.arange(1.0, 9.0), fraction=fraction)


def test_hill_is_the_mean_excess_of_logarithms_over_the_next_value():
    values = np.exp([0.0, 1.0, 2.0, 4.0, 7.0, 9.0])
    assert hill_exponent(values) == pytest.approx(1 + 3 / ((4 - 2) + (7 - 2) + (9 - 2)))
    assert hill_exponent(values, fraction=0.34) == pytest.approx(1 + 2 / ((7 - 4) + (9 - 4)))


def test_a_null_score_says_what_it_lacks():
    with pytest.raises(Refused, match="alpha: got no error"):
        raise null_score(unknown(3.0, n=40), [2.0, 3.0])
    with pytest.raises(Refused, match="null: its exponents do not vary"):
        raise null_score(Estimate(3.0, 0.1, 40, "fit"), [2.0, 2.0])
