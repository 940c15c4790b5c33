"""How often a law is said to be learned, architectural or trivial, where the truth is known."""

import math
from collections import Counter

import numpy as np
import pytest

from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.nulls import NullClass, compare_with_null
from scaleinv_ray.conclude.conservation.verdict import Verdicts

SIZES = [1e6 * 3.0**i for i in range(5)]
SPAN_K = np.linspace(0.0, 1.0, 5)
TRIPLES_K = math.log(3) * SPAN_K
DELTA = math.log(1.1)
SEED_SD = 0.02
REPEATS = [pytest.param(80, id="quick"), pytest.param(1000, id="full", marks=pytest.mark.slow)]


def simulate(
    trained_K, untrained_K, *, repeats, seed_sd=SEED_SD, null_sd=SEED_SD, scatter=0.0, seeds=3
):
    """Share of each class where the trained verdict is a law; sizes of the null scatter."""
    rng = np.random.default_rng(31)

    def drawn(mean_K, sd):
        noise_KS = np.broadcast_to(sd, 5)[:, None] * rng.normal(size=(5, seeds))
        return np.exp(mean_K[:, None] + noise_KS).tolist()

    counts = Counter()
    for _ in range(repeats):
        null_K = untrained_K + scatter * rng.normal(size=5)
        trained, untrained = drawn(trained_K, seed_sd), drawn(null_K, null_sd)
        verdict = judge(SIZES, trained)
        if verdict.verdict is Verdicts.SCALES:
            found = compare_with_null(SIZES, trained, untrained, verdict=verdict)
            counts[found.null_class] += 1
    assert counts.total() > repeats / 5
    return {name: counts[name] / counts.total() for name in NullClass}, counts.total()


def most(rate, repeats):
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


def least(rate, repeats):
    return rate - 3 * math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.parametrize(
    ("trained_K", "untrained_K", "given"),
    [
        pytest.param(TRIPLES_K, TRIPLES_K, {}, id="same law"),
        pytest.param(TRIPLES_K, TRIPLES_K, {"null_sd": 0.2}, id="same law, noisy null"),
        pytest.param(
            math.log(1.15) * SPAN_K, math.log(1.15) * SPAN_K, {"null_sd": 0.05}, id="near margin"
        ),
        pytest.param(TRIPLES_K, DELTA * SPAN_K, {"null_sd": 0.03}, id="null at the margin"),
        pytest.param(TRIPLES_K, math.log(1.3) * SPAN_K, {"null_sd": 0.1}, id="weak null"),
        pytest.param(
            TRIPLES_K, math.log(2) * SPAN_K, {"null_sd": [0.01] * 4 + [0.15]}, id="one unequal"
        ),
        pytest.param(
            TRIPLES_K,
            math.log(2) * SPAN_K,
            {"null_sd": [0.2, 0.1, 0.05, 0.02, 0.01]},
            id="unequal, falling",
        ),
        pytest.param(TRIPLES_K, math.log(2) * SPAN_K, {"scatter": 0.05}, id="sizes scatter"),
        pytest.param(TRIPLES_K, math.log(1.3) * SPAN_K, {"scatter": 0.1}, id="sizes scatter more"),
        pytest.param(TRIPLES_K, math.log(1.15) * SPAN_K, {"scatter": 0.05}, id="weak, scattered"),
        pytest.param(TRIPLES_K, TRIPLES_K, {"scatter": 0.05}, id="the same, scattered"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("repeats", REPEATS)
def test_a_law_of_the_null_is_rarely_overlooked(trained_K, untrained_K, given, repeats):
    rates, judged = simulate(trained_K, untrained_K, repeats=repeats, **given)
    assert rates[NullClass.LEARNED] <= most(0.05, judged)


@pytest.mark.parametrize("repeats", REPEATS)
def test_one_and_the_same_law_is_trivial(repeats):
    rates, judged = simulate(TRIPLES_K, TRIPLES_K, repeats=repeats)
    assert rates[NullClass.TRIVIAL] > least(0.94, judged)
    assert rates[NullClass.ARCHITECTURAL] <= most(0.05, judged)


@pytest.mark.parametrize("untrained_K", [1 + TRIPLES_K, math.log(2) * SPAN_K, -TRIPLES_K])
@pytest.mark.parametrize("repeats", REPEATS)
def test_another_law_is_architectural(untrained_K, repeats):
    rates, judged = simulate(TRIPLES_K, untrained_K, repeats=repeats)
    assert rates[NullClass.ARCHITECTURAL] > least(0.98, judged)
    assert rates[NullClass.TRIVIAL] == 0


@pytest.mark.parametrize("repeats", REPEATS)
def test_a_law_beside_a_flat_null_is_learned(repeats):
    rates, judged = simulate(TRIPLES_K, 0 * SPAN_K, repeats=repeats)
    assert rates[NullClass.LEARNED] > least(0.93, judged)


@pytest.mark.parametrize("repeats", REPEATS)
def test_a_null_that_changes_without_a_law_decides_nothing(repeats):
    valley_K = 0.4 * (2 * SPAN_K - 1) ** 2
    rates, _ = simulate(TRIPLES_K, valley_K, repeats=repeats)
    assert rates[NullClass.NULL_UNDETERMINED] == 1


@pytest.mark.parametrize("repeats", REPEATS)
def test_a_null_that_is_only_noise_is_no_evidence(repeats):
    rates, judged = simulate(TRIPLES_K, 0 * SPAN_K, repeats=repeats, null_sd=0.1)
    assert rates[NullClass.NULL_UNDETERMINED] > least(0.90, judged)
