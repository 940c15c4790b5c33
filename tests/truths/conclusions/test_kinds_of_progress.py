"""Kinds of progress that were planted, and directions in which there are none."""

import numpy as np
import pytest

from scaleinv_ray.conclude.training.progress.clusters import k_means, prediction_strength
from scaleinv_ray.conclude.training.progress.number import Kinds, number_of_kinds
from scaleinv_ray.conclude.training.progress.surrogates import Calendar, calendar_of, surrogates
from scaleinv_ray.conclude.training.progress.table import share_of_information

SIZES, SEEDS, SPANS, QUANTITIES = 4, 3, 5, 38
CELL_E = np.repeat(np.arange(SIZES * SPANS), SEEDS)
SEED_E = np.tile(np.arange(SEEDS), SIZES * SPANS)
SPAN_E = CELL_E % SPANS


def planted(
    kind_C: np.ndarray, *, signal: float, cell: float, rng: np.random.Generator
) -> np.ndarray:
    """Changes in units of seeds: of each kind a direction, each size and interval its own effect.

    A kind of -1 has no direction: all of the change is the cell's.
    """
    way_KQ = np.linalg.qr(rng.standard_normal((QUANTITIES, 4)))[0].T
    effect_CQ = rng.standard_normal((len(kind_C), QUANTITIES)) / np.sqrt(QUANTITIES)
    mean_CQ = np.where(kind_C[:, None] < 0, effect_CQ, way_KQ[kind_C] + cell * effect_CQ)
    noise_EQ = rng.standard_normal((len(kind_C) * SEEDS, QUANTITIES))
    return signal * np.repeat(mean_CQ, SEEDS, axis=0) + noise_EQ


def found(kind_C: np.ndarray, *, signal: float, cell: float, seed: int) -> Kinds:
    rng = np.random.default_rng(seed)
    x_EQ = planted(kind_C, signal=signal, cell=cell, rng=rng)
    return number_of_kinds(x_EQ, SEED_E, CELL_E, rng=rng)


ONE = np.zeros(SIZES * SPANS, dtype=int)
SPAN_C = np.tile(np.arange(SPANS), SIZES)
TWO = (SPAN_C > 1).astype(int)
THREE = np.minimum(SPAN_C // 2, 2)


@pytest.mark.parametrize("kind_C", [ONE, TWO, THREE], ids=["one", "two", "three"])
def test_planted_kinds_are_found_with_their_members(kind_C: np.ndarray) -> None:
    kinds = found(kind_C, signal=10.0, cell=0.5, seed=0)
    true_E = np.repeat(kind_C, SEEDS)
    assert kinds.number == kind_C.max() + 1
    for kind in range(kinds.number):
        assert len(set(true_E[kinds.label_E == kind])) == 1
    assert (kinds.p == 1 / 20) == (kinds.number > 1)
    assert list(np.bincount(kinds.label_E)) == sorted(np.bincount(kinds.label_E), reverse=True)


def test_numbers_do_not_depend_on_units_or_on_the_basis() -> None:
    rng = np.random.default_rng(1)
    x_EQ = planted(THREE, signal=10.0, cell=0.5, rng=rng)
    turn_QQ = np.linalg.qr(rng.standard_normal((QUANTITIES, QUANTITIES)))[0]
    size_E1 = rng.uniform(0.1, 10.0, (len(x_EQ), 1))
    same = number_of_kinds(x_EQ, SEED_E, CELL_E, rng=np.random.default_rng(2))
    turned = number_of_kinds(size_E1 * x_EQ @ turn_QQ, SEED_E, CELL_E, rng=np.random.default_rng(2))
    assert np.array_equal(same.label_E, turned.label_E)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind_C", "signal", "cell"),
    [(ONE - 1, 6, 1), (ONE - 1, 20, 1), (ONE, 6, 0.5), (ONE, 20, 0.5), (ONE, 20, 1.5)],
)
def test_of_one_kind_or_none_more_are_claimed_in_at_most_a_twentieth(
    kind_C: np.ndarray, signal: float, cell: float
) -> None:
    more = sum(found(kind_C, signal=signal, cell=cell, seed=s).number > 1 for s in range(100))
    assert more <= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0.0, 1.0], ids=["none", "one"])
def test_quantities_that_move_together_are_no_kinds(kind: float) -> None:
    # four combinations of quantities have most of what sizes and intervals have of their own
    strong_Q = np.r_[6.0, 4.0, 3.0, 2.0, np.ones(QUANTITIES - 4)]
    more = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        effect_CQ = rng.standard_normal((SIZES * SPANS, QUANTITIES)) * strong_Q
        effect_CQ /= np.sqrt((effect_CQ**2).sum(1).mean())
        way_Q = kind * np.linalg.qr(rng.standard_normal((QUANTITIES, 1)))[0][:, 0]
        x_EQ = 8.0 * np.repeat(way_Q + effect_CQ, SEEDS, axis=0)
        x_EQ += rng.standard_normal(x_EQ.shape)
        more += number_of_kinds(x_EQ, SEED_E, CELL_E, rng=rng).number > 1
    assert more <= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind_C", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize(("signal", "cell"), [(6, 0.5), (8, 0.7), (15, 0.5)])
