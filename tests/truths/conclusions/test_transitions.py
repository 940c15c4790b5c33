"""Breaks and jumps where they are known, and none where curves are smooth."""

from collections import Counter

import numpy as np
import pytest

from scaleinv_ray.conclude.training.onsets import OnsetFinder
from scaleinv_ray.conclude.training.transitions import ProgressKind, TransitionFinder

STEPS = [0, *(2**i for i in range(18))]
X_K = np.log1p(STEPS)
MIDDLE = float(X_K[9] + 0.3)


def simulate(truth_K, *, sd, repeats=150):
    finder, rng = TransitionFinder(np.random.default_rng(0)), np.random.default_rng(1)
    return [finder.find(STEPS, truth_K + sd * rng.normal(size=len(STEPS))) for _ in range(repeats)]


def share(found, kind):
    return np.mean([len(t) == 1 and t[0].kind is kind for t in found])


@pytest.mark.parametrize("sd", [0.02, 0.2])
def test_a_line_has_none(sd):
    assert share(simulate(0.3 * X_K, sd=sd), ProgressKind.NONE) > 0.95 - 3 * 0.018


@pytest.mark.parametrize(
    "truth_K",
    [0.05 * X_K**2, 3 * np.exp(-X_K / 4), 1 / (1 + np.exp(-(X_K - MIDDLE) / 2))],
    ids=["parabola", "relaxation", "wide sigmoid"],
)
def test_smooth_curves_have_none(truth_K):
    assert share(simulate(truth_K, sd=0.02), ProgressKind.NONE) > 0.95


def test_a_break_is_found_where_it_is():
    found = simulate(0.2 * np.maximum(X_K - MIDDLE, 0), sd=0.03)
    breaks = [t[0] for t in found if len(t) == 1 and t[0].kind is ProgressKind.BREAK]
    assert len(breaks) > 0.85 * len(found)
    truth = np.expm1(MIDDLE)
    covered = np.mean([t.step_low <= truth <= t.step_high for t in breaks])
    assert covered > 0.93
    assert np.mean([t.slope_after - t.slope_before for t in breaks]) == pytest.approx(0.2, abs=0.01)
    assert {t.step_low for t in breaks} <= set(STEPS)  # censored by the grid


def test_a_jump_lies_between_the_checkpoints_on_either_side():
    found = simulate(0.1 * X_K + (X_K > MIDDLE), sd=0.05)
    jumps = [t[0] for t in found if len(t) == 1 and t[0].kind is ProgressKind.JUMP]
    assert len(jumps) > 0.9 * len(found)
    for jump in jumps:
        assert (jump.step_low, jump.step_high) == (STEPS[9], STEPS[10])
        assert jump.height == pytest.approx(1.0, abs=0.25)
        assert jump.slope_before == jump.slope_after
        assert jump.p < 0.01


def test_two_transitions_are_found_one_after_the_other():
    truth = (X_K > X_K[5] + 0.1) + 2.0 * (X_K > X_K[12] + 0.1)
    found = simulate(truth, sd=0.02, repeats=40)
    # a staircase: both jumps are among what is found
    ends = [{(t.step_low, t.step_high) for t in runs} for runs in found]
    both = {(STEPS[5], STEPS[6]), (STEPS[12], STEPS[13])}
    assert np.mean([both <= e for e in ends]) > 0.9


TOKENS = [step * 2_097_152 for step in STEPS]
T_K = np.log([max(tokens, 2_097_152 / 2) for tokens in TOKENS])


@pytest.mark.parametrize(
    ("truth_K", "onset"),
    [
        (np.clip(T_K - 19, 0, 3), 19.0),
        (np.maximum(T_K - 21, 0), 21.0),
        (np.clip(T_K - 19, 0, 4) - 2 * np.maximum(T_K - 25, 0), 19.0),
        (-np.clip(T_K - 19, 0, 3), 19.0),
    ],
    ids=["ramp", "two segments", "decline after the rise", "fall"],
)
def test_onsets_of_straight_pieces(truth_K, onset):
    finder, rng = OnsetFinder(np.random.default_rng(0)), np.random.default_rng(1)
    found = [finder.find(TOKENS, truth_K + 0.05 * rng.normal(size=len(T_K))) for _ in range(40)]
    assert np.mean([f.t for f in found]) == pytest.approx(onset, abs=0.1)
    assert all(f.low <= onset <= f.high for f in found)


def test_onset_of_a_sigmoid_is_where_its_tangent_leaves_the_floor():
    truth_K = 1 / (1 + np.exp(-(T_K - 21) / 0.5))
    finder, rng = OnsetFinder(np.random.default_rng(0)), np.random.default_rng(1)
    found = [finder.find(TOKENS, truth_K + 0.02 * rng.normal(size=len(T_K))) for _ in range(40)]
    # a ramp fitted to it begins .4 w earlier
    assert np.mean([f.t for f in found]) == pytest.approx(20.0, abs=0.3)
    assert np.mean([f.low <= 20.0 <= f.high for f in found]) > 0.9


def test_noise_has_no_onset():
    finder, rng = OnsetFinder(np.random.default_rng(0)), np.random.default_rng(1)
    found = [finder.find(TOKENS, rng.normal(size=len(T_K))) for _ in range(150)]
    counts = Counter(isinstance(f, str) for f in found)
    assert counts[True] > 0.95 * len(found) - 3
