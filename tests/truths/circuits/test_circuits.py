"""Models whose circuits are known: programs in weights, and games with known shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from scaleinv_ray.circuitry.compiled import PROGRAMS, Compiled, compile_program
from scaleinv_ray.circuitry.compiled.programs import induction, sort
from scaleinv_ray.circuitry.effects.edges import faithfulness
from scaleinv_ray.circuitry.effects.estimators import estimate
from scaleinv_ray.circuitry.effects.game import greedy, prefixes, shapley, size_for
from scaleinv_ray.circuitry.effects.interventions import Experiment, edge_values
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import Surgery
from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.circuits import (
    GAUSSIAN_PARTICIPATION,
    HALF_NORMAL_N90,
    auroc,
    circuit_metrics,
    depth_profile,
    n90,
    participation,
    precision_at,
    redundancy,
    sorted_effects,
)
from scaleinv_ray.invariants.circuits import faithfulness as of_alone
from scaleinv_ray.probes import ProbeRequest
from scaleinv_ray.probes.corrupted import Pairs, corrupt


def of_letters(compiled: Compiled, sequences: int = 8, variant: str = "induction") -> Experiment:
    request = ProbeRequest(
        encode=list,
        sequences=sequences,
        length=22,
        vocab_size=compiled.model.config.vocab_size,
        corpus=None,
        rng=np.random.default_rng(0),
        special_ids=frozenset({0}),
    )
    pairs = corrupt(variant, request).after((0,))
    return Experiment(Surgery(Anatomy.of(compiled.model)), pairs)


def first_token(program: str, others: int = 1) -> Experiment:
    """The first token is letter 1 in A and 2 in B; both logits are read at the end."""
    compiled = compile_program(program, constant=1e6)
    length = 6
    a = np.full((4, length), 2)
    a[:, 1:] = np.random.default_rng(0).integers(1, 3, size=(4, length - 1))
    a[:, 0] = 1
    b = a.copy()
    b[:, 0] = 2
    one = np.full((4, 1), 1)
    pairs = Pairs(a, b, np.full((4, 1), length - 1), one, one + others)
    return Experiment(Surgery(Anatomy.of(compiled.model)), pairs)


def effects(experiment: Experiment, names: list[list[str]]) -> np.ndarray:
    graph = experiment.anatomy.graph
    sets = [graph.named(members) for members in names]
    values = experiment.values(graph.masks([[], *sets]))
    return (values[1:] - values[0]).mean(axis=1)


def exact_edges(experiment: Experiment) -> tuple[np.ndarray, list[str]]:
    graph = experiment.anatomy.graph
    where = np.argwhere(graph.edges_WR)
    masks = np.zeros((len(where) + 1, *graph.edges_WR.shape), dtype=bool)
    masks[(np.arange(len(where)) + 1, *where.T)] = True
    values = edge_values(experiment.surgery, experiment.batches[0], masks)
    return (values[1:] - values[0]).mean(axis=1), [graph.edge_name(*at) for at in where]


def test_exact_edges_of_the_induction_program_are_its_five() -> None:
    compiled = induction(constant=1e4, beta=5.0)
    experiment = of_letters(compiled)
    effect_E, names = exact_edges(experiment)
    true_E = np.isin(names, sorted(compiled.edges))
    assert len(names) == 110
    assert true_E.sum() == 5
    assert np.abs(effect_E[true_E]).min() > 1
    assert np.abs(effect_E[~true_E]).max() < 1e-6
    assert precision_at(effect_E, true_E) == auroc(effect_E, true_E) == 1


def test_the_ranking_of_edges_is_held_against_the_known_circuit() -> None:
    compiled = induction(constant=1e4, beta=5.0)
    experiment = of_letters(compiled)
    effects = measure(experiment.anatomy, experiment.pairs, Asked(edges=True, must_do=False))
    found = Circuits("known", "induction", effects)
    assert found.against(compiled.edges) == {"precision": 1, "auroc": 1}
    last = effects.scored[-5:]
    assert found.against(last)["precision"] == 0
    assert found.against(last)["auroc"] < 0.5
    with pytest.raises(ValueError, match="edges: got 'h9.9->logits', allowed those of the model"):
        found.against({"h9.9->logits"})
    with pytest.raises(ValueError, match="edges: got all or none of them true"):
        found.against(effects.scored)
    alone = Circuits("known", "induction", replace(effects, scored=()))
    with pytest.raises(ValueError, match="edges: got a measurement without them"):
        alone.against(compiled.edges)


def test_false_edges_vanish_with_the_square_of_the_constant() -> None:
    largest = []
    for constant in (1e2, 1e3, 1e4):
        compiled = induction(constant=constant)
        effect_E, names = exact_edges(of_letters(compiled, sequences=2))
        largest.append(np.abs(effect_E[~np.isin(names, sorted(compiled.edges))]).max())
    orders = -np.diff(np.log10(largest))
    np.testing.assert_allclose(orders, 2, atol=0.2)


def test_gradients_rank_the_circuit_first_where_attention_is_saturated() -> None:
    compiled = induction(constant=1e5, beta=20.0)
    experiment = of_letters(compiled, variant="induction.last")
    graph = experiment.anatomy.graph
    names = np.array([graph.edge_name(*at) for at in np.argwhere(graph.edges_WR)])
    true_E = np.isin(names, ["embed->q1.0", "h1.0->logits"])  # the query alone moves
    found = {}
    for method in ("gradient", "ig"):
        scores = estimate(experiment, method=method, edges=True)
        assert scores.edges_WRS is not None
        found[method] = precision_at(scores.edges_WRS.mean(-1)[graph.edges_WR], true_E)
    assert found == {"gradient": 1, "ig": 1}


def test_a_linear_metric_of_a_linear_program_is_estimated_exactly() -> None:
    experiment = first_token("frac_prevs")
    graph = experiment.anatomy.graph
    values = experiment.values(graph.masks([[], *([c] for c in range(len(graph.writers)))]))
    exact = values[1:] - values[0]
    np.testing.assert_allclose(exact, estimate(experiment).nodes_WS, atol=1e-8)
    assert effects(experiment, [["h0.0"]])[0] == pytest.approx(-1 / 6, abs=1e-9)


def test_one_of_an_or_does_nothing_and_both_all() -> None:
    experiment = first_token("either")
    found = effects(experiment, [["h0.0"], ["h0.1"], ["h0.0", "h0.1"], ["m0"]])
    np.testing.assert_allclose(found, [0, 0, -1, -1], atol=1e-9)


def test_a_cancelling_pair_has_effects_alone_and_none_together() -> None:
    experiment = first_token("cancelling")
    found = effects(experiment, [["h0.0"], ["h0.1"], ["h0.0", "h0.1"]])
    np.testing.assert_allclose(found, [-1, 1, 0], atol=1e-9)


@torch.no_grad()
def _answers(compiled: Compiled, tokens: np.ndarray) -> np.ndarray:
    return compiled.model(torch.from_numpy(tokens)).logits.argmax(-1).numpy()


def test_programs_compute_what_they_say() -> None:
    rng = np.random.default_rng(0)
    letters = rng.integers(1, 7, size=(20, 5))
    both = np.concatenate([letters, letters[:, ::-1]], axis=1)
    assert (_answers(compile_program("reverse"), both)[:, 4:9] == letters[:, ::-1]).all()
    small = rng.integers(1, 4, size=(20, 5))
    ordered = np.sort(small, axis=1)
    both = np.concatenate([small, ordered], axis=1)
    assert (_answers(sort(), both)[:, 4:9] == ordered).all()
    votes = rng.integers(1, 3, size=(20, 9))
    wanted = np.where((votes == 1).sum(1) > 4, 1, 2)
    assert (_answers(compile_program("majority"), votes)[:, -1] == wanted).all()
    fraction = compile_program("frac_prevs").model(torch.from_numpy(votes)).logits[:, -1, 1]
    np.testing.assert_allclose(fraction.detach(), (votes == 1).mean(1), atol=1e-5)
    depth = compile_program("dyck_depth").model(torch.from_numpy(votes)).logits[:, -1, 2]
    np.testing.assert_allclose(depth.detach(), np.where(votes == 1, 1, -1).mean(1), atol=1e-5)


def test_induction_is_right_wherever_a_token_came_once() -> None:
    block = np.random.default_rng(0).permuted(np.tile(np.arange(1, 13), (20, 1)), axis=1)[:, :10]
    tokens = np.concatenate([np.zeros((20, 1), dtype=int), block, block], axis=1)
    found = _answers(induction(beta=20.0), tokens)
    assert (found[:, 11:20] == block[:, 1:]).all()


@pytest.mark.parametrize("program", ["induction", "either"])
def test_saved_programs_load_as_stock_models(tmp_path: Path, program: str) -> None:
    compiled = compile_program(program, dtype=torch.float32)
    compiled.model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.tensor([[0, 1, 2, 1]])
    assert torch.equal(again(tokens).logits, compiled.model(tokens).logits)


def test_unknown_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="program: got 'sorting', allowed"):
        compile_program("sorting")
    assert len(PROGRAMS) == 9


def test_five_edges_of_the_induction_program_do_what_the_whole_does() -> None:
    compiled = induction(constant=1e4)
    experiment = of_letters(compiled)
    graph = experiment.anatomy.graph
    where = np.argwhere(graph.edges_WR)
    true = np.array([graph.edge_name(*at) in compiled.edges for at in where])
    ranked = np.concatenate([where[true], where[~true]])
    curve = faithfulness(experiment, ranked, draws=5, few=4, rng=np.random.default_rng(0))
    none_CW, kept = graph.masks([[]]), curve.kept_K
    clean_S, corrupted_S = (experiment.values(none_CW, denoise=end)[0] for end in (False, True))
    faithful = of_alone(curve.alone_KH, clean_S[1::2], corrupted_S[1::2])
    np.testing.assert_allclose(faithful[kept >= 5 / 110], 1, atol=1e-5)
    np.testing.assert_allclose(faithful[kept < 1.5 / 110], 0, atol=0.2)
    assert curve.random_DKF.shape == (5, len(kept), 4)
    random_DK = [of_alone(x_KF, clean_S[1:9:2], corrupted_S[1:9:2]) for x_KF in curve.random_DKF]
    # a random half misses one of the five edges but in 1 of 36 draws
    assert np.median(np.array(random_DK)[:, kept == 0.5]) < 0.5


def test_a_circuit_is_measured_whole() -> None:
    compiled = induction(constant=1e4)
    experiment = of_letters(compiled, sequences=16)
    found = measure(experiment.anatomy, experiment.pairs, Asked(edges=True))
    top = np.argsort(-np.abs(found.edge_ES.mean(1)))[:5]
    assert {found.edges[n] for n in top} == compiled.edges
    assert found.whole
    small = measure(experiment.anatomy, experiment.pairs, Asked(budget=8))
    assert small.forwards <= 8
    assert not small.whole
    exact = small.exact_N
    np.testing.assert_allclose(small.effect_NS[exact], found.effect_NS[exact], atol=1e-12)


def quadratic(seed: int, n: int = 8, sequences: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(sequences, n)), rng.normal(size=(sequences, n, n))


def test_shares_sum_to_the_whole_and_pairs_are_exact_for_quadratic_games() -> None:
    linear_SN, twice_SNN = quadratic(0)

    def value(sets_CN: np.ndarray) -> np.ndarray:
        x = sets_CN.astype(float)
        return x @ linear_SN.T + np.einsum("cn,snm,cm->cs", x, twice_SNN, x)

    found = shapley(value, 8, pairs=3, rng=np.random.default_rng(1))
    whole_S = value(np.ones((1, 8), dtype=bool))[0]
    np.testing.assert_allclose(found.share_NS.sum(0), whole_S, atol=1e-12)
    both_SNN = (twice_SNN + twice_SNN.transpose(0, 2, 1)) / 2
    np.testing.assert_allclose(found.share_NS.T, linear_SN + both_SNN.sum(2), atol=1e-12)
    assert found.stderr_N.max() < 1e-12
    with pytest.raises(ValueError, match="pairs: got 1, allowed >= 2"):
        shapley(value, 8, pairs=1, rng=np.random.default_rng(1))


def test_greedy_takes_both_halves_of_an_or_first() -> None:
    def value(sets_CN: np.ndarray) -> np.ndarray:
        return (3.0 * (sets_CN[:, 1] & sets_CN[:, 3]) + 0.1 * sets_CN.sum(1))[:, None]

    order = greedy(value, 4)
    assert sorted(order) == [0, 1, 2, 3]
    assert size_for(value(prefixes(np.array([1, 3, 0, 2])))[:, 0]) == 2


def test_gaussian_effects_have_the_trivial_values() -> None:
    mean_N = np.random.default_rng(0).normal(size=4000)
    effect_NS = mean_N[:, None] + np.zeros((1, 4))
    assert participation(effect_NS).value / 4000 == pytest.approx(GAUSSIAN_PARTICIPATION, abs=0.02)
    assert n90(effect_NS).value / 4000 == pytest.approx(HALF_NORMAL_N90, abs=0.02)
    curve = sorted_effects(effect_NS)
    assert curve.exponent == pytest.approx(curve.trivial_exponent, abs=0.05)


def test_sampling_noise_alone_is_refused() -> None:
    noise = np.random.default_rng(0).normal(size=(50, 16))
    for of in (participation, n90, sorted_effects):
        with pytest.raises(Refused, match=r"signal share of -?0\.\d+, allowed >= 0.5"):
            of(noise)


def test_the_noise_of_effects_is_taken_off_their_squares() -> None:
    rng = np.random.default_rng(0)
    true_N = np.repeat([1.0, 0.0], [4, 4])
    x_DNS = true_N[:, None] + rng.normal(size=(2000, 8, 32)) * 0.8
    mean_DN = x_DNS.mean(2)
    squares_D = (mean_DN**2).sum(1) - x_DNS.var(2, ddof=1).sum(1) / 32
    assert squares_D.mean() == pytest.approx(4, abs=0.05)
    assert (mean_DN**2).sum(1).mean() > 4.1  # what is taken off
    found = [participation(x).value for x in x_DNS[:200]]
    plain = [np.abs(x.mean(1)).sum() ** 2 / (x.mean(1) ** 2).sum() for x in x_DNS[:200]]
    assert np.mean(found) == pytest.approx(4, abs=0.15)
    assert np.mean(plain) > 4.5
    assert participation(np.repeat(true_N[:, None], 3, axis=1)).value == pytest.approx(4)


def test_profile_redundancy_and_areas() -> None:
    effect_NS = np.repeat(np.array([[1.0], [3.0]]), 4, axis=1)
    profile = depth_profile(effect_NS, np.array([0, 1]), 2)
    assert profile.centre.value == pytest.approx((0.25 * 1 + 0.75 * 3) / 4)
    np.testing.assert_allclose(profile.share_L, [0.25, 0.75])
    assert redundancy(effect_NS, np.full(4, 2.0)).value == pytest.approx(2)
    with pytest.raises(Refused, match="allowed >= 2 errors"):
        redundancy(effect_NS, np.array([1.0, -1.0, 1.0, -1.0]))
    areas = circuit_metrics(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert (areas.cpr, areas.cmd) == pytest.approx((0.75, 0.25))
    with pytest.raises(ValueError, match="fractions: got .* allowed ascending"):
        circuit_metrics(np.array([1.0, 0.5]), np.ones(2))


def test_names_of_heads_do_not_matter() -> None:
    effect_NS = np.random.default_rng(0).normal(size=(12, 6)) * 0.1 + np.arange(12)[:, None]
    mixed = effect_NS[np.random.default_rng(1).permutation(12)]
    for of in (participation, n90):
        assert of(effect_NS).value == pytest.approx(of(mixed).value)


def test_ablations_differ_in_what_replaces() -> None:
    experiment = of_letters(induction(constant=1e3), sequences=4)
    head = [["h1.0"]]
    by = {
        name: effects(replace(experiment, ablation=name), head)[0]
        for name in ("resample", "mean_per_position", "mean", "zero")
    }
    assert by["resample"] < by["mean"] < 0
    assert len({round(value, 6) for value in by.values()}) == 4
