"""Attributions where they are known: sums, linear models, features that were written in."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn

from scaleinv_ray.circuitry.analyses import ANALYSES
from scaleinv_ray.circuitry.attribution.direct import direct_logits
from scaleinv_ray.circuitry.attribution.maxima import activation_maxima
from scaleinv_ray.circuitry.attribution.norms import frozen
from scaleinv_ray.circuitry.attribution.tokens import token_scores
from scaleinv_ray.circuitry.compiled.programs import frac_prevs, induction
from scaleinv_ray.circuitry.effects.measuring import Asked, measure
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.probes import ProbeRequest
from scaleinv_ray.probes.corrupted import Pairs, corrupt
from tests.circuits.test_surgery import CONFIGS, LENGTH, SEQUENCES, VOCABULARY, built, pairs

SUMS = sorted(CONFIGS.keys() - {"opt_350m"})
FLOAT32_NORM = {"gemma2", "granite", "llama", "mistral", "olmo2", "qwen2", "qwen3"}
"""Their RMSNorm computes in float32 inside a float64 model."""


def subject_of(model: tf.PreTrainedModel, given: Pairs, **asked: object) -> Subject:
    anatomy = Anatomy.of(model)
    return Subject(anatomy, given, measure(anatomy, given, Asked(must_do=False, **asked)))


def of_letters(
    sequences: int = 8, probe: str = "induction", dtype: torch.dtype = torch.float64
) -> Subject:
    request = ProbeRequest(
        encode=list,
        sequences=sequences,
        length=22,
        vocab_size=13,
        corpus=None,
        rng=np.random.default_rng(0),
        special_ids=frozenset({0}),
    )
    return subject_of(induction(dtype=dtype).model, corrupt(probe, request).after((0,)))


@pytest.fixture(scope="module")
def known() -> Subject:
    return of_letters()


def logits_of(model: tf.PreTrainedModel, given: Pairs) -> np.ndarray:
    """Logits [S, V] at the answer, before a cap."""
    with torch.no_grad():
        found = model(torch.from_numpy(given.tokens_A_ST), use_cache=False).logits[:, -1].double()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (found if cap is None else cap * torch.atanh(found / cap)).numpy()


def difference(model: tf.PreTrainedModel, given: Pairs) -> np.ndarray:
    logits_SV, rows_S = logits_of(model, given), np.arange(len(given.tokens_A_ST))
    return logits_SV[rows_S, given.answer_A_SP[:, 0]] - logits_SV[rows_S, given.answer_B_SP[:, 0]]


# direct


@pytest.mark.parametrize("name", SUMS)
def test_direct_parts_sum_to_the_logit_difference_of_the_model(name: str) -> None:
    model = built(name, torch.float64)
    found = direct_logits(subject_of(model, pairs(), nodes=("heads",)))
    true_S = difference(model, pairs())
    tolerance = 1e-6 if name in FLOAT32_NORM else 1e-12
    assert np.abs(found.parts_NS.sum(0) - true_S).max() <= tolerance * np.abs(true_S).max()
    np.testing.assert_allclose(found.depth_LS[-1], true_S, rtol=1e-9)
    assert found.names[0] == "embed"
    assert found.names[-1] == "bias"


def test_direct_parts_of_untied_weights_and_over_many_answers_sum_too() -> None:
    config = tf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=16, vocab_size=VOCABULARY, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(1)
    model = tf.GPT2LMHeadModel(config).double().eval()
    given = pairs()
    at_SP = np.tile([3, LENGTH - 1], (SEQUENCES, 1))
    two = replace(
        given, positions_SP=at_SP, answer_A_SP=np.tile(given.answer_A_SP, 2),
        answer_B_SP=np.tile(given.answer_B_SP, 2),
    )  # fmt: skip
    with torch.no_grad():
        logits = model(torch.from_numpy(given.tokens_A_ST)).logits.numpy()
    rows_S = np.arange(SEQUENCES)[:, None]
    true_SP = logits[rows_S, at_SP, two.answer_A_SP] - logits[rows_S, at_SP, two.answer_B_SP]
    found = direct_logits(subject_of(model, two))
    np.testing.assert_allclose(found.parts_NS.sum(0), true_SP.mean(1), rtol=1e-9)


def test_without_a_norm_a_part_of_the_last_layer_is_what_its_cut_takes() -> None:
    given = subject_of(built("attention_only_raw", torch.float64), pairs(), ablation="zero")
    found, e = direct_logits(given), given.effects
    last = [n for n, c in enumerate(e.components) if c.layer == e.num_layers - 1]
    at = [found.names.index(str(e.components[n])) for n in last]
    np.testing.assert_allclose(found.parts_NS[at], -e.effect_NS[last], rtol=1e-9, atol=1e-12)


def test_direct_names_the_head_that_writes_and_the_one_that_works_through_it(
    known: Subject,
) -> None:
    found = direct_logits(known)
    first, *rest = found.as_json()["components"]
    assert first["name"] == "h1.0"
    assert all(abs(part["effect"]) < 1e-4 * first["effect"] for part in rest)
    assert found.through_others == ["h0.0"]
    # nothing of the answer is there before the last block
    assert np.abs(found.depth_LS[:-1]).max() < 1e-4 * found.depth_LS[-1].mean()


def test_direct_of_a_probe_with_right_and_wrong_tokens_compares_their_means() -> None:
    right_SV = np.zeros((SEQUENCES, VOCABULARY), dtype=bool)
    wrong_SV = right_SV.copy()
    right_SV[:, 5:9], wrong_SV[:, 20:23] = True, True
    given = replace(pairs(), metric="prob_diff", right_SV=right_SV, wrong_SV=wrong_SV)
    model = built("opt", torch.float64)
    found = direct_logits(subject_of(model, given))
    logits_SV = logits_of(model, given)
    true_S = logits_SV[:, 5:9].mean(1) - logits_SV[:, 20:23].mean(1)
    np.testing.assert_allclose(found.parts_NS.sum(0), true_S, rtol=1e-9)
    assert "cut" not in "".join(found.lines())  # effects are on probabilities


def test_direct_refuses_a_stream_that_is_no_sum_and_equal_answers() -> None:
    with pytest.raises(ValueError, match="direct: got an OPT that normalises its stream"):
        direct_logits(subject_of(built("opt_350m"), pairs()))
    same = replace(pairs(), answer_B_SP=pairs().answer_A_SP, metric="loss")
    with pytest.raises(ValueError, match="answers: got equal ones in A and B"):
        direct_logits(subject_of(built("gpt2"), same))


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8), None]
)
def test_a_frozen_norm_gives_at_its_point_what_the_norm_gives(norm: nn.Module | None) -> None:
    torch.manual_seed(0)
    if norm is not None:
        norm = norm.double()
        with torch.no_grad():
            for p in norm.parameters():
                p.copy_(torch.randn(8))
    x, to = torch.randn(2, 3, 8, dtype=torch.float64)
    held = frozen(norm, x)
    through = x if norm is None else norm(x).detach()
    torch.testing.assert_close(
        (x * held.back(to)).sum(-1) + to @ held.bias_D, (through * to).sum(-1)
    )


# tokens


def test_scores_of_a_linear_model_are_its_terms() -> None:
    compiled = frac_prevs(constant=1e6)
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 5, size=(2, 6, 12))
    last = np.full((6, 1), 11)
    given = Pairs(a, b, last, np.full((6, 1), 1), np.full((6, 1), 2))
    found = token_scores(subject_of(compiled.model, given), points=128)
    terms_ST = ((a == 1).astype(float) - (b == 1)) / 12
    np.testing.assert_allclose(found.score_SK, terms_ST, atol=1e-6)
    assert found.points == 128


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt", "neox_parallel"])
def test_scores_sum_to_the_change_and_equal_tokens_have_none(name: str) -> None:
    given = pairs()
    a, b = given.tokens_A_ST, given.tokens_B_ST.copy()
    b[:, [0, 4]] = a[:, [0, 4]]
    model = built(name, torch.float64)
    found = token_scores(subject_of(model, replace(given, tokens_B_ST=b)))
    gap_S = found.clean_S - found.base_S
    assert np.abs(found.score_SK.sum(1) - gap_S).sum() <= 0.02 * np.abs(gap_S).sum()
    assert found.error <= 0.02
    assert (found.score_SK[:, [0, 4]] == 0).all()
    np.testing.assert_array_equal(found.tokens_SK, a)
    assert (found.score_SK != 0).any(axis=0).sum() == LENGTH - 2


def test_induction_hangs_on_where_its_query_stood_before(known: Subject) -> None:
    found = token_scores(known).as_json()
    # period 11: the answer stood 11 tokens before, behind the token that asks
    order = np.argsort(-np.abs(found["score"]))
    assert [found["tokens"][k] for k in order[:2]] == ["-11", "-12"]


def test_a_token_as_baseline_leaves_the_beginning(known: Subject) -> None:
    found = token_scores(known, baseline=3)
    assert found.baseline == "'3'"
    assert (found.score_SK[:, 0] == 0).all()
    assert (found.score_SK[found.tokens_SK == 3] == 0).all()


@pytest.mark.parametrize("baseline", ["zero", 0.0, -1, 13])
def test_a_baseline_that_is_no_token_is_refused(known: Subject, baseline: object) -> None:
    with pytest.raises(ValueError, match=r"baseline: got .*, allowed 'B' or a token id in 0\.\.12"):
        token_scores(known, baseline=baseline)  # type: ignore[arg-type]


def test_a_baseline_that_changes_nothing_is_refused(known: Subject) -> None:
    tokens = known.pairs.tokens_A_ST.copy()
    tokens[:, 1:] = 3
    alike = replace(known, pairs=replace(known.pairs, tokens_A_ST=tokens))
    with pytest.raises(ValueError, match="baseline: got one with the logit_diff of A"):
        token_scores(alike, baseline=3)


def test_scores_that_do_not_sum_are_refused() -> None:
    model = built("gpt2")
    with torch.no_grad():
        for p in model.parameters():  # saturated attention: gradients do not see its jumps
            p.mul_(30)
    with pytest.raises(ValueError, match=r"incomplete by .* at 512 points, allowed 2%"):
        token_scores(subject_of(model, pairs().some(slice(1))), points=512)


def test_without_captum_the_extra_is_named(known: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ValueError, match=r"pip install 'scaleinv-ray\[attribution\]'"):
        token_scores(known)


# maxima


def fresh(model: tf.PreTrainedModel, path: str, tokens_T: torch.Tensor) -> torch.Tensor:
    """What the module gets in a forward pass of the stock model, [T, .]."""
    found: list[torch.Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(
        lambda _module, args: found.append(args[0].reshape(-1, args[0].shape[-1]))
    )
    with torch.no_grad():
        model(tokens_T[None], use_cache=False)
    handle.remove()
    return found[0]


def test_a_neuron_is_largest_where_the_token_stands_that_it_reads(known: Subject) -> None:
    (found,) = activation_maxima(known, units=["m0.2"]).found
    model = known.anatomy.model
    for reached in (*found.contexts, found.synthetic):
        assert reached.tokens_T[reached.at] == 2
        assert (
            reached.value
            == fresh(model, "transformer.h.0.mlp.c_proj", reached.tokens_T)[reached.at, 2]
        )
    everywhere = [
        fresh(model, "transformer.h.0.mlp.c_proj", torch.from_numpy(row))[1:, 2].max()
        for row in np.concatenate([known.pairs.tokens_A_ST, known.pairs.tokens_B_ST])
    ]
    assert found.contexts[0].value == pytest.approx(float(max(everywhere)), abs=1e-12)


def test_ascent_finds_the_token_that_the_dataset_does_not_have(known: Subject) -> None:
    given = known.pairs
    without = {
        name: np.where(getattr(given, name) == 2, 3, getattr(given, name))
        for name in ("tokens_A_ST", "tokens_B_ST")
    }
    (found,) = activation_maxima(
        replace(known, pairs=replace(given, **without)), units=["m0.2"]
    ).found
    assert found.contexts[0].value < 0.5
    assert found.synthetic.value > 1.2
    assert found.synthetic.tokens_T[found.synthetic.at] == 2
    assert found.synthetic.tokens_T[0] == 0  # the beginning stays
    assert found.ratio == found.synthetic.value / found.p99


def test_the_head_that_copies_is_largest_where_it_copies(known: Subject) -> None:
    found = activation_maxima(known, units=["h1.0>next", "h0.0"]).found
    for reached in found[0].contexts:
        tokens, at = reached.tokens_T.tolist(), reached.at
        assert any(tokens[k : k + 2] == tokens[at : at + 2] for k in range(at))
    model, (head, context) = known.anatomy.model, (found[1], found[1].contexts[0])
    z_TK = fresh(model, "transformer.h.0.attn.c_proj", context.tokens_T)
    width = known.anatomy.heads.head_dim
    u_TD = z_TK[:, :width] @ model.transformer.h[0].attn.c_proj.weight[:width].detach()
    assert context.value == pytest.approx(float(u_TD[context.at].norm()), rel=1e-12)
    assert head.synthetic.value >= context.value


def test_units_are_chosen_by_effect_and_text_is_read_where_it_can_be(known: Subject) -> None:
    def encode(text: str) -> list[int]:
        return [1 + b % 12 for b in text.encode()]

    without, found = activation_maxima(known), activation_maxima(replace(known, encode=encode))
    assert [str(m.unit) for m in found.found][:2] == ["h1.0>next", "h0.0"]
    assert found.text
    assert not without.text
    assert found.num_tokens > without.num_tokens
    for one, other in zip(without.found, found.found, strict=True):
        assert other.contexts[0].value >= one.contexts[0].value - 1e-9


@pytest.mark.parametrize("name", ["gemma2", "opt_350m", "neox_parallel", "attention_only"])
def test_every_architecture_has_maxima_read_again_by_its_stock_forward(name: str) -> None:
    model = built(name)
    given = subject_of(model, pairs())
    mlps = given.anatomy.graph.mlps
    found = activation_maxima(given, units=["m1.5"] if mlps else ["h1.2"]).found[0]
    down = given.anatomy.architecture.down_projection
    path = f"{given.anatomy.architecture.blocks}.1."
    for reached in (*found.contexts, found.synthetic):
        inside = fresh(model, path + (down or given.anatomy.paths.out), reached.tokens_T)
        if mlps:
            assert reached.value == inside[reached.at, 5]
        else:
            z_K = inside[reached.at].unflatten(-1, (4, -1))[2]
            u_D = z_K @ given.anatomy.written_HKD(1)[2]
            assert reached.value == pytest.approx(float(u_D.norm()), rel=1e-5)


@pytest.mark.parametrize("name", ["m2.0", "m0.4", "h1.4", "m0.1>next", "neuron 3", "h0"])
def test_a_unit_that_the_model_lacks_is_refused(known: Subject, name: str) -> None:
    allowed = r"allowed m0\.0\.\.m1\.3, h0\.0\.\.h1\.3, and h0\.0>next"
    with pytest.raises(ValueError, match=f"units: got '{name}', {allowed}"):
        activation_maxima(known, units=[name])


# all


@pytest.mark.parametrize("name", ["direct", "tokens", "maxima"])
@pytest.mark.parametrize(("spelled", "metric"), [(False, "logit_diff"), (True, "loss")])
def test_what_is_said_fits_a_terminal_and_json(
    known: Subject, name: str, spelled: bool, metric: str
) -> None:
    spell = partial("{}{}".format, " letter\n") if spelled else None
    effects = replace(known.effects, metric=metric)
    found = ANALYSES[name](replace(known, spell=spell, effects=effects))
    lines = found.lines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 96
    assert not any("\n" in line for line in lines)
    said = json.loads(json.dumps(found.as_json(), allow_nan=False))
    keys = {
        "direct": {"components", "by_depth"},
        "tokens": {"tokens", "score", "stderr", "baseline", "error"},
        "maxima": {"units"},
    }
    assert keys[name] <= said.keys()
