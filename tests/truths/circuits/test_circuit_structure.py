"""Numbers of probes, rules, modules and matched heads, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.circuitry.heads import signatures_of
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.circuits import (
    match,
    modularity,
    probe_depth,
    rule_fidelity,
)
from scaleinv_ray.invariants.circuits.modules import partition_q, rewired


def value(found: object) -> Estimate:
    assert isinstance(found, Estimate)
    return found


def test_a_step_of_the_accuracy_is_found_at_its_depth() -> None:
    right = np.repeat([[0.2], [0.2], [0.2], [0.8], [0.8]], 6, axis=1)
    found = probe_depth(right, np.full((5, 6), 0.2), chance=0.2).values
    assert value(found["rise"]).value == pytest.approx(0.6)
    assert value(found["rise_depth"]).value == pytest.approx(0.625)  # half way between .5 and .75
    assert value(found["selectivity"]).value == pytest.approx(0.24)
    assert value(found["accuracy_chance"]).value == 0.2


def test_noise_makes_no_rise_and_no_selectivity() -> None:
    rng = np.random.default_rng(0)
    rises, selective, refused = [], [], 0
    for _ in range(100):
        right, control = rng.normal(0.3, 0.05, (2, 7, 20))
        found = probe_depth(right, control, chance=0.3).values
        rises.append(value(found["rise"]).value)
        selective.append(value(found["selectivity"]).value)
        refused += isinstance(found["rise_depth"], Refused)
    for x in (rises, selective):
        assert abs(np.mean(x)) < 3 * np.std(x) / 10
    assert refused >= 90
    with pytest.raises(Refused, match="allowed >= 2 places and >= 3 sequences"):
        probe_depth(np.ones((3, 2)), np.ones((3, 2)), chance=0.5)


def test_rules_that_say_no_more_than_the_majority_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    majority = rng.uniform(0.3, 0.5, 12)
    found = rule_fidelity(np.stack([majority] * 3), np.array([1, 2, 4]), majority).values
    assert value(found["told"]).value == pytest.approx(0)
    assert isinstance(found["leaves_half"], Refused)
    agreed = np.repeat([[0.5], [0.6], [1.0]], 12, axis=1)
    found = rule_fidelity(agreed, np.array([1, 2, 4]), np.full(12, 0.5)).values
    assert value(found["told"]).value == pytest.approx(1)
    assert value(found["told_at_2"]).value == pytest.approx(0.2)
    # told .2 at 2 and 1 at 4: half lies 3/8 of the way in the logarithm
    assert value(found["leaves_half"]).value == pytest.approx(2 ** (1 + 3 / 8))
    with pytest.raises(Refused, match="one decision is all that the model makes"):
        rule_fidelity(agreed, np.array([1, 2, 4]), np.ones(12))


def planted(rng: np.random.Generator, within: float = 5.0) -> np.ndarray:
    """Two modules of six components, edges of which weigh more within than between."""
    same = np.kron(np.eye(2), np.ones((6, 6)))
    weight = rng.lognormal(0, 0.5, (12, 12)) * np.where(same, within, 0.3)
    return np.triu(weight, 1)[..., None] * (1 + 0.1 * rng.normal(size=10))


def test_planted_modules_are_found_and_lie_above_every_rewiring() -> None:
    found = modularity(planted(np.random.default_rng(0)), rng=np.random.default_rng(1))
    assert sorted(map(tuple, (np.flatnonzero(found.module_N == m) for m in (0, 1)))) == [
        tuple(range(6)),
        tuple(range(6, 12)),
    ]
    assert found.q > 0.35
    assert found.z > 3
    assert found.p == 1 / 40
    assert found.excess.stderr is not None
    assert found.excess.value > 5 * found.excess.stderr


@pytest.mark.parametrize("kind", ["heavy tails", "strong components"])
def test_graphs_without_modules_are_hardly_ever_said_to_have_some(kind: str) -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(40):
        weight_NN = rng.lognormal(0, 1.5, (10, 10))
        if kind == "strong components":
            strong_N = rng.lognormal(0, 1, 10)
            weight_NN = rng.lognormal(0, 1, (10, 10)) * np.outer(strong_N, strong_N)
        found = modularity(np.triu(weight_NN, 1)[..., None], rng=rng, rewirings=20)
        alarms.append(found.p <= 0.05)
    assert np.mean(alarms) <= 0.05


def test_a_rewiring_joins_the_same_pairs_as_strongly() -> None:
    rng = np.random.default_rng(0)
    weight = np.triu(rng.lognormal(0, 1, (9, 9)) * (rng.random((9, 9)) < 0.7), 1)
    weight += weight.T
    other = rewired(weight, rng)
    np.testing.assert_array_equal(other > 0, weight > 0)
    np.testing.assert_allclose(other, other.T)
    joined = weight > 0
    logs = [np.log(x, where=joined, out=np.zeros_like(x)).sum(axis=0) for x in (weight, other)]
    np.testing.assert_allclose(*logs, atol=1e-9)
    assert not np.allclose(other, weight)


def test_q_has_no_unit_and_a_single_module_none_of_it() -> None:
    rng = np.random.default_rng(0)
    effect = planted(rng)
    one, other = (modularity(c * effect, rng=np.random.default_rng(3)) for c in (1.0, -1e4))
    assert one.q == pytest.approx(other.q)
    weight = effect.mean(axis=2) + effect.mean(axis=2).T
    assert partition_q(weight, np.zeros(12, int)) == pytest.approx(0)
    with pytest.raises(ValueError, match="rewirings: got 5, allowed >= 20"):
        modularity(effect, rng=rng, rewirings=5)
    with pytest.raises(Refused, match="edges: got 0 components that have any"):
        modularity(0 * effect, rng=rng)


def clouds(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(rng.normal(size=(8, 6)), rng.normal(size=(12, 6))) for _ in range(count)]


def test_the_same_heads_under_other_names_are_matched() -> None:
    rng = np.random.default_rng(0)
    ((a, b),) = clouds(rng, 1)
    order = rng.permutation(12)[:8]
    b[order] = a + 0.01 * rng.normal(size=a.shape)
    found = match(a, b, clouds(rng, 19))
    assert dict(found.pairs_M2.tolist()) == dict(enumerate(order.tolist()))
    assert found.fraction.value == 1
    assert found.p == 1 / 20
    assert found.cost_ratio < 0.05


def test_unrelated_heads_match_as_untrained_ones_do() -> None:
    rng = np.random.default_rng(0)
    found = [match(*clouds(rng, 1)[0], clouds(rng, 19)) for _ in range(100)]
    assert np.mean([m.p <= 0.05 for m in found]) <= 0.08
    assert np.mean([m.p for m in found]) == pytest.approx(0.525, abs=0.09)
    fraction = [m.fraction.value for m in found]
    assert np.mean(fraction) == pytest.approx(0.05, abs=3 * np.std(fraction) / 10)


def test_units_of_features_and_order_of_models_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    ((a, b),), nulls = clouds(rng, 1), clouds(rng, 19)
    one = match(a, b, nulls)
    scale = np.array([1.0, 10.0, 1e3, 1.0, 1e-3, 1.0])
    other = match(b * scale, a * scale, [(y * scale, x * scale) for x, y in nulls])
    assert one.cost_ratio == pytest.approx(other.cost_ratio)
    assert one.p == other.p
    with pytest.raises(ValueError, match="nulls: got none"):
        match(a, b, [])
    with pytest.raises(ValueError, match=r"nulls: got \(\(12, 6\), \(8, 6\)\), allowed \(8, 6\)"):
        match(a, b, [(b, a)])
    with pytest.raises(Refused, match="heads that are all alike"):
        match(0 * a, 0 * b, nulls)


def test_untrained_models_pass_shuffled_columns_and_not_untrained_pairs() -> None:
    tokens_ST = np.tile(np.random.default_rng(0).integers(0, 40, (6, 12)), 2)

    def heads(width: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=40, n_positions=24, n_embd=width, n_layer=4, n_head=4,
                            bos_token_id=0, eos_token_id=0)  # fmt: skip
        return signatures_of(Anatomy.of(GPT2LMHeadModel(config).eval()), tokens_ST).rows_HF

    pairs = [(heads(32, seed), heads(64, 100 + seed)) for seed in range(24)]
    rng = np.random.default_rng(0)
    by_columns, by_untrained = [], []
    for a, b in pairs[:5]:
        found = match(a, b, pairs[5:])
        shuffled = (match(a, rng.permuted(b, axis=0), [(a, b)]) for _ in range(99))
        by_columns.append((1 + sum(x.cost_ratio <= found.cost_ratio for x in shuffled)) / 100)
        by_untrained.append(found.p)
    assert max(by_columns) <= 0.05
    # of five one may be below by chance
    assert sorted(by_untrained)[1] > 0.05
