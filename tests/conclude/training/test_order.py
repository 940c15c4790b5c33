"""Order of transitions: sigmoids and power laws told apart, widths found, sizes compared."""

import math

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.training.order import OrderFinder, ProgressForm, finite_size, order_table
from scaleinv_ray.conclude.training.transitions import transitions_table
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import measurement

STEPS = [0, *(2**i for i in range(18))]
X_K = np.log1p(STEPS)


def sigmoid(middle, width):
    return 1 / (1 + np.exp(-(X_K - middle) / width))


def forms(truth_K, *, sd, repeats=100):
    finder, rng = OrderFinder(), np.random.default_rng(0)
    return [finder.find(STEPS, truth_K + sd * rng.normal(size=len(STEPS))) for _ in range(repeats)]


@pytest.mark.parametrize("width", [0.3, 1.0])
def test_a_sigmoid_is_one_and_its_width_is_covered(width):
    found = forms(sigmoid(6.5, width), sd=0.02)
    assert np.mean([f.form is ProgressForm.SIGMOID for f in found]) > 0.95
    covered = np.mean([f.width_low <= width <= f.width_high for f in found])
    assert covered > 0.9
    assert np.median([f.width for f in found]) == pytest.approx(width, rel=0.15)
    assert np.median([math.log1p(f.middle) for f in found]) == pytest.approx(6.5, abs=0.2)


@pytest.mark.parametrize("power", [-0.5, -0.1, 0.0, 0.2, 0.5])
def test_a_power_law_is_no_sigmoid(power):
    truth_K = X_K if power == 0 else np.expm1(power * X_K) / power
    found = forms(truth_K / np.ptp(truth_K), sd=0.02)
    # it may be undetermined: half a sigmoid is a power law
    assert np.mean([f.form is ProgressForm.SIGMOID for f in found]) < 0.05


def test_a_step_sharper_than_the_checkpoints_has_no_lower_end():
    found = forms((X_K > 6.5).astype(float), sd=0.02)
    assert all(f.width_low == 0.0 and f.form is ProgressForm.SIGMOID for f in found)


def test_units_and_order_change_nothing():
    rng = np.random.default_rng(1)
    y_K = sigmoid(6, 0.7) + 0.02 * rng.normal(size=len(STEPS))
    one = OrderFinder().find(STEPS, y_K)
    other = OrderFinder().find(STEPS[::-1], (5 - 300 * y_K)[::-1])
    assert other.bic == pytest.approx(one.bic, rel=1e-6)
    assert (other.width, other.middle) == (one.width, one.middle)


@pytest.mark.parametrize("slope", [-0.4, 0.0])
def test_the_slope_of_the_width_is_covered(slope):
    rng = np.random.default_rng(0)
    sizes = [10**i for i in (3, 4, 5, 6) for _ in range(3)]
    found = [
        finite_size(sizes, [n**slope * math.exp(0.2 * rng.normal()) for n in sizes])
        for _ in range(300)
    ]
    covered = np.mean([f.low <= slope <= f.high for f in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 300)
    if slope < 0:
        assert np.mean([f.high < 0 for f in found]) > 0.8


DENSE = sorted({0, *(round(2 ** (i / 3)) for i in range(48))})


def rows_of(power):
    """Sigmoids whose width is (n / 1000)^power, over four sizes and two seeds."""
    rng = np.random.default_rng(0)
    rows = []
    for n in (10**3, 10**4, 10**5, 10**6):
        for seed in (0, 1):
            middle, width = 7 + 0.2 * rng.normal(), (n / 1000) ** power
            y_K = 1 / (1 + np.exp(-(np.log1p(DENSE) - middle) / width))
            y_K = y_K + 0.01 * rng.normal(size=len(DENSE))
            rows += [
                measurement(n_params=n, model=f"m{n}", seed=seed, step=step, value=float(y))
                for step, y in zip(DENSE, y_K, strict=True)
            ]
    return rows


def table(rows):
    quantities = {("f.i", "q"): Quantity(law="none", unit=1.0)}
    found = transitions_table(rows, quantities=quantities, rng=np.random.default_rng(0))
    out = order_table(found, rows, quantities=quantities)
    assert tables.encode(out, SCHEMAS["orders"]).num_rows == len(out)
    return out


def test_a_transition_that_sharpens_with_size():
    (row,) = table(rows_of(-0.2))
    assert row["outcome"] == "sharpens" and row["n_sigmoid"] >= 6
    assert row["slope_low"] < -0.2 < row["slope_high"] < 0


def test_a_crossover_keeps_its_width():
    (row,) = table(rows_of(0.0))
    assert row["outcome"] == "keeps its width"
    assert row["slope_low"] < 0 < row["slope_high"]


def test_widths_that_the_checkpoints_do_not_resolve_are_left_out_and_counted():
    (row,) = table(rows_of(-0.5))
    assert row["outcome"] == "sharpens" and row["n_sigmoid"] == 8
    assert row["reason"] == "without 2 of 8 widths below the checkpoints'"


def test_two_sizes_say_nothing_of_the_limit():
    (row,) = table([r for r in rows_of(-0.2) if r["n_params"] > 10**4])
    assert row["outcome"] == "undetermined" and "needs 3" in row["reason"]


def test_no_transition_has_no_order():
    rows = [
        measurement(n_params=10, model="m", step=s, value=1 + 0.1 * math.log1p(s)) for s in STEPS
    ]
    assert table(rows) == []


def test_refused_inputs():
    with pytest.raises(ValueError, match="allowed 7 distinct ones"):
        OrderFinder().find([0, 1, 2, 3, 4, 5], [0.0] * 6)
    with pytest.raises(ValueError, match="a constant"):
        OrderFinder().find(STEPS, [1.0] * len(STEPS))
    with pytest.raises(ValueError, match="got 2 sizes, needs 3"):
        finite_size([1, 2], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"width_R: got 0\.0"):
        finite_size([1, 2, 3], [1.0, 0.0, 1.0])
