"""Emergence: exact permutations by hand, refusals, joins, and the table."""

import json

import numpy as np
import pytest

from scaleinv_ray.conclude.training.emergence import association, held_out_onset, lead_of
from scaleinv_ray.conclude.training.emergence_over_runs import emergence_table
from scaleinv_ray.conclude.training.onsets import OnsetFinder
from tests.conclude.measured_rows import measurement

STEPS = [0, *(2**i for i in range(14))]
PER_STEP = 1000
COLUMNS = {
    "series", "probe", "family", "invariant", "quantity", "site", "depth_bin", "task", "metric",
    "n_runs", "n_sizes", "correlation", "p", "q", "n_asked", "by_chance", "least_p",
    "p_given_loss", "lead", "lead_low", "lead_high", "spacing", "predicted", "predicted_low",
    "predicted_high", "observed", "naive_error", "outcome", "reason",
}  # fmt: skip


def rng():
    return np.random.default_rng(0)


def test_exact_p_by_counting():
    # of the 3! 3! orders, those with statistic >= the observed one, counted by hand
    sizes = [1, 1, 1, 2, 2, 2]
    found = association(sizes, [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 2, 1], rng=rng())
    # statistic 2 + 1; of the sums {2, 1, 1, -1, -1, -2} twice: (2, 2), (2, 1) x 2, (1, 2) x 2
    assert found.p == pytest.approx(5 / 36)
    assert found.least_p == pytest.approx(1 / 36)
    shifted = association(sizes, [5, 6, 7, 0, 1, 2], [0, 1, 2, 90, 92, 91], rng=rng())
    assert shifted == found  # only what differs within sizes counts


def test_many_runs_are_drawn():
    onset = np.arange(10.0)
    found = association([1] * 10, onset, onset, rng=rng())
    assert found.p == pytest.approx(1e-4)
    assert found.least_p < 1e-6


def test_refusals():
    few = association([1] * 4, range(4), range(4), rng=rng())
    assert (few.p, few.reason) == (None, "4 runs, needs 5")
    pairs = association([1, 1, 2, 2, 3, 3, 4], range(7), range(7), rng=rng())
    assert (pairs.p, pairs.least_p) == (None, 1 / 8)
    assert "least p is 0.12" in pairs.reason
    constant = association([1] * 5, [2.0] * 5, range(5), rng=rng())
    assert "does not vary" in constant.reason
    with pytest.raises(ValueError, match="size_R"):
        association([1], [1, 2], [1, 2], rng=rng())
    with pytest.raises(ValueError, match="runs: got 1"):
        lead_of([1], [np.ones(2)], [np.ones(2)], onset_R=[1], capability_R=[1], rng=rng())
    assert held_out_onset([1, 1, 2, 2], [1, 2, 3, 4], [1, 2, 3, 4]) is None


def test_onsets_say_why_there_is_none():
    finder = OnsetFinder(rng())
    assert "needs 6" in finder.find([0, 1, 2], [0, 1, 2])
    assert "no change" in finder.find(STEPS, [1.0] * len(STEPS))
    with pytest.raises(ValueError, match="tokens"):
        finder.find([1, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="tokens"):
        finder.find([0], [0])
    with pytest.raises(ValueError, match="finite"):
        finder.find([1, 2, 3], [0, np.inf, 2])


def test_an_exact_ramp_is_found_exactly_in_any_units_and_order():
    tokens = np.exp(np.arange(12.0))
    y = np.clip(np.arange(12.0) - 4, 0, 3)
    found = OnsetFinder(rng()).find(tokens, y)
    turned = OnsetFinder(rng()).find(tokens[::-1], (5 - 2 * y)[::-1])
    assert found.t == turned.t == pytest.approx(4.0)
    assert found.form == "two_segment"
    assert (found.low, found.high, found.spacing) == pytest.approx((4, 5, 1))


def runs(shift_of, *, seeds=3, sizes=(10, 20)):
    """Measurements and capabilities, which rise `shift` e-foldings after the invariant."""
    noise = np.random.default_rng(1)
    rows, capabilities = [], []
    for n in sizes:
        for seed in range(seeds):
            start = 7.0 + 0.6 * seed
            for step in STEPS:
                t = np.log(max(step, 0.5) * PER_STEP)
                at = {"n_params": n, "model": f"org/M{n}-s{seed}", "seed": seed, "step": step}
                value = float(np.exp(np.clip(t - start, 0, 2) + 0.02 * noise.normal()))
                told = {"train_tokens": step * PER_STEP, "eval_loss": 9 - t, "value": value}
                rows.append(measurement(**at, **told))
                late = np.clip(t - start - shift_of(seed), 0, 2) + 0.02 * noise.normal()
                capabilities.append(
                    {"model": f"m{n}-s{seed}", "tokens": step * PER_STEP, "task": "piqa",
                     "metric": "acc", "value": float(late)}
                )  # fmt: skip
    return rows, capabilities


def table(rows, capabilities):
    return emergence_table(rows, capabilities, quantities={}, rng=rng())


def test_an_invariant_that_leads_predicts():
    rows, capabilities = runs(lambda seed: 1.5)
    (found,) = table(rows, capabilities)
    assert set(found) == COLUMNS
    json.dumps(found, allow_nan=False)
    assert (found["outcome"], found["n_runs"], found["n_sizes"]) == ("predicts", 6, 2)
    assert found["p"] == pytest.approx(1 / 36)
    assert found["lead"] == pytest.approx(1.5, abs=0.15)
    assert found["lead_low"] > found["spacing"] == pytest.approx(np.log(2))
    assert found["p_given_loss"] == found["p"]  # all runs have the same loss
    (turned,) = table(rows[::-1], capabilities)
    assert turned["correlation"] == found["correlation"]


def test_a_lead_within_the_grid_is_no_prediction():
    (found,) = table(*runs(lambda seed: 0.2))
    assert found["outcome"] == "associated"
    (apart,) = table(*runs(lambda seed: 1.5 - 1.2 * seed))
    assert apart["outcome"] == "not_established"


def test_too_few_runs_are_refused_and_runs_without_onset_counted():
    (found,) = table(*runs(lambda seed: 1.5, seeds=2))
    assert (found["outcome"], found["p"]) == ("refused", None)
    rows, capabilities = runs(lambda seed: 1.5)
    for row in capabilities:
        if row["model"] == "m10-s0":
            row["value"] = 1.0
    (found,) = table(rows, capabilities)
    assert found["n_runs"] == 5
    assert "least p is 0.083" in found["reason"]
    assert "1 runs without onset (no change" in found["reason"]


def test_joins():
    rows, capabilities = runs(lambda seed: 1.5)
    assert table(rows, [c | {"model": "another"} for c in capabilities]) == []
    one_name = [r | {"model": "M10"} for r in rows if r["n_params"] == 10]
    with pytest.raises(ValueError, match="several seeds"):
        table(one_name, [c | {"model": "m10"} for c in capabilities[: len(STEPS)]])
    seeded = [
        c | {"model": "m10", "seed": int(c["model"][-1])}
        for c in capabilities
        if c["model"].startswith("m10")
    ]
    (found,) = table(one_name, seeded)
    assert found["n_runs"] == 3
