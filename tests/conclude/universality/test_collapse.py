"""Collapse: numbers by hand, symmetries, refusals, and the table."""

import json

import numpy as np
import pytest

from scaleinv_ray.conclude.universality.collapse import (
    ScalingCurve,
    collapse_quality,
    mean_curve_errors,
    rescaling,
    supercollapse,
)
from scaleinv_ray.conclude.universality.curves import collapse_table
from tests.conclude.measured_rows import curve

GRID = np.arange(6.0)
COLUMNS = {
    "series", "probe", "family", "invariant", "curve", "site", "depth_bin", "step", "variant", "S",
    "S_rescaled", "exponent_x", "exponent_x_low", "exponent_x_high", "exponent_y", "exponent_y_low",
    "exponent_y_high", "supercollapse", "n_models", "n_seeds", "reason",
}  # fmt: skip


def test_a_point_between_two_others_by_hand():
    # Y at 0.5 is the mean of both neighbours, its variance half of theirs
    line = ScalingCurve(1.0, np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.array([1.0, 1.0]))
    point = ScalingCurve(2.0, np.array([0.5, 9.0]), np.array([4.0, 0.0]), np.array([2.0, 2.0]))
    # of the four points two lie between: (4 - 1)^2 / (4 + 1/2), and 1 on (0.5, 4) -> (9, 0)
    at_one = 4 - 4 * 0.5 / 8.5
    variance = 4 * ((8 / 8.5) ** 2 + (0.5 / 8.5) ** 2)
    expected = (9 / 4.5 + (2 - at_one) ** 2 / (1 + variance)) / 2
    assert collapse_quality([line, point]) == pytest.approx(expected)


def test_units_of_x_and_y_and_of_size_change_nothing():
    rng = np.random.default_rng(0)
    curves = [ScalingCurve(n, GRID, rng.normal(size=6), np.ones(6)) for n in (1.0, 3.0, 9.0)]
    changed = [
        ScalingCurve(7 * c.size, 2 * c.x_P, -5 * c.y_P, 5 * c.stderr_P) for c in curves[::-1]
    ]
    for a, b in ((0.0, 0.0), (0.1, -0.3)):
        ours = collapse_quality(curves, exponent_x=a, exponent_y=b)
        assert collapse_quality(changed, exponent_x=a, exponent_y=b) == pytest.approx(ours)


def test_curves_that_do_not_overlap_have_no_quality():
    curves = [ScalingCurve(n, GRID + 100 * n, GRID, np.ones(6)) for n in (1.0, 2.0, 3.0)]
    assert collapse_quality(curves) is None


def test_sizes_of_opposite_sign_have_no_shape_in_common():
    # over its end each is +-1 at the first point: a spread relative to a mean of zero
    up = np.array([[1.0, 2.0, 1.0], [2.0, 3.0, 2.0]])
    down = np.array([[-1.0, 2.0, 1.0], [-2.0, 5.0, 2.0]])
    assert supercollapse([up, down]) is None
    assert supercollapse([up, 3 * up]) == pytest.approx(supercollapse([up, up]))


@pytest.mark.parametrize("unit", [2.0**-560, 2.0**500], ids=["1e-169", "1e150"])
def test_no_unit_is_too_small_or_too_large(unit):
    rng = np.random.default_rng(0)
    runs = [10 + GRID + rng.normal(size=(3, 6)) for _ in range(3)]

    def all_of(sample_CSP, x_P):
        errors = mean_curve_errors(sample_CSP)
        curves = [
            ScalingCurve(n, x_P, y_SP.mean(axis=0), stderr_P)
            for n, y_SP, stderr_P in zip((1.0, 3.0, 9.0), sample_CSP, errors, strict=True)
        ]
        return collapse_quality(curves, exponent_y=0.2), supercollapse(sample_CSP)

    # powers of two: not a digit may differ
    assert all_of([unit * y_SP for y_SP in runs], unit * GRID) == all_of(runs, GRID)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x_P": GRID[::-1]}, "ascend"),
        ({"y_P": np.full(6, np.nan)}, "finite"),
        ({"stderr_P": np.zeros(6)}, "only zeros"),
        ({"stderr_P": -np.ones(6)}, "negative"),
        ({"y_P": np.ones(5)}, "points"),
    ],
)
def test_refusals(change, text):
    good = ScalingCurve(1.0, GRID, GRID, np.ones(6))
    with pytest.raises(ValueError, match=text):
        collapse_quality([good, good._replace(**change)])


