"""What cannot be measured is refused before a forward pass, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import scaleinv_ray as si
from scaleinv_ray.circuitry.analysed import named
from scaleinv_ray.circuitry.analyses import ANALYSES
from scaleinv_ray.circuitry.compiled import compile_program
from scaleinv_ray.circuitry.effects.interventions import patching_share
from scaleinv_ray.circuitry.effects.measuring import check_task

TOKENS = np.array([[0, 1, 2, 1], [0, 2, 1, 2]])
OTHER = np.array([[0, 2, 1, 2], [0, 1, 2, 1]])
ANSWERS = ([1, 2], [2, 1])


@pytest.fixture
def model() -> tf.PreTrainedModel:
    """Fails on the first forward pass."""
    compiled = compile_program("majority").model

    def forward(*_args: Any) -> None:
        raise AssertionError("a forward pass was made")

    compiled.transformer.wte.register_forward_pre_hook(forward)
    return compiled


CASES = {
    "unequal length": ({"tokens_B": OTHER[:, :3]}, r"tokens_B: got \(2, 3\), allowed \(2, 4\)"),
    "ragged": ({"tokens_A": [[1, 2], [1]]}, "tokens_A: got rows of unequal length, allowed equal"),
    "equal answers": ({"answers": ([1, 2], [1, 1])}, "answers: got 1 of 2 equal in A and B"),
    "unknown answer": (
        {"answers": ([1, 7], [2, 1])},
        r"answer_A: got token ids 1\.\.7, allowed 0\.\.2",
    ),
    "unknown token": ({"tokens_A": TOKENS + 5}, r"tokens_A: got token ids 5\.\.7, allowed 0\.\.2"),
    "nothing corrupted": ({"tokens_B": TOKENS}, "nothing is corrupted"),
    "unknown component": (
        {"components": ("h3.1",)},
        r"components: got 'h3.1', allowed embed, h0.0..h0.1, m0..m0",
    ),
    "unknown nodes": ({"nodes": ("neurons",)}, r"nodes: got \['neurons'\], allowed"),
    "unknown metric": ({"metric": "bleu"}, "metric: got 'bleu', allowed"),
    "accuracy": ({"metric": "accuracy"}, "accuracy is reported, never ranked by"),
    "no sets": ({"metric": "prob_diff"}, "metric: got 'prob_diff' of a probe without sets"),
    "ablation": ({"ablation": "noise"}, "ablation: got 'noise', allowed"),
    "small budget": ({"budget": 4}, r"budget: got 4 forwards, allowed >= 5 \(the clean and"),
    "small budget of kl": (
        {"budget": 12, "metric": "kl"},
        "budget: got 12 forwards, allowed >= 13",
    ),
    "small budget of zeros": (
        {"budget": 4, "ablation": "zero"},
        "budget: got 4 forwards, allowed >= 6 .every component, by ablation 'zero'",
    ),
    "small budget of edges": (
        {"budget": 44, "edges": True},
        r"budget: got 44 forwards, allowed >= 45 \(.*together, edges\)",
    ),
    "no budget": ({"budget": float("nan")}, "budget: got nan, allowed a number of forwards"),
    "budget in words": ({"budget": "200f"}, "budget: got '200f', allowed a number of forwards"),
    "a row not corrupted": (
        {"tokens_B": np.array([TOKENS[0], OTHER[1]])},
        r"tokens_B: got 1 of 2 rows equal to those of A, allowed others \(nothing is corrupted\)",
    ),
    "one pair twice": (
        {"tokens_A": TOKENS[[0, 0]], "tokens_B": OTHER[[0, 0]]},
        "tokens_A: got one pair 2 times, allowed different ones",
    ),
    "two pairs": ({}, r"sequences: got 2, allowed >= 5 \(of fewer even all"),
    "no sequences": ({"tokens_A": TOKENS[:0]}, r"tokens_A: got none in shape \(0, 4\)"),
    "no list": ({"tokens_A": []}, r"tokens_A: got none in shape \(0,\)"),
    "one token": (
        {"tokens_A": TOKENS[:, 1], "tokens_B": OTHER[:, 1], "answers": None},
        "tokens_A: got length 1 without answers, allowed >= 2",
    ),
    "one answer": ({"answers": ([1, 2],)}, r"answers: got \(\[1, 2\],\), allowed two: those in A"),
    "answers of no kind": ({"answers": 5}, "answers: got 5, allowed two"),
    "no components": ({"components": ()}, r"components: got \(\), allowed a tuple of names"),
    "one component twice": (
        {"components": ("h0.0", "h0.0")},
        r"components: got \('h0.0', 'h0.0'\), allowed a tuple of names, each once",
    ),
    "components of no kind": ({"components": 5}, "components: got 5, allowed a tuple of names"),
    "nodes in one word": ({"nodes": "heads"}, "nodes: got 'heads', allowed a tuple of names"),
    "no metric": ({"metric": ""}, "metric: got '', allowed"),
    "no rows": ({"max_rows": 0}, "max_rows: got 0, allowed a whole number >= 1"),
    "rows in parts": ({"max_rows": 1.5}, "max_rows: got 1.5, allowed a whole number >= 1"),
    "edges in words": ({"edges": "no"}, "edges: got 'no', allowed True or False"),
    "must_do in words": ({"must_do": "no"}, "must_do: got 'no', allowed True or False"),
    "analyses of no kind": ({"analyses": 5}, "with: got 5, allowed names of"),
    "an analysis of no kind": ({"analyses": (5,)}, r"with: got \(5,\), allowed names of"),
    "too long": (
        {"tokens_A": np.tile(TOKENS, 5), "tokens_B": np.tile(OTHER, 5)},
        "tokens_A: got length 20, allowed <= 16",
    ),
    "positions": ({"positions": [9, 9]}, r"positions: got 9\.\.9, allowed 0\.\.3"),
    "edges by means": (
        {"edges": True, "ablation": "mean"},
        "ablation: got 'mean' with edges, allowed resample",
    ),
    "fractions": ({"tokens_A": TOKENS / 2}, "tokens_A: got float64 in 2 dimensions, allowed whole"),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_bad_input_is_refused_before_a_forward_pass(model: tf.PreTrainedModel, case: str) -> None:
    changed, says = CASES[case]
    given = {"tokens_A": TOKENS, "tokens_B": OTHER, "answers": ANSWERS} | changed
    with pytest.raises(ValueError, match=says) as error:
        si.circuits(model, given.pop("tokens_A"), given.pop("tokens_B"), **given)
    assert len(str(error.value)) < 300


def test_padding_is_refused(model: tf.PreTrainedModel) -> None:
    model.config.pad_token_id = 2
    model.config.bos_token_id = model.config.eos_token_id = None
    with pytest.raises(ValueError, match="times the padding token 2, allowed sequences of equal"):
        si.circuits(model, TOKENS, OTHER, answers=ANSWERS)


@pytest.mark.parametrize("model", [5, None, "gpt2", torch.nn.Linear(2, 2)], ids=repr)
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="model: got .*, allowed a causal model of transformers"):
        si.circuits(model, TOKENS, OTHER, answers=ANSWERS)


def test_a_model_with_another_head_is_refused() -> None:
    config = tf.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=3, n_positions=8)
    config.bos_token_id = config.eos_token_id = None
    model = tf.GPT2ForSequenceClassification(config).eval()
    with pytest.raises(ValueError, match="model: got GPT2ForSequenceClassification without logits"):
        si.circuits(model, TOKENS, OTHER, answers=ANSWERS)


def test_packed_weights_are_refused(model: tf.PreTrainedModel) -> None:
    del model.lm_head.weight
    model.lm_head.weight = lambda: None  # a method, as of torch's quantised layers
    with pytest.raises(ValueError, match="model.lm_head: got packed weights, allowed floating"):
        si.circuits(model, TOKENS, OTHER, answers=ANSWERS)


def test_a_model_without_finite_logits_is_refused() -> None:
    broken = compile_program("majority").model
    with torch.no_grad():
        broken.transformer.wte.weight[1, 0] = float("nan")
    for metric in ("logit_diff", "loss"):
        with pytest.raises(ValueError, match=f"model: got {metric} nan or infinite on 2 of 2"):
            si.circuits(broken, TOKENS, OTHER, answers=ANSWERS, metric=metric, must_do=False)


@pytest.mark.parametrize("budget", [5, 6, 7, 9, 12, 14, 18, 25, 40])
def test_a_budget_is_never_exceeded(budget: float) -> None:
    compiled = compile_program("majority").model
    found = si.circuits(
        compiled, TOKENS, OTHER, answers=ANSWERS, must_do=False, budget=budget, nodes=("heads",)
    )
    assert found.effects.forwards <= budget


def test_all_stands_for_every_analysis_beside_others() -> None:
    assert named("all,direct") == named("all") == tuple(ANALYSES)


def test_a_model_that_does_not_do_the_task_is_refused() -> None:
    clean, corrupted = np.array([1.0, -1.0] * 4), np.zeros(8)
    with pytest.raises(ValueError, match="refused: the model does not do the task: got 4 of 8"):
        check_task("logit_diff", clean, corrupted)
    check_task("loss", corrupted, corrupted + 1)


def test_an_effect_within_its_noise_is_not_shared_out() -> None:
    with pytest.raises(ValueError, match="patching: got .* allowed at least two"):
        patching_share(np.array([1.0, -1.0, 0.5]), np.zeros(3), np.zeros((1, 3)))
    share, stderr = patching_share(np.full(4, 2.0), np.zeros(4), np.full((1, 4), 0.5))
    assert (share[0], stderr[0]) == pytest.approx((0.25, 0))


def test_a_live_model_is_measured_from_python() -> None:
    compiled = compile_program("majority", constant=1e4).model
    rng = np.random.default_rng(0)
    a = rng.integers(1, 3, size=(12, 9))
    b = 3 - a
    ones = (a == 1).sum(1) > 4
    answers = (np.where(ones, 1, 2), np.where(ones, 2, 1))
    found = si.circuits(compiled, torch.from_numpy(a), b.tolist(), answers=answers, edges=True)
    assert found.top()[0][0] == "h0.0"
    assert {name for name, *_ in found.top_edges()[:2]} == {"embed->v0.0", "h0.0->logits"}
    lines = found.lines()
    assert any(line.startswith("h0.0") for line in lines)
    assert "forwards" in lines[-1]
    assert found.as_json()["components"][0]["name"] == "h0.0"
    by_kl = si.circuits(compiled, a, b, answers=answers, metric="kl", must_do=False)
    assert by_kl.effects.method.startswith("AtP-IG")