def test_two_and_three_kinds_are_recovered_in_four_of_five(
    kind_C: np.ndarray, signal: float, cell: float
) -> None:
    numbers = [found(kind_C, signal=signal, cell=cell, seed=s).number for s in range(50)]
    assert numbers.count(kind_C.max() + 1) >= 40


def calendar(shift: int) -> Calendar:
    rng = np.random.default_rng(3)
    size_C = np.repeat(np.arange(SIZES), SPANS)
    kind_C = (SPAN_C >= 1 + shift * size_C).astype(int)
    x_EQ = planted(kind_C, signal=10.0, cell=0.5, rng=rng)
    kinds = number_of_kinds(x_EQ, SEED_E, CELL_E, rng=rng)
    assert kinds.number == 2
    return calendar_of(x_EQ, kinds.label_E, CELL_E, kind=0, interval_E=SPAN_E, rng=rng)


def test_a_kind_that_comes_at_other_times_in_other_sizes_is_no_calendar() -> None:
    assert calendar(shift=0) == (0, 1.0)
    off, p = calendar(shift=1)
    # sizes change after 1, 2, 3, 4 of 5 intervals: of intervals 2..4 one, two, one sizes are off
    assert off == (1 + 2 + 1) * SEEDS
    assert p == 1 / 200


def test_surrogates_have_the_centres_and_are_alike_within_a_cell() -> None:
    rng = np.random.default_rng(4)
    x_EQ = planted(ONE, signal=20.0, cell=1.0, rng=rng)
    x_EQ /= np.linalg.norm(x_EQ, axis=1, keepdims=True)
    drawn_BEQ = surrogates(x_EQ, np.repeat(ONE, SEEDS), CELL_E, count=400, rng=rng)
    assert np.allclose(np.linalg.norm(drawn_BEQ, axis=-1), 1.0)
    together = drawn_BEQ[:, 0] - drawn_BEQ[:, 1]
    apart = drawn_BEQ[:, 0] - drawn_BEQ[:, SEEDS]
    assert (together**2).sum(-1).mean() < 0.5 * (apart**2).sum(-1).mean()


def test_k_means_of_many_sets_is_that_of_each() -> None:
    rng = np.random.default_rng(5)
    x_BED = rng.standard_normal((3, 12, 2)) + 20.0 * rng.integers(3, size=(3, 12, 1))
    together = k_means(x_BED, 3, rng=rng, restarts=30)
    for x_ED, within, label_E in zip(x_BED, *together, strict=True):
        alone = k_means(x_ED[None], 3, rng=rng, restarts=30)
        assert alone.within_B[0] == pytest.approx(within)
        parts = [x_ED[label_E == j] for j in set(label_E.tolist())]
        assert sum(((p - p.mean(0)) ** 2).sum() for p in parts) == pytest.approx(within)


def test_clusters_that_seeds_do_not_share_have_no_strength() -> None:
    x_ED = np.array([[0.0, 0.0], [0.0, 9.0], [0.0, 1.0], [0.0, 8.0],
                     [4.0, 4.5], [-4.0, 4.5], [4.0, 4.5], [-4.0, 4.4]])  # fmt: skip
    own_E, both_E = np.repeat([0, 1], 4), np.tile([0, 1], 4)
    assert prediction_strength(x_ED, 2, own_E, rng=np.random.default_rng(6)) < 0.8
    assert prediction_strength(x_ED[:4], 2, own_E[2:6], rng=np.random.default_rng(6)) == 1.0
    assert prediction_strength(x_ED, 5, both_E, rng=np.random.default_rng(6)) == 0.0


def test_information_is_all_or_nothing_at_the_extremes() -> None:
    kind_E = np.array([True, False] * 6)
    assert share_of_information(kind_E, kind_E.astype(int)) == 1.0
    assert share_of_information(kind_E, np.repeat([0, 1], 6)) == pytest.approx(0.0)
    assert share_of_information(np.ones(4, dtype=bool), np.arange(4)) is None


@pytest.mark.parametrize(
    ("seed_E", "cell_E", "x", "match"),
    [
        (np.zeros(60), CELL_E, 1.0, "seeds: got 1, allowed 2 or more"),
        (SEED_E, CELL_E % 5, 1.0, "sizes x intervals: got 5, allowed 6 or more"),
        (SEED_E, CELL_E, 0.0, "does not move"),
    ],
)
def test_too_little_is_refused(
    seed_E: np.ndarray, cell_E: np.ndarray, x: float, match: str
) -> None:
    x_EQ = np.full((60, 3), x)
    with pytest.raises(ValueError, match=match):
        number_of_kinds(x_EQ, seed_E, cell_E, rng=np.random.default_rng(0))
