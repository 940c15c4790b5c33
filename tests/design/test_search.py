"""The search on functions that are known, and what certifies: no model is made."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray.design.certificate import certify
from scaleinv_ray.design.closed_forms import UnreachableError
from scaleinv_ray.design.search import Measure, Scored, best_of, search
from scaleinv_ray.design.space import Choices, Interval, Point, Space, random_points

MARGIN = 0.05


def measured(
    *off: Callable[[Point], float], noise: float, seen: list[Point] | None = None
) -> Measure:
    """Three seeds of each point, with noise of ln(value)."""
    rng = np.random.default_rng(0)

    def measure(points: Sequence[Point]) -> list[Scored]:
        found = []
        for point in points:
            if seen is not None:
                seen.append(point)
            error = noise / math.sqrt(3)
            means = tuple(of(point) + error * float(rng.standard_normal()) for of in off)
            found.append(Scored(point, means, (error,) * len(off), (MARGIN,) * len(off)))
        return found

    return measure


def scale(point: Point) -> float:
    return 2.0 * math.log(float(point["init_scale"]) / 1.3)


def test_one_interval_is_bracketed_to_the_root() -> None:
    space = {"init_scale": Interval(0.3, 3.0)}
    for noise in (0.0, 0.03):
        found = search(space, [], measured(scale, noise=noise), budget=20)
        assert found.point is not None
        # within the share of the margin that a search aims at, but for noise
        assert abs(scale(found.point)) < 0.2 * MARGIN + noise
        assert len(found.measured) < 20


def test_the_luckiest_point_is_not_what_is_chosen() -> None:
    # 20 % off in truth, measured as exact by luck
    space = {"init_scale": Interval(0.3, 3.0)}
    lucky = Scored({"init_scale": 1.3 * math.exp(0.1)}, (0.0,), (0.1,), (MARGIN,))
    found = search(space, [lucky], measured(scale, noise=0.01), budget=20)
    assert found.point is not None
    assert found.point["init_scale"] < 1.3 * math.exp(0.05)


def test_ends_on_one_side_say_that_it_is_out_of_reach() -> None:
    with pytest.raises(UnreachableError, match=r"init_scale: got .* of the target at 0.3, .* at 1"):
        search({"init_scale": Interval(0.3, 1.0)}, [], measured(scale, noise=0.0), budget=9)


def test_lists_are_gone_through() -> None:
    seen: list[Point] = []
    measure = measured(lambda p: math.log(float(p["width"]) / 128), noise=0.0, seen=seen)
    found = search({"width": Choices((64, 128, 256))}, [], measure, budget=5)
    assert found.point == {"width": 128}
    assert [p["width"] for p in seen] == [64, 128, 256]


def test_several_dimensions_and_targets_are_met_together() -> None:
    pytest.importorskip("optuna")
    space: Space = {
        "init_scale": Interval(0.3, 3.0),
        "depth": Choices((2, 4, 8)),
    }
    measure = measured(scale, lambda p: math.log(float(p["depth"]) / 4) + 0.3 * scale(p), noise=0.0)
    known = measure(random_points(space, 8, seed=1))
    found = search(space, known, measure, budget=60)
    best = best_of(found.measured)
    assert best is not None
    assert best.passes
    assert best.point["depth"] == 4
    again = search(space, known, measure, budget=60)
    assert [s.point for s in again.measured] == [s.point for s in found.measured]


def test_a_point_that_cannot_be_measured_is_no_answer() -> None:
    lost = Scored({"width": 64}, (), (), (MARGIN,), "ValueError: diverged")
    assert not lost.passes
    assert best_of([lost]) is None
    found = search(
        {"width": Choices((64, 128))}, [], lambda points: [lost for _ in points], budget=5
    )
    assert found.point is None


def test_equivalence_is_that_of_two_t_tests() -> None:
    values = [1.45, 1.52, 1.49, 1.55, 1.50]
    found = certify(values, target=1.5, margin=0.05)
    y = np.log(np.array(values) / 1.5)
    low = stats.ttest_1samp(y, -0.05, alternative="greater").pvalue
    high = stats.ttest_1samp(y, 0.05, alternative="less").pvalue
    assert found.p == pytest.approx(max(low, high))
    assert found.certified == (abs(found.off) + found.half_width < 0.05)
    assert found.mean == pytest.approx(1.5 * math.exp(y.mean()))


def test_a_value_at_the_margin_is_certified_in_a_twentieth() -> None:
    rng = np.random.default_rng(0)
    values = 2.0 * np.exp(0.05 + 0.02 * rng.standard_normal((2000, 5)))
    passed = sum(certify(v.tolist(), target=2.0, margin=0.05).certified for v in values)
    assert 0.035 < passed / 2000 < 0.065


def test_so_many_seeds_as_are_said_to_be_needed_have_power_of_four_fifths() -> None:
    rng = np.random.default_rng(1)
    found = certify(np.exp([-0.08, 0.03, 0.1, 0.02, -0.03]).tolist(), target=1.0, margin=0.05)
    assert not found.certified
    assert found.seeds_needed is not None
    sd = float(np.std([-0.08, 0.03, 0.1, 0.02, -0.03], ddof=1))
    values = np.exp(found.off + sd * rng.standard_normal((1000, found.seeds_needed)))
    passed = sum(certify(v.tolist(), target=1.0, margin=0.05).certified for v in values)
    assert 0.7 < passed / 1000 < 0.9


def test_outside_the_margin_no_number_of_seeds_helps() -> None:
    found = certify([1.7, 1.71, 1.69], target=1.5, margin=0.05)
    assert not found.certified
    assert found.seeds_needed is None
    with pytest.raises(ValueError, match="allowed two or more numbers > 0"):
        certify([1.0, -1.0], target=1.0, margin=0.05)
