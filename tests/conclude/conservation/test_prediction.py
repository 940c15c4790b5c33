"""Predictions of held-out and of larger models."""

import json

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.conservation.fits import LOGARITHMIC, aicc, candidates, fit
from scaleinv_ray.conclude.conservation.hypothesis_tests import moments
from scaleinv_ray.conclude.conservation.prediction import (
    forecast,
    means_of,
    predict_held_out,
    rolling,
)
from scaleinv_ray.conclude.conservation.value_scale import series_of
from scaleinv_ray.conclude.conservation.verdicts_table import judge_table, predict_named
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import measurement

SIZES = [1e6 * 3.0**i for i in range(8)]


def series(mean_of, *, sizes=8, seeds=3):
    rng = np.random.default_rng(0)
    values = [
        [mean_of(n) * np.exp(0.002 * rng.normal()) for _ in range(seeds)] for n in SIZES[:sizes]
    ]
    made = series_of(SIZES[:sizes], values)
    return made, moments(made.y_KS[None])


def offset(n):
    return 1 + 4 * (n / SIZES[0]) ** -0.6


def test_every_size_is_predicted_from_those_that_can_hold_the_form():
    power = rolling(*series(offset), form="power")
    assert [len(p.fitted_on) for p in power] == [3, 4, 5, 6, 7]
    with_offset = rolling(*series(offset), form="offset_power")
    assert [len(p.fitted_on) for p in with_offset] == [4, 5, 6, 7]
    assert with_offset[-1].error < 0.01 < power[-1].error


def test_three_coefficients_need_six_sizes():
    for sizes, allowed in ((4, False), (5, False), (6, True)):
        made, given = series(offset, sizes=sizes)
        assert ("offset_power" in candidates(LOGARITHMIC, sizes)) is allowed
        found = aicc(fit("offset_power", LOGARITHMIC, means_of(made, given)))
        assert (found is not None) is allowed


def test_forecast_is_the_prediction_without_the_observation():
    made, given = series(lambda n: n**0.5)
    held = predict_held_out(made, given, 7, form="power")
    shorter, of_shorter = series(lambda n: n**0.5, sizes=7)
    found = forecast(shorter, of_shorter, SIZES[7], form="power")
    assert found.predicted == pytest.approx(held.predicted)
    # of one seed, not of a mean of three
    assert found.low < held.low < held.high < found.high
    with pytest.raises(ValueError, match="n_params: got"):
        forecast(made, given, SIZES[7], form="power")
    with pytest.raises(ValueError, match="sizes: got 2"):
        predict_held_out(made, given, 2, form="power")


def rows(mean_of, *, sizes=8, **told):
    rng = np.random.default_rng(1)
    return [
        measurement(n_params=int(n), model=f"m{n:g}", seed=seed,
                    value=mean_of(n) * float(np.exp(0.002 * rng.normal()))) | told
        for n in SIZES[:sizes] for seed in range(3)
    ]  # fmt: skip


def test_a_named_model():
    measured = rows(lambda n: n**0.5) + rows(lambda n: 2.0, quantity="flat")
    found = predict_named(measured, quantities={}, n_params=10**11, model="giant")
    assert tables.encode(found, SCHEMAS["predictions"]).num_rows == 3
    json.dumps(found, allow_nan=False)
    by = {(r["quantity"], r["form"]): r for r in found}
    assert set(by) == {("q", "power"), ("flat", "power"), ("flat", "constant")}
    law = by["q", "power"]
    assert law["low"] < 1e11**0.5 < law["high"]
    assert (law["model"], law["n_params"], len(law["fitted_on"])) == ("giant", 10**11, 8)
    assert law["observed"] is law["error"] is law["covered"] is None
    assert by["flat", "constant"]["high"] - by["flat", "constant"]["low"] < 0.05
    assert predict_named([], quantities={}, n_params=1, model="x") == []


def test_offset_power_laws_are_predicted_in_the_tables():
    verdicts, predictions = judge_table(rows(offset), quantities={})
    assert [v["form"] for v in verdicts] == ["offset_power"]
    assert sum(p["form"] == "offset_power" for p in predictions) == 4
    (_, found) = predict_named(rows(offset), quantities={}, n_params=10**11, model="x")
    assert found["form"] == "offset_power"
    assert found["low"] < offset(1e11) < found["high"]


def test_what_cannot_be_predicted_has_no_row():
    mixed = rows(lambda n: 1.0 if n < 1e7 else -1.0)
    assert predict_named(mixed, quantities={}, n_params=10**11, model="x") == []
    claims = {("f.i", "q"): Quantity(law="none", unit=1.0)}
    assert predict_named(mixed, quantities=claims, n_params=10**11, model="x")
    assert predict_named(rows(offset, sizes=2), quantities={}, n_params=10**11, model="x") == []
    assert predict_named(rows(offset), quantities={}, n_params=5, model="x") == []
    with pytest.raises(ValueError, match="comparisons"):
        predict_named([], quantities={}, n_params=5, model="x", comparisons=["equal_time"])
