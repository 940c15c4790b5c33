"""Trained beside untrained: each class from a constructed example, and noise is no class."""

from collections import Counter

import numpy as np
import pytest

from scaleinv_ray.conclude.conservation.judging import judge
from scaleinv_ray.conclude.conservation.nulls import NullClass, compare_with_null
from scaleinv_ray.conclude.conservation.verdict import Verdicts

SIZES = [1e6, 4e6, 16e6, 64e6, 256e6]


def series(mean_K, *, sd=0.01, seed=0, seeds=3):
    rng = np.random.default_rng(seed)
    return [np.exp(m + sd * rng.normal(size=seeds)).tolist() for m in mean_K]


def compare(trained, untrained, unit=None):
    return compare_with_null(
        SIZES, trained, untrained, verdict=judge(SIZES, trained, unit=unit), unit=unit
    )


def test_trivial_where_training_changes_nothing():
    found = compare(series([0.0] * 5, seed=1), series([0.01] * 5, seed=2))
    assert found.null_class is NullClass.TRIVIAL
    # a law that training leaves alone is trivial too
    law = 0.3 * np.arange(5)
    assert compare(series(law, seed=1), series(law, seed=2)).null_class is NullClass.TRIVIAL


def test_architectural_where_both_are_conserved_apart():
    found = compare(series([0.0] * 5, seed=1), series([0.5] * 5, seed=2))
    assert found.null_class is NullClass.ARCHITECTURAL
    assert found.null_verdict.is_conserved
    assert found.rho < 0.1


@pytest.mark.parametrize("untrained_K", [0.3 * np.arange(5), [0.4, 0.1, 0.0, 0.1, 0.4]])
def test_learned_where_only_the_trained_series_is_conserved(untrained_K):
    found = compare(series([0.0] * 5, seed=1), series(untrained_K, seed=2))
    assert found.null_class is NullClass.LEARNED
    assert found.null_verdict in {Verdicts.SCALES, Verdicts.NOT_CONSERVED}


def test_rho_by_hand():
    trained = [[1.0, 1.0, 1.0]] * 4 + [[np.exp(0.2)] * 3]
    untrained = [[np.exp(2.0)] * 3] * 5
    assert compare(trained, untrained).rho == pytest.approx(0.2 / (2.0 - 0.04))


def test_undetermined_null_is_no_evidence_and_says_how_many_seeds():
    noisy = series([0.0] * 5, sd=0.1, seed=3)
    assert judge(SIZES, noisy).verdict is Verdicts.UNDETERMINED
    found = compare(series([0.0] * 5, seed=1), noisy)
    assert found.null_class is NullClass.NULL_UNDETERMINED
    assert found.seeds_needed > 3


def test_a_trained_series_that_is_neither_constant_nor_a_law_has_no_class():
    found = compare(series([0.4, 0.1, 0.0, 0.1, 0.4], seed=1), series([0.0] * 5, seed=2))
    assert found.null_class is NullClass.NULL_UNDETERMINED
    assert "neither constant nor a law" in found.reason
    assert found.seeds_needed is None  # no number of seeds makes it one


LAW = 0.3 * np.arange(5)


@pytest.mark.parametrize(
    ("untrained_K", "null_class", "reason"),
    [
        (LAW, NullClass.TRIVIAL, "equivalent at every size"),
        (LAW + 1, NullClass.ARCHITECTURAL, "a law too"),
        (0.15 * np.arange(5), NullClass.ARCHITECTURAL, "a law too"),
        (-LAW, NullClass.ARCHITECTURAL, "a law too"),
        (np.zeros(5), NullClass.LEARNED, "flat"),
        ([0.4, 0.1, 0.0, 0.1, 0.4], NullClass.NULL_UNDETERMINED, "not excluded"),
    ],
)
def test_a_law_is_read_beside_the_law_of_its_null(untrained_K, null_class, reason):
    found = compare(series(LAW, seed=1), series(untrained_K, seed=2))
    assert found.null_class is null_class
    assert reason in found.reason


def test_the_difference_of_slopes_by_hand():
    # exact laws over ln 4: 0.3 and 0.1 a size
    trained, untrained = series(LAW, sd=0.0), series(0.1 * np.arange(5), sd=0.0)
    slope = compare(trained, untrained).slope
    assert slope.value == pytest.approx(0.2 / np.log(4))
    assert slope.half_width == pytest.approx(0.0, abs=1e-9)
    # one series, twice: sd of a slope is sd of a mean / sqrt(sum (x - xbar)^2), t on 20 df
    noise = [[-0.01, 0.0, 0.01]] * 5
    both = [[np.exp(m + e) for e in seeds] for m, seeds in zip(LAW, noise, strict=True)]
    slope = compare(both, both).slope
    expected = 2.085963 * np.sqrt(2 * 1e-4 / 3 / (10 * np.log(4) ** 2))
    assert (slope.value, slope.half_width) == (0.0, pytest.approx(expected, rel=1e-6))


def test_a_null_that_may_follow_a_law_makes_no_law_learned():
    # changes that are certain, by a law that three seeds so noisy neither show nor exclude
    noisy = [np.exp(m + np.array([-0.2, 0.0, 0.2])).tolist() for m in (0.0, 0.5, 0.3, 0.9, 0.7)]
    found = compare(series(LAW, seed=1), noisy)
    assert found.null_verdict is Verdicts.NOT_CONSERVED
    assert found.null_class is NullClass.NULL_UNDETERMINED
    assert "not excluded" in found.reason


def test_a_difference_at_the_margin_is_neither_trivial_nor_architectural():
    found = compare(series([0.0] * 5, seed=1), series([0.09] * 5, seed=2))
    assert found.null_class is NullClass.NULL_UNDETERMINED


def test_one_seed_or_other_signs_are_said():
    trained = series([0.0] * 5)
    assert "one seed" in compare(trained, [[1.0]] * 5).reason
    signs = compare(trained, [[-v for v in seeds] for seeds in trained])
    assert signs.null_class is NullClass.NULL_UNDETERMINED
    assert "one sign" in signs.reason
    with pytest.raises(ValueError, match="got 4 sizes"):
        compare_with_null(SIZES, trained, trained[:4], verdict=judge(SIZES, trained))


def test_exact_zero_beside_exact_zero_is_trivial():
    zeros = [[0.0, 0.0]] * 5
    assert compare(zeros, zeros).null_class is NullClass.TRIVIAL


@pytest.mark.parametrize("null_sd", [0.02, 0.05, 0.1])
def test_noise_is_rarely_called_learned(null_sd):
    rng = np.random.default_rng(4)
    counts = Counter(
        compare(
            series([0.0] * 5, sd=0.005, seed=rng), series([0.0] * 5, sd=null_sd, seed=rng)
        ).null_class
        for _ in range(200)
    )
    # the null is constant: 'not conserved' is the false positive of one test at .05
    assert counts[NullClass.LEARNED] <= 200 * (0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5)
