"""A model beside its parent: what both share cancels, false alarms as stated, changes found."""

import math

import numpy as np
import pytest

from scaleinv_ray.conclude.assessment.paired import Placed, changes


def placed(value_B: np.ndarray) -> Placed:
    return Placed(float(value_B.mean()), tuple(value_B.tolist()))


def test_an_error_that_both_share_cancels():
    rng = np.random.default_rng(0)
    shared_B, own_B = 10 * rng.normal(size=8), 0.01 * rng.normal(size=8)
    model = {"a": {0: placed(shared_B + 0.1 + own_B)}}
    (found,) = changes(model, {"a": {0: placed(shared_B)}})
    alone = shared_B.std(ddof=1) / math.sqrt(8)
    assert (found.over, found.n) == ("blocks", 8)
    assert found.stderr == pytest.approx(own_B.std(ddof=1) / math.sqrt(8))
    assert found.t > 20 and found.difference < 0.1 * alone


def test_the_error_of_a_jackknife_is_that_of_the_mean():
    x_B = np.random.default_rng(1).normal(size=6)
    left_out_B = (x_B.sum() - x_B) / 5
    parent = Placed(0.0, (0.0,) * 6, jackknife=True)
    (found,) = changes(
        {"a": {0: Placed(float(x_B.mean()), tuple(left_out_B), jackknife=True)}},
        {"a": {0: parent}},
    )
    assert found.stderr == pytest.approx(x_B.std(ddof=1) / math.sqrt(6))


def test_without_samples_the_places_are_the_replicates():
    values = {i: Placed(float(i), None) for i in range(4)}
    other = {i: Placed(float(i) - d, None) for i, d in enumerate((0.1, 0.2, 0.1, 0.2))}
    (found,) = changes({"a": values}, {"a": other})
    assert (found.over, found.n, found.difference) == ("places", 4, pytest.approx(0.15))
    assert changes({"a": {0: Placed(1.0, None)}}, {"a": {0: Placed(2.0, None)}}) == []


def test_what_is_equal_has_not_changed_and_what_moves_alike_has():
    same = {"a": {i: Placed(1.0, None) for i in range(3)}}
    (found,) = changes(same, same)
    assert (found.t, found.p, found.q) == (0.0, 1.0, 1.0)
    (moved,) = changes({"a": {i: Placed(1.5, None) for i in range(3)}}, same)
    assert (moved.t, moved.p) == (math.inf, 0.0)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_false_discoveries_are_as_rare_as_the_level(shared):
    rng, level, alarms = np.random.default_rng(2), 0.1, 0
    for _ in range(300):
        common_B = rng.normal(size=8)
        noise_FB = math.sqrt(shared) * common_B + math.sqrt(1 - shared) * rng.normal(size=(30, 8))
        model = {f"q{f}": {0: placed(d_B)} for f, d_B in enumerate(noise_FB)}
        zero = {name: {0: Placed(0.0, (0.0,) * 8)} for name in model}
        alarms += any(change.q <= level for change in changes(model, zero))
    assert alarms / 300 <= level + 3 * math.sqrt(level * (1 - level) / 300)
