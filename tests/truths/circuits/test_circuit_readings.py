"""What is read of models whose circuits are known, and of untrained ones that have none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.circuitry.analyses import ANALYSES
from scaleinv_ray.circuitry.compiled.programs import induction
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.heads import FEATURES, behind_earlier, looks, signatures
from scaleinv_ray.circuitry.readings.context import CLASSES, NONE, Context
from scaleinv_ray.circuitry.readings.graph import between_components
from scaleinv_ray.circuitry.readings.linear import Target, control_labels, linear_probes, probe
from scaleinv_ray.circuitry.readings.rules import surrogate
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.components import Graph
from scaleinv_ray.probes import ProbeRequest
from scaleinv_ray.probes.corrupted import corrupt


def subject(letters: int, *, sequences: int = 32, seed: int = 0) -> Subject:
    """The induction program on repeated letters, behind a beginning token."""
    request = ProbeRequest(
        encode=list,
        sequences=sequences,
        length=22,
        vocab_size=letters + 1,
        corpus=None,
        rng=np.random.default_rng(seed),
        special_ids=frozenset({0}),
    )
    anatomy = Anatomy.of(induction(letters=letters).model)
    pairs = corrupt("induction", request).after((0,))
    return Subject(anatomy, pairs, measure(anatomy, pairs, Asked()))


def untrained(of: Subject, *, tied: bool) -> Subject:
    torch.manual_seed(0)
    old = of.anatomy.model.config
    config = GPT2Config(
        vocab_size=old.vocab_size, n_positions=old.n_positions, n_embd=64, n_layer=2, n_head=4,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return replace(of, anatomy=Anatomy.of(GPT2LMHeadModel(config).eval()))


@pytest.fixture(scope="module")
def known() -> Subject:
    return subject(8)


@pytest.fixture(scope="module")
def many_letters() -> Subject:
    return subject(48)


def test_the_previous_token_is_read_behind_the_head_that_moves_it(known: Subject) -> None:
    found = {target.name: target for target in linear_probes(known).targets}["previous token"]
    assert found.accuracy(0).value == pytest.approx(1 / 8, abs=0.09)
    assert found.accuracy(1).value == found.accuracy(2).value == 1
    assert np.abs(found.control_LS.mean(axis=1) - 1 / 8).max() < 0.06
    assert found.selectivity(1).value > 0.8
    width = known.anatomy.model.config.n_embd
    assert [c.shape for c in found.coefficients] == [(len(found.classes), width)] * 3


def test_a_label_of_the_token_itself_is_learned_by_heart_and_not_selective() -> None:
    rng = np.random.default_rng(0)
    tokens_ST = rng.integers(0, 6, size=(16, 20))
    one_hot = np.eye(6)[tokens_ST][None]
    target = Target("odd", tokens_ST % 2, tokens_ST)
    found = probe(target, one_hot, rng)
    assert found is not None
    assert found.right_LS.mean() == 1
    assert found.selectivity(0).value == pytest.approx(0, abs=0.05)


def test_control_labels_are_equal_within_types_and_as_frequent_as_the_true_ones() -> None:
    rng = np.random.default_rng(0)
    label_R, type_R = np.repeat([0, 1], [3000, 1000]), np.arange(4000) // 2
    control_R = control_labels(label_R, type_R, rng)
    assert (control_R[::2] == control_R[1::2]).all()
    assert control_R.mean() == pytest.approx(0.25, abs=0.04)


def test_a_probe_of_noise_reads_true_labels_no_better_than_control_ones() -> None:
    rng = np.random.default_rng(0)
    selective = []
    for _ in range(20):
        target = Target("coin", rng.integers(0, 2, (12, 10)), np.arange(120).reshape(12, 10))
        found = probe(target, rng.normal(size=(1, 12, 10, 3)), rng)
        assert found is not None
        selective.append(found.selectivity(0).value)
    assert abs(np.mean(selective)) < 3 * np.std(selective) / 20**0.5
    assert probe(target._replace(label_ST=np.zeros((12, 10), int)), np.empty(0), rng) is None


def test_two_leaves_say_what_the_induction_program_does(many_letters: Subject) -> None:
    found = surrogate(many_letters)
    fidelity = dict(zip(found.leaves, found.fidelity, strict=True))
    assert fidelity[2].value > 0.9
    assert found.majority_S.mean() < 0.1
    first = next(rule for rule in found.rules if "the token stood before" in rule.when)
    # of so many letters hardly one stands twice in a block
    assert first.answer in {"what followed it most often", "what followed its last occurrence"}
    assert first.agree / first.rows > 0.95


def test_rules_tell_little_of_an_untrained_model(many_letters: Subject) -> None:
    found = surrogate(untrained(many_letters, tied=False))
    fidelity = dict(zip(found.leaves, found.fidelity, strict=True))
    assert fidelity[4].value - found.majority_S.mean() < 0.15


def test_an_untrained_model_with_tied_embeddings_repeats_its_token(many_letters: Subject) -> None:
    found = surrogate(untrained(many_letters, tied=True))
    assert [str(rule).split(",")[0] for rule in found.rules] == ["the token itself"]
    assert found.fidelity[0].value > 0.9


def test_places_of_a_sequence_are_what_a_reader_sees() -> None:
    text = "ab(ab]ab)"
    spelled = sorted(set(text))
    context = Context(np.array([[spelled.index(c) for c in text]]), spelled.__getitem__)

    def letters(tokens_ST: np.ndarray) -> str:
        return "".join("." if t == NONE else spelled[t] for t in tokens_ST[0])

    assert letters(context.previous_ST) == "." + text[:-1]
    assert letters(context.followed_ST) == "...b(.b]."
    assert letters(context.usual_ST) == "...b(.b]."
    assert letters(context.continued_ST) == "...b(.b]."
    assert context.agreeing_ST[0].tolist() == [0, 0, 0, 1, 2, 0, 1, 2, 0]
    assert context.distance_ST[0].tolist() == [9, 9, 9, 3, 3, 9, 3, 3, 9]
    assert letters(context.frequent_ST) == "ab(abbab" + "b"
    assert context.brackets is not None
    depth_ST, closing_ST = context.brackets
    assert depth_ST[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert letters(closing_ST) == "..)))))).", "a bracket of another kind closes nothing"
    assert context.class_ST is not None
    assert CLASSES[context.class_ST[0, 2]] == "opening bracket"


def test_equal_beginnings_have_equal_numbers_and_no_others() -> None:
    found = Context(np.array([[1, 2, 3], [1, 2, 2], [2, 2, 3]])).prefixes_ST()
    assert (found[0, :2] == found[1, :2]).all()
    assert len(np.unique(found)) == 7


def test_heads_of_the_induction_program_have_the_signatures_that_were_written() -> None:
    found = signatures(subject(12))
    rows = {
        n: dict(zip(FEATURES, row, strict=True))
        for n, row in zip(found.names, found.rows_HF, strict=True)
    }
    assert rows["h0.0"]["previous"] == pytest.approx(1, abs=1e-6)
    assert rows["h1.0"]["prefix"] > 0.99
    assert rows["h1.0"]["eigenvalues"] == pytest.approx(1, abs=1e-4)
    # each of 13 tokens gives its own logit alone: (1 - 1/13) over the deviation of a one-hot row
    assert rows["h1.0"]["copying"] == pytest.approx(12**0.5, abs=1e-2)
    for name in ("h0.1", "h1.3"):
        assert rows[name]["entropy"] == pytest.approx(1, abs=1e-6)
        assert rows[name]["distance"] == pytest.approx(0.5, abs=1e-6)
        assert rows[name]["prefix"] == pytest.approx(found.uniform, abs=1e-6)
        assert rows[name]["copying"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.depth_H, [0.25] * 4 + [0.75] * 4)
    assert found.rows_HF.shape == (8, len(FEATURES))


def test_a_head_that_looks_one_back_is_no_other() -> None:
    back = np.eye(5, k=-1)
    back[0, 0] = 1
    found = looks(back[None], behind_earlier(np.array([[1, 2, 1, 2, 1]])))
    assert found.previous == 1
    assert found.own == found.entropy == 0
    # behind the earlier occurrence of the token there stands the one before it
    assert found.prefix == 1


def test_edges_of_shared_keys_are_shared_out_and_nothing_is_lost() -> None:
    graph = Graph(layers=2, heads=4, groups=2, mlps=True, parallel=False)
    edges_WRS = np.random.default_rng(0).normal(size=(*graph.edges_WR.shape, 6))
    edges_WRS *= graph.edges_WR[..., None]
    found_NNS = between_components(graph, edges_WRS)
    assert found_NNS.mean(axis=2).sum() == pytest.approx(np.abs(edges_WRS.mean(axis=2)).sum())
    key = np.zeros_like(edges_WRS)
    key[0, [str(r) for r in graph.readers].index("k0.1")] = -2.0
    shared = between_components(graph, key).mean(axis=2)
    names = [str(writer) for writer in graph.writers]
    assert {names[n]: x for n, x in enumerate(shared[0]) if x} == {"h0.2": 1.0, "h0.3": 1.0}


KEYS = {
    "probes": {"targets"},
    "surrogate": {"decisions", "majority", "fidelity", "rules", "features"},
    "modularity": {"q", "rewired_mean", "rewired_sd", "z", "p", "modules"},
    "signatures": {"heads"},
}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_each_analysis_has_its_keys_and_few_lines(known: Subject, name: str) -> None:
    few = replace(known, pairs=known.pairs.some(slice(0, 8)), spell=" (b)d1gh\n".__getitem__)
    found = ANALYSES[name](few)
    told, lines = found.as_json(), found.lines()
    assert told.keys() == KEYS[name]
    assert told == json.loads(json.dumps(told)) == ANALYSES[name](few).as_json(), "of one seed"
    assert 2 <= len(lines) <= 12
    assert max(map(len, lines)) <= 96


def test_too_few_sequences_and_nothing_repeated_are_refused(known: Subject) -> None:
    few = replace(known, pairs=known.pairs.some(slice(0, 3)))
    for analysis in (linear_probes, surrogate):
        with pytest.raises(ValueError, match="sequences: got 3, allowed >= 4"):
            analysis(few)
    with pytest.raises(ValueError, match="tokens: got sequences that repeat no token"):
        behind_earlier(np.array([[1, 2, 3]]))