def test_too_few_curves_or_seeds_are_refused():
    good = ScalingCurve(1.0, GRID, GRID, np.ones(6))
    with pytest.raises(ValueError, match="curves: got 1"):
        collapse_quality([good])
    with pytest.raises(ValueError, match="curves: got 2"):
        rescaling([good, good])
    with pytest.raises(ValueError, match="2 degrees of freedom"):
        mean_curve_errors([np.ones((2, 4)), np.ones((2, 4))])
    assert supercollapse([np.ones((1, 4)), np.ones((2, 4))]) is None
    assert supercollapse([np.outer([1, 2], [1, 0.0]), np.ones((2, 2))]) is None  # ends at zero


def family(*, sizes=(10, 100, 1000, 10000), seeds=3, layers=2, power=0.0, **told):
    rng = np.random.default_rng(3)
    return [
        curve(GRID, (1 + GRID) * n**power * (1 + 0.05 * rng.normal(size=6)), n_params=n,
              model=f"m{n}", seed=seed, n_layers=layers, layer=layer, depth=(layer + 1) / layers,
              **told)
        for n in sizes for seed in range(seeds) for layer in range(layers)
    ]  # fmt: skip


def test_rows_of_the_table():
    rows = family() + family(power=0.5, curve="grown") + family(variant="random_init", step=0)
    out = collapse_table(rows)
    assert all(set(row) == COLUMNS for row in out)
    json.dumps(out, allow_nan=False)
    found = {(r["curve"], r["variant"]): r for r in out if r["depth_bin"] == "all"}
    flat = found["c", "trained"]
    assert flat["S_rescaled"] is None
    of_grown = [r | {"depth": None} for r in rows if r["curve"] == "grown"]
    (grown,) = collapse_table(of_grown, rescale=True)
    assert found["grown", "trained"]["S"] == pytest.approx(grown["S"])
    assert (flat["n_models"], flat["n_seeds"], flat["step"], flat["reason"]) == (4, 3, 100, "")
    assert flat["S"] < 3 < 30 < grown["S"]
    assert grown["exponent_y"] == pytest.approx(0.5, abs=0.05)
    assert grown["exponent_y_low"] < 0.5 < grown["exponent_y_high"]
    assert grown["S_rescaled"] < 3
    assert found["c", "random_init"]["step"] == 0
    assert {r["depth_bin"] for r in out} == {"all", "middle", "late"}
    assert collapse_table(rows[::-1]) == out


def test_what_cannot_be_compared_says_why():
    def only(rows):
        (row,) = [r for r in collapse_table(rows) if r["depth_bin"] == "all"]
        return row

    unordered = [r | {"x": r["x"][::-1]} for r in family()]
    assert "no function" in only(unordered)["reason"]
    assert "no errors" in only(family(seeds=1))["reason"]
    within = [r | {"y_stderr": [0.05] * 6} for r in family(seeds=1)]
    assert only(within)["S"] is not None
    assert "within models" in only(within)["reason"]
    assert "1 sizes" in only(family(sizes=(10,)))["reason"]
    apart = [r | {"step": r["n_params"]} for r in family()]
    assert "no step in common" in only(apart)["reason"]
    lacking = family()[1:]
    assert "1 models dropped" in only(lacking)["reason"]
    assert only(lacking)["n_seeds"] == 2
    longer = [r | {"x": [*GRID, 9.0], "y": [*r["y"], 0.0]} if r["seed"] else r for r in family()]
    assert "grids differ" in only(longer)["reason"]
    assert collapse_table([r | {"unit_b": "other"} for r in family()]) == []


def test_errors_that_are_no_numbers_are_a_reason_not_the_end():
    rows = [
        curve(GRID, GRID + n, y_stderr=error, n_params=n, model=f"m{n}")
        for n, error in ((1, [1.0] * 6), (2, [1.0] * 5 + [float("inf")]))
    ]
    [row] = collapse_table(rows)
    assert row["S"] is None and "not finite" in row["reason"]
