"""False discoveries among many questions: kept at the level, counted by chance as often as happens.

Simulation: runs with places whose errors share most of their variance, with either sign, as layers
of one model do; onsets of many quantities set against those of few capabilities; widths over size.
"""

import math

import numpy as np
import pytest

from scaleinv_ray.conclude.training.discoveries import Question, asked_of
from scaleinv_ray.conclude.training.emergence import association, reached_level
from scaleinv_ray.conclude.training.emergence_over_runs import emergence_table
from scaleinv_ray.conclude.training.order import finite_size
from scaleinv_ray.conclude.training.transitions import ALPHA, TransitionFinder, transitions_table
from tests.conclude.measured_rows import measurement

STEPS = [0, *(2**i for i in range(14))]
X_K = np.log1p(STEPS)
LEVEL = 0.05


def most(rate, repeats):
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


def alike(rng, count, length, *, shared):
    """Errors [count, length] of which a share is common, each with a sign of its own."""
    sign = rng.choice([-1.0, 1.0], size=(count, 1))
    own = rng.normal(size=(count, length))
    return math.sqrt(shared) * sign * rng.normal(size=length) + math.sqrt(1 - shared) * own


def false_share(asked, null):
    """Share of the discoveries that are false, 0 where there are none."""
    found = [name for name, of in asked.items() if of.q <= LEVEL]
    return sum(name in null for name in found) / max(len(found), 1), len(found)


def searched(repeats, *, jumps):
    """False share in each repeat, share of the jumps found, share of the lines called."""
    finder, rng = TransitionFinder(np.random.default_rng(0)), np.random.default_rng(1)
    false, found, called, lines = [], 0, 0, 0
    for _ in range(repeats):
        tests, null = {}, set()
        for run in range(6):
            for place, error_K in enumerate(alike(rng, 10, len(X_K), shared=0.7)):
                jump_K = 0.8 * (X_K > X_K[7] + 0.1) if place < jumps else 0.0
                [first, *_] = finder.find(STEPS, 0.3 * X_K + jump_K + 0.1 * error_K)
                tests[run, place] = Question(first.claim_p, ALPHA, "all")
                if place >= jumps:
                    null.add((run, place))
                    lines += 1
                    called += first.step is not None
        asked = asked_of(tests, method="bh")
        share, count = false_share(asked, null)
        false.append(share)
        found += count
    assert asked[0, 0].by_chance == pytest.approx(60 * ALPHA)
    return false, found / (repeats * 6 * max(jumps, 1)), called / lines


def test_no_more_false_transitions_than_said():
    false, _, called = searched(120, jumps=0)
    assert np.mean(false) <= most(LEVEL, 120)
    # at most by chance; some lines are left to the smooth curve
    assert 0.4 * ALPHA < called <= most(ALPHA, 120 * 60 / 5)
    false, power, _ = searched(40, jumps=5)
    assert np.mean(false) <= LEVEL
    assert power > 0.9


def associated(repeats, *, real):
    """False share in each repeat, share of the real ones found, share of the others called."""
    rng = np.random.default_rng(2)
    size_R = np.repeat(np.arange(4), 3)
    false, found, called, others = [], 0, 0, 0
    for _ in range(repeats):
        tests, null = {}, set()
        for capability in range(2):
            late_R = rng.normal(size=12)
            early = alike(rng, 15, 12, shared=0.8)
            for quantity, early_R in enumerate(early):
                told = quantity < real
                early_R = late_R + 0.2 * early_R if told else early_R
                tied = association(size_R, early_R, late_R, rng=rng)
                level = reached_level(tied.least_p)
                tests[capability, quantity] = Question(tied.p, level, "all")
                if not told:
                    null.add((capability, quantity))
                    others += 1
                    called += tied.p <= ALPHA
        asked = asked_of(tests, method="by")
        share, count = false_share(asked, null)
        false.append(share)
        found += count
    assert asked[0, 0].by_chance == pytest.approx(30 * 64 / 1296)
    return false, found / (repeats * 2 * max(real, 1)), called / others


def test_no_more_false_announcements_than_said():
    false, _, called = associated(80, real=0)
    assert np.mean(false) <= most(LEVEL, 80)
    assert called == pytest.approx(64 / 1296, abs=0.02)
    false, power, _ = associated(40, real=5)
    assert np.mean(false) <= LEVEL
    assert power > 0.7


