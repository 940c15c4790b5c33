"""How often an invariant is wrongly, and rightly, said to announce a capability.

Simulation: 5 sizes of 3 seeds; onsets of invariant and capability fall with size (a trend that all
runs share), and within a size scatter by .5 in ln tokens with correlation rho. Curves are sigmoids
of width .4 over the 27 published Pythia checkpoints, with noise of 3 % of their rise.
"""

import math

import numpy as np
import pytest

from scaleinv_ray.conclude.training.emergence import association, held_out_onset, lead_of
from scaleinv_ray.conclude.training.onsets import OnsetFinder

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 3000, *range(13000, 144000, 10000)]
TOKENS = np.array(STEPS) * 2_097_152.0
T_K = np.log(np.where(TOKENS > 0, TOKENS, 2_097_152 / 2))


def onsets(rng, rho, *, sizes=5, seeds=3):
    size_R = np.repeat(np.arange(sizes), seeds)
    z = rng.normal(size=(2, sizes * seeds))
    early = 20 - 0.3 * size_R + 0.5 * z[0]
    return size_R, early, 21 - 0.3 * size_R + 0.5 * (rho * z[0] + math.sqrt(1 - rho**2) * z[1])


def power(rho, *, repeats, sizes=5, seeds=3, given=False):
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(repeats):
        size_R, early, late = onsets(rng, rho, sizes=sizes, seeds=seeds)
        extra = {"given_R": rng.normal(size=len(early))} if given else {}
        rejected += association(size_R, early, late, rng=rng, **extra).p <= 0.05
    return rejected / repeats


def most(rate, repeats):
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize(("sizes", "seeds"), [(5, 3), (1, 5), (5, 2)])
def test_independent_onsets_with_a_common_trend_over_size_are_not_associated(sizes, seeds):
    assert power(0.0, repeats=600, sizes=sizes, seeds=seeds) <= most(0.05, 600)


def test_partialling_out_keeps_the_level():
    assert power(0.0, repeats=600, given=True) <= most(0.06, 600)


def test_power():
    # .91 of 1000
    assert power(0.8, repeats=400) > 0.86


def test_what_a_covariate_explains_is_not_announced():
    rng = np.random.default_rng(1)
    alone, given = 0, 0
    for _ in range(200):
        size_R = np.repeat(np.arange(5), 3)
        loss = rng.normal(size=15)
        early, late = loss + 0.3 * rng.normal(size=15), loss + 0.3 * rng.normal(size=15)
        alone += association(size_R, early, late, rng=rng).p <= 0.05
        given += association(size_R, early, late, rng=rng, given_R=loss).p <= 0.05
    assert alone > 0.9 * 200
    assert given <= 200 * most(0.07, 200)


def test_correlation_of_curves_within_a_run_would_be_found_everywhere():
    # the reason for all of this: independent runs, T = 27, naive Pearson
    rng = np.random.default_rng(2)
    size_R, early, late = onsets(rng, 0.0, sizes=30, seeds=1)
    correlations = [
        np.corrcoef(np.tanh(T_K - a), np.tanh(T_K - b))[0, 1]
        for a, b in zip(early, late, strict=True)
    ]
    assert min(correlations) > 0.5  # p = .008 at T = 27


@pytest.mark.parametrize(("sizes", "seeds"), [(5, 3), (1, 5), (5, 2)])
def test_interval_of_the_lead_covers(sizes, seeds):
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(150):
        size_R, early, _ = onsets(rng, 0.0, sizes=sizes, seeds=seeds)
        late = early + 0.5 + 0.5 * rng.normal(size=len(early))
        draws = [[t + 0.1 * rng.normal(size=200) for t in of] for of in (early, late)]
        lead = lead_of(size_R, *draws, onset_R=early, capability_R=late, rng=rng)
        covered += lead.low < 0.5 < lead.high
    assert covered / 150 > 0.95 - 3 * 0.018


def test_the_largest_size_is_predicted_from_the_others():
    rng = np.random.default_rng(4)
    covered, better = 0, 0
    for _ in range(200):
        size_R, early, _ = onsets(rng, 0.0)
        late = 1.5 + 0.95 * early + 0.05 * rng.normal(size=15)
        found = held_out_onset(size_R, early, late)
        covered += found.low <= found.observed <= found.high
        better += abs(found.predicted - found.observed) < abs(found.naive_last - found.observed)
    assert covered / 200 == pytest.approx(0.9, abs=3 * 0.021)
    assert better > 160


def from_curves(rho, repeats):
    rng = np.random.default_rng(5)
    finder = OnsetFinder(np.random.default_rng(6))
    rejected = 0
    for _ in range(repeats):
        sizes, found = [], []
        for size, early, late in zip(*onsets(rng, rho), strict=True):
            pair = [
                finder.find(TOKENS, 1 / (1 + np.exp(-(T_K - t - 0.8) / 0.4)) + noise)
                for t, noise in zip((early, late), 0.03 * rng.normal(size=(2, 27)), strict=True)
            ]
            if not any(isinstance(onset, str) for onset in pair):
                sizes.append(size)
                found.append([onset.t for onset in pair])
        early_R, late_R = np.array(found).T
        rejected += association(sizes, early_R, late_R, rng=rng).p <= 0.05
    return rejected / repeats


@pytest.mark.slow
def test_operating_characteristics_from_the_curves():
    assert from_curves(0.0, 200) <= most(0.05, 200)
    # onsets are found within .2; the power of exact onsets is .97
    assert from_curves(0.9, 100) > 0.80
