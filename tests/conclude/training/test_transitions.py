"""Transitions: refusals, the exact null of the search, and the table."""

import json

import numpy as np
import pytest
from scipy import stats

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.training.change_points import (
    best_shape,
    null_of_search,
    search_p,
    shapes_of,
)
from scaleinv_ray.conclude.training.transitions import (
    ProgressKind,
    TransitionFinder,
    transitions_table,
)
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import measurement

STEPS = (0, 1, 3, 7, 15, 31, 63, 127, 255, 511)


def test_one_shape_is_the_ordinary_f_test():
    rng = np.random.default_rng(0)
    x = np.arange(12.0)
    shapes = shapes_of(np.ones((12, 1)), x[None], picked_by=0)
    y = rng.normal(size=12) + 0.1 * x
    match = best_shape(shapes, y)
    line = stats.linregress(x, y)
    assert match.f == pytest.approx((line.slope / line.stderr) ** 2)
    assert search_p(null_of_search(shapes, rng), match.f) == pytest.approx(line.pvalue, abs=0.03)


def test_shapes_within_the_base_are_no_shapes():
    base = np.stack([np.ones(6), np.arange(6.0)], axis=1)
    with pytest.raises(ValueError, match="checkpoints"):
        shapes_of(base, 2.0 * np.arange(6.0)[None], picked_by=1)
    with pytest.raises(ValueError, match="needs 5"):
        shapes_of(np.ones((4, 1)), np.eye(4), picked_by=2)


def find(values, steps=STEPS):
    return TransitionFinder(np.random.default_rng(0)).find(steps, values)


def test_order_and_units_of_the_values_change_nothing():
    y = np.random.default_rng(1).normal(size=10) * 0.05 + (np.arange(10) > 4)
    (found,), (scaled,) = find(y), find(-3 * y + 7)
    (turned,) = find(y[::-1], STEPS[::-1])
    assert found == turned
    assert found.kind is scaled.kind is ProgressKind.JUMP
    assert scaled.height == pytest.approx(-3 * found.height)
    assert (scaled.p, scaled.step_low) == (found.p, found.step_low)


def test_exact_lines_and_constants_have_none():
    for y in (np.zeros(10), np.full(10, 3.7), 0.1 + 0.3 * np.log1p(STEPS)):
        (found,) = find(y)
        assert found.kind is ProgressKind.NONE


def test_refusals():
    (few,) = find([1.0] * 5, STEPS[:5])
    assert (few.kind, few.reason) == (ProgressKind.UNDETERMINED, "5 checkpoints, needs 6")
    with pytest.raises(ValueError, match="distinct"):
        find([1.0] * 6, [0, 0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="finite"):
        find([np.nan] * 10)


def test_rows_per_run_and_place():
    rng = np.random.default_rng(2)
    rows = [
        measurement(n_params=10, model=f"m{seed}", seed=seed, step=step, layer=layer,
                    depth=(layer + 1) / 2,
                    value=float(np.exp(0.01 * rng.normal() + (step > 15) * (1 + seed))))
        for seed in (0, 1) for step in STEPS for layer in (0, 1)
    ]  # fmt: skip
    out = transitions_table(rows, quantities={}, rng=np.random.default_rng(0))
    assert tables.encode(out, SCHEMAS["transitions"]).num_rows == 6
    json.dumps(out, allow_nan=False)
    for row in out:
        assert (row["kind"], row["step_low"], row["step_high"]) == ("jump", 15, 31)
        height = float(row["reason"].split()[-1])
        assert height == pytest.approx(1 + row["seed"], abs=0.05)  # of the logarithm
    assert transitions_table(rows[::-1], quantities={}, rng=np.random.default_rng(0)) == out
    in_units = {("f.i", "q"): Quantity(law="none", unit=2.0)}
    (first, *_) = transitions_table(rows, quantities=in_units, rng=np.random.default_rng(0))
    assert float(first["reason"].split()[-1]) == pytest.approx((np.e - 1) / 2, abs=0.05)


def curve_rows(y, **told):
    return [
        measurement(n_params=10, model="m", step=step, value=float(v), **told)
        for step, v in zip(STEPS, y, strict=True)
    ]


def test_all_rows_of_a_curve_carry_the_q_of_its_claim():
    rng, x = np.random.default_rng(4), np.log1p(STEPS)
    many = (*STEPS, *(2**i - 1 for i in range(10, 19)))
    wide = np.log1p(many)
    stairs = (wide > wide[5] + 0.1) + 2.0 * (wide > wide[12] + 0.1)
    rows = [
        measurement(n_params=10, model="m", quantity="stairs", step=step, value=10 + float(v))
        for step, v in zip(many, stairs + 0.01 * rng.normal(size=len(many)), strict=True)
    ]
    rows += curve_rows(10 + 0.1 * x**2, quantity="smooth")
    rows += curve_rows(10 + 0.3 * x + 0.1 * rng.normal(size=10), quantity="line")
    rows += curve_rows(10 + 0.3 * x, quantity="control")
    rows += curve_rows(10 + 0.3 * x, quantity="short")[:5]
    claims = {("f.i", "control"): Quantity(law="none", control=True)}
    table = transitions_table(rows, quantities=claims, rng=np.random.default_rng(0))
    of = {}
    for row in table:
        of.setdefault(row["quantity"], []).append(row)
    assert len(of["stairs"]) >= 2
    [q] = {r["q"] for r in of["stairs"]}
    # one of three asked: three times the p of the search that was made first
    assert q in [pytest.approx(3 * r["p"]) for r in of["stairs"]]
    [smooth] = of["smooth"]
    assert (smooth["kind"], smooth["q"]) == ("none", 1.0) and smooth["p"] < 0.05
    for name in ("control", "short"):
        assert [(r["q"], r["n_asked"], r["by_chance"]) for r in of[name]] == [(None, None, None)]
    assert {r["n_asked"] for n in ("stairs", "smooth", "line") for r in of[n]} == {3}
    assert of["line"][0]["by_chance"] == pytest.approx(0.15)
    tables.encode(table, SCHEMAS["transitions"])


def test_thirds_of_the_depth_are_asked_apart():
    rows = [r for i in range(3) for r in curve_rows(range(10, 20), layer=i, depth=(i + 1) / 3)]
    table = transitions_table(rows, quantities={}, rng=np.random.default_rng(0))
    asked = {row["depth_bin"]: row["n_asked"] for row in table}
    assert asked == {"all": 1, "early": 3, "middle": 3, "late": 3}


def test_a_refused_layer_leaves_its_checkpoint_out():
    rows = [measurement(n_params=10, model="m", step=s, value=1.0 + s) for s in STEPS[:6]]
    rows[2] |= {"status": "refused", "value": None, "error": "too few"}
    rows += [r | {"variant": "random_init"} for r in rows]
    (found,) = transitions_table(rows, quantities={}, rng=np.random.default_rng(0))
    assert (found["kind"], found["reason"]) == ("undetermined", "5 checkpoints, needs 6")
