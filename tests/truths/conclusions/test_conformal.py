"""A model against a series: false alarms as stated, alarms where there is something to see."""

import math

import numpy as np
import pytest

from scaleinv_ray.conclude.assessment.conformal import Card, Quantities, assess, needed

SIZES = np.repeat([1e5, 2e5, 4e5, 8e5], 3)
TRIALS = 400


def drawn(rng: np.random.Generator, n_params_M: np.ndarray, *, num: int = 30) -> np.ndarray:
    """Heavy tails (t with 3 degrees), one common cause in all quantities, a law in size."""
    count = len(n_params_M)
    noise_MF = rng.standard_t(3, (count, num)) + 2 * rng.standard_t(3, (count, 1))
    return 50 + np.outer(np.log(n_params_M), np.linspace(-1, 1, num)) + noise_MF


def card_of(values_MF: np.ndarray, n_params_M: np.ndarray) -> Card:
    num = values_MF.shape[1]
    given = Quantities(
        names=[f"q{f}" for f in range(num)],
        n_params_N=n_params_M[:-1],
        values_NF=values_MF[:-1],
        n_params=float(n_params_M[-1]),
        values_F=values_MF[-1],
        units=[1.0] * num,
    )
    return assess(given, ["a" if f < num // 2 else "b" for f in range(num)])


def test_a_healthy_model_raises_an_alarm_as_rarely_as_stated_whatever_the_tails() -> None:
    rng = np.random.default_rng(0)
    n_M = np.append(SIZES, 0.0)
    p, outside = [], []
    for _ in range(TRIALS):
        n_M[-1] = rng.choice(SIZES)
        card = card_of(drawn(rng, n_M), n_M)
        p.append(card.whole.p)
        outside.append(any(i.outside for i in card.intervals))
    for k in (1, 3, 6):
        stated = k / 13
        bound = stated + 3 * math.sqrt(stated * (1 - stated) / TRIALS)
        assert np.mean(np.array(p) <= stated + 1e-9) <= bound
    assert np.mean(np.array(p) <= 6 / 13 + 1e-9) > 0.35  # not by never raising one
    assert np.mean(outside) > 4 / 13  # what a look at each interval would have called


def test_each_model_of_a_series_in_turn_has_every_rank_once() -> None:
    values_MF = drawn(np.random.default_rng(5), SIZES)
    p = []
    for m in range(12):
        order = np.append(np.delete(np.arange(12), m), m)
        p.append(card_of(values_MF[order], SIZES[order]).whole.p)
    assert sorted(p) == pytest.approx(np.arange(1, 13) / 12)


def test_one_quantity_far_off_is_an_alarm_in_its_group() -> None:
    rng = np.random.default_rng(1)
    n_M = np.append(SIZES, 4e5)
    values_MF = 0.1 * rng.normal(size=(13, 30)) + 5
    values_MF[-1, 20] += 30
    card = card_of(values_MF, n_M)
    assert card.whole.p == card.least_p == 1 / 13
    assert card.whole.worst == "q20"
    assert card.groups["b"].p == 1 / 13
    assert card.groups["a"].p > 1 / 13
    assert card.verdict(0.1) == "out of family"
    assert card.verdict(0.05) == "cannot say"
    assert {i.name for i in card.intervals if i.outside} >= {"q20"}


def test_a_size_of_which_the_series_has_none_is_ranked_among_sizes() -> None:
    rng = np.random.default_rng(2)
    n_M = np.append(SIZES, 16e5)
    cards = [card_of(drawn(rng, n_M, num=8), n_M) for _ in range(TRIALS // 2)]
    assert {(c.ranked, c.num_ranked) for c in cards} == {("sizes", 4)}
    assert min(c.whole.p for c in cards) == 0.2
    assert {c.verdict(0.1) for c in cards} == {"cannot say"}
    alarms = np.mean([c.whole.p <= 0.2 for c in cards])
    assert alarms <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / len(cards))
    off_MF = drawn(rng, n_M, num=8)
    off_MF[-1, 3] += 1e4
    assert card_of(off_MF, n_M).whole == (0.2, "q3")


def test_intervals_hold_as_many_new_models_as_they_say() -> None:
    rng = np.random.default_rng(3)
    for new in (4e5, 3e5):  # of the series, and between two of its sizes
        n_M = np.append(SIZES, new)
        values = [
            np.outer(np.log(n_M), np.linspace(-1, 1, 50)) + 40 + rng.normal(size=(13, 50))
            for _ in range(60)
        ]
        held = [not i.outside for v in values for i in card_of(v, n_M).intervals]
        assert abs(np.mean(held) - 0.95) < 0.02 if new == 4e5 else np.mean(held) > 0.93


def test_p_is_the_same_in_other_units_and_in_another_order() -> None:
    rng = np.random.default_rng(4)
    n_M = np.append(SIZES, 2e5)
    values_MF = np.exp(rng.normal(size=(13, 10)))
    values_MF[-1, 0] *= 9
    names = [f"q{f}" for f in range(10)]

    def p_of(values_MF: np.ndarray, order_N: np.ndarray) -> float:
        rows_NF, n_N = values_MF[:-1][order_N], SIZES[order_N]
        given = Quantities(names, n_N, rows_NF, 2e5, values_MF[-1], [None] * 10)
        return assess(given, ["a"] * 10).whole.p

    known = p_of(values_MF, np.arange(12))
    assert p_of(values_MF * np.logspace(-3, 3, 10), np.arange(12)) == known
    assert p_of(values_MF, rng.permutation(12)) == known
    assert n_M[-1] == 2e5


def test_values_without_scatter_are_in_family_where_they_are_equal() -> None:
    n_M = np.append(SIZES, 4e5)
    equal_MF = np.ones((13, 2))
    assert card_of(equal_MF, n_M).whole.p == 1
    equal_MF[-1, 1] = 2
    card = card_of(equal_MF, n_M)
    assert (card.whole.p, card.whole.worst) == (1 / 13, "q1")


def test_what_a_level_needs() -> None:
    assert [needed(level) for level in (0.2, 0.1, 0.05, 1 / 30)] == [4, 9, 19, 29]


@pytest.mark.parametrize(
    ("n_params_M", "allowed"),
    [
        ([1e5, 2e5, 4e5, 2e5], "two seeds of a size"),
        ([1e5, 1e5, 2e5, 2e5, 4e5], "3 sizes"),
    ],
)
def test_a_series_that_says_nothing_of_the_size_is_refused(
    n_params_M: list[float], allowed: str
) -> None:
    with pytest.raises(ValueError, match=rf"^series: got .*; allowed: .*{allowed}"):
        card_of(np.ones((len(n_params_M), 2)), np.array(n_params_M))


def test_values_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="quantities: got none"):
        card_of(np.ones((13, 0)), np.append(SIZES, 4e5))
    broken_MF = np.ones((13, 2))
    broken_MF[3, 1] = np.nan
    with pytest.raises(ValueError, match="got NaN or infinity, allowed finite"):
        card_of(broken_MF, np.append(SIZES, 4e5))
