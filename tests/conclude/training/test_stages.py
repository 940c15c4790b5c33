"""Stages of runs: which transitions share an interval, and how often by chance."""

import json
import math

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.training.stages import Interval, chance_of, stages_table, tail_of
from scaleinv_ray.conclude.training.transitions import transitions_table
from scaleinv_ray.contract import Quantity
from tests.conclude.measured_rows import measurement

STEPS = [0, *(2**i for i in range(13))]
SPECTRAL = {"family": "curvature", "invariant": "curvature.i", "quantity": "lambda_max"}
BEHAVIOUR = {"family": "behaviour", "invariant": "behaviour.i", "quantity": "copying_gain"}
QUANTITIES = {
    ("curvature.i", "lambda_max"): Quantity(law="none", unit=1.0),
    ("behaviour.i", "copying_gain"): Quantity(law="none", unit=2.0),
}


def run(*, seed=0, spectral=(), behaviour=(), sd=0.01):
    """Rows of a run whose quantities jump by 1 above the given steps."""
    rng = np.random.default_rng(seed)
    return [
        measurement(
            **what, n_params=10, model="m", seed=seed, step=step,
            value=sum(step > at for at in jumps) + sd * rng.normal(),
        )
        for what, jumps in ((SPECTRAL, spectral), (BEHAVIOUR, behaviour))
        for step in STEPS
    ]  # fmt: skip


def stages(rows):
    found = transitions_table(rows, quantities=QUANTITIES, rng=np.random.default_rng(0))
    out = stages_table(found, rows, quantities=QUANTITIES)
    assert tables.encode(out, SCHEMAS["stages"]).num_rows == len(out)
    json.dumps(out, allow_nan=False)
    return out


def test_what_moves_together_is_one_stage():
    (stage,) = stages(run(spectral=[64], behaviour=[64]))
    assert (stage["step_low"], stage["step_high"]) == (64, 128)
    assert stage["spectrum"][0].startswith("curvature.i lambda_max (prose, resid_post): +")
    assert stage["spectrum_change"] == pytest.approx([1.0], abs=0.1)
    assert stage["behaviour_change"] == pytest.approx([0.5], abs=0.05), "in units of 2"
    assert (stage["n_events"], stage["n_coincident"]) == (1, 1)
    # an interval of one gap overlaps one of one gap where it starts within two gaps' length
    span = math.log1p(2048) - math.log1p(1)
    gap = math.log1p(128) - math.log1p(64)
    assert stage["p"] == pytest.approx(2 * gap / (span - gap), rel=1e-6)
    assert stage["reason"].startswith("1 of 1 events of behaviour coincide")


def test_what_moves_alone_is_a_stage_of_its_own():
    first, second = stages(run(spectral=[16], behaviour=[512]))
    assert first["spectrum"] and not first["behaviour"]
    assert second["behaviour"] and not second["spectrum"]
    assert first["n_coincident"] == 0 and first["p"] == 1.0


def test_neighbouring_gaps_do_not_overlap():
    assert len(stages(run(spectral=[32], behaviour=[64]))) == 2


def test_no_transition_of_behaviour():
    (stage,) = stages(run(spectral=[64]))
    assert stage["p"] is None and stage["reason"] == "no transition of behaviour"


def test_all_runs_of_a_series_together_say_more():
    rows = [
        row
        for seed, at in enumerate((16, 64, 256))
        for row in run(seed=seed, spectral=[at], behaviour=[at])
    ]  # fmt: skip
    found = stages(rows)
    assert [stage["seed"] for stage in found] == [0, 1, 2]
    alone = [stage["p"] for stage in found]
    assert found[0]["p_series"] == pytest.approx(math.prod(alone))
    assert found[0]["p_series"] < 0.02 < min(alone)
    assert stages(rows[::-1]) == found


def test_falls_have_a_sign():
    rows = run(spectral=[64], behaviour=[64])
    for row in rows:
        if row["family"] == "behaviour":
            row["value"] = -row["value"]
    (stage,) = stages(rows)
    assert stage["behaviour_change"] == pytest.approx([-0.5], abs=0.05)
    assert "-0." in stage["behaviour"][0]


def test_the_chance_of_random_times_is_exact():
    """Against events that are thrown at random."""
    rng = np.random.default_rng(0)
    held = [Interval(1.0, 2.0), Interval(1.5, 2.5), Interval(6.0, 6.5)]
    lengths, span = (0.5, 1.0, 2.0), Interval(0.0, 10.0)
    events = [Interval(2.0, 2.5), Interval(6.2, 7.2), Interval(8.0, 10.0)]
    found = chance_of(events, held, span)
    assert found.coincident == 2
    starts_BE = rng.uniform(size=(20_000, 3)) * (10.0 - np.array(lengths))
    hits_BE = np.zeros_like(starts_BE, dtype=bool)
    for low, high in held:
        hits_BE |= (starts_BE < high) & (starts_BE + np.array(lengths) > low)
    assert found.expected == pytest.approx(hits_BE.sum(axis=1).mean(), abs=0.02)
    assert found.p == pytest.approx((hits_BE.sum(axis=1) >= 2).mean(), abs=0.015)


def test_p_is_uniform_under_random_times():
    """Exact for discrete counts: P(p <= a) <= a."""
    rng = np.random.default_rng(0)
    held, span = [Interval(2.0, 3.0), Interval(7.0, 7.4)], Interval(0.0, 10.0)
    p = []
    for _ in range(2000):
        start = rng.uniform(0, 9, size=4)
        p.append(chance_of([Interval(s, s + 1) for s in start], held, span).p)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) < level + 3 * math.sqrt(level / 2000)


def test_tails():
    assert tail_of([], 0) == 1.0
    assert tail_of([0.2, 0.3], 2) == pytest.approx(0.06)
    assert chance_of([Interval(0, 5)], [Interval(1, 2)], Interval(0, 4)).p == 1.0
    assert chance_of([Interval(0, 1)], [], Interval(0, 4)).p == 1.0