def sharpened(repeats, *, real):
    """The same of the widths of four sizes and three seeds: slopes of some places are real."""
    rng = np.random.default_rng(4)
    size_R = np.repeat([10**i for i in range(3, 7)], 3)
    false, found = [], 0
    for _ in range(repeats):
        errors = alike(rng, 20, len(size_R), shared=0.6)
        slope = [-0.2 * (place < real) for place in range(20)]
        fits = [
            finite_size(size_R, np.exp(k * np.log(size_R) + 0.05 * e_R))
            for k, e_R in zip(slope, errors, strict=True)
        ]
        tests = {place: Question(fit.p, LEVEL, "all") for place, fit in enumerate(fits)}
        share, count = false_share(asked_of(tests, method="by"), set(range(real, 20)))
        false.append(share)
        found += count
    return false, found / (repeats * max(real, 1))


def test_no_more_false_orders_than_said():
    false, _ = sharpened(150, real=0)
    assert np.mean(false) <= most(LEVEL, 150)
    false, power = sharpened(40, real=10)
    assert np.mean(false) <= LEVEL
    assert power > 0.7


def test_levels_that_permutations_reach():
    # 6 orders: p is a multiple of 1/6 and never .05; 24: once; 36: 1/36; drawn: 500 of 10,000
    counts = [(1 / 6, 0.0), (1 / 24, 1 / 24), (1 / 36, 1 / 36), (1 / math.factorial(10), 0.05)]
    for least_p, level in counts:
        assert reached_level(least_p) == pytest.approx(level)


def rows_of(rng, *, places, sizes=4, seeds=3):
    """Sigmoids over training in every run and place, whose onsets are those of nothing else."""
    rows = []
    for size in range(1, sizes + 1):
        for seed in range(seeds):
            onset = 4.5 + 1.2 * alike(rng, places, 1, shared=0.5)[:, 0]
            for place, at in enumerate(onset):
                y_K = 1 / (1 + np.exp(-(X_K - at) / 0.4)) + 0.02 * rng.normal(size=len(X_K))
                rows += [
                    measurement(
                        n_params=size, model=f"m{size}", seed=seed, step=step, quantity=f"q{place}",
                        train_tokens=1000 * step, value=2 + float(y),
                    )
                    for step, y in zip(STEPS, y_K, strict=True)
                ]  # fmt: skip
    return rows


def capabilities_of(rows):
    """The last place as capability, the others as quantities."""
    last = max(row["quantity"] for row in rows)
    told = [
        {"model": r["model"], "seed": r["seed"], "tokens": r["train_tokens"], "task": "t",
         "metric": "m", "value": r["value"]}
        for r in rows if r["quantity"] == last
    ]  # fmt: skip
    return [row for row in rows if row["quantity"] != last], told


@pytest.mark.slow
def test_false_discoveries_of_whole_tables():
    rng, repeats = np.random.default_rng(3), 60
    false = 0
    for _ in range(repeats):
        inner, told = capabilities_of(rows_of(rng, places=6))
        table = emergence_table(inner, told, quantities={}, rng=np.random.default_rng(0))
        tested = [row for row in table if row["p"] is not None]
        assert {row["n_asked"] for row in tested} == {len(tested)}
        false += any(row["q"] <= LEVEL for row in tested)
    assert false / repeats <= most(LEVEL, repeats)
    false = 0
    for _ in range(repeats):
        lines = [
            measurement(n_params=1, model="m", seed=seed, step=step, quantity=f"q{place}",
                        value=10 + 0.3 * x + 0.1 * float(e))
            for seed in range(3)
            for place, error_K in enumerate(alike(rng, 10, len(X_K), shared=0.7))
            for step, x, e in zip(STEPS, X_K, error_K, strict=True)
        ]  # fmt: skip
        table = transitions_table(lines, quantities={}, rng=np.random.default_rng(0))
        false += any(row["q"] <= LEVEL for row in table)
    assert false / repeats <= most(LEVEL, repeats)
    many, _, called = searched(1000, jumps=0)
    assert np.mean(many) <= most(LEVEL, 1000)
    assert called <= ALPHA
    assert np.mean(associated(400, real=0)[0]) <= most(LEVEL, 400)
