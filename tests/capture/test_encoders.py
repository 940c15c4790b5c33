"""Encoders: what is captured of models whose attention sees later positions too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from scaleinv_ray import checkpoints
from scaleinv_ray.capture.by_kind.attention import attention_records
from scaleinv_ray.capture.by_kind.jacobians import jacobian_records
from scaleinv_ray.capture.by_kind.masked_losses import masked_losses, masked_positions
from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.makers import PassRequest
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.checkpoints.files.headers import read_tensors
from scaleinv_ray.checkpoints.files.needed import check_tensors
from scaleinv_ray.checkpoints.weights.fits import needed_by
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.cost_model import price
from scaleinv_ray.inspection import inspect
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan import make_plan
from scaleinv_ray.records import Jacobians, Protocol
from tests.plan.test_odd_shapes import config_of, made

LETTERS = "ACDEFGHIKLM\n"
SPECIAL = ("<s>", "<pad>", "</s>", "<mask>")
MASK, VOCABULARY = SPECIAL.index("<mask>"), len(SPECIAL) + len(LETTERS)
PROTOCOL = Protocol(
    sequences=40, length=16, position=9, tokens_per_dim=4, blocks=2, stream_units=6,
    jacobian_positions=2, attention_sequences=2, vocab_rows=5,
)  # fmt: skip
SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": VOCABULARY, "max_position_embeddings": 34, "pad_token_id": 1,
}  # fmt: skip
KINDS_OF: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": MASK, "token_dropout": True,
            "emb_layer_norm_before": False},
}  # fmt: skip
ENCODERS = tuple(KINDS_OF)


def perturbed(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def letters_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate((*SPECIAL, *LETTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def encoder(folder: Path, kind: str, *, head: bool = True, **more: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **(SIZES | KINDS_OF.get(kind, {}) | more))
        of_class = AutoModelForMaskedLM if head else AutoModel
        perturbed(of_class.from_config(config)).save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("letters") / "letters.jsonl"
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(LETTERS[:10]), size=90)) for _ in range(200)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


@pytest.fixture
def tokens_ST() -> np.ndarray:
    shape = PROTOCOL.sequences, PROTOCOL.length
    return np.random.default_rng(1).integers(len(SPECIAL), VOCABULARY, size=shape)


@pytest.mark.parametrize("head", [True, False], ids=["with head", "body alone"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_forward_captures_are_what_the_model_itself_gives(
    kind: str, head: bool, tmp_path: Path, tokens_ST: np.ndarray
) -> None:
    model = load_model(encoder(tmp_path, kind, head=head))
    kinds = frozenset({"cloud", "depth_stack", "moments", "stream"})
    records = forward_records(model, tokens_ST, PROTOCOL, kinds=kinds, batch_size=7)
    with torch.no_grad():
        out = model.base_model(
            input_ids=torch.from_numpy(tokens_ST), output_hidden_states=True
        ).hidden_states
    # of ESM the last of them has passed the final norm
    for record, state in zip(records["cloud"][:-1], out[:-1], strict=True):
        np.testing.assert_allclose(record.x_TD, state[:, PROTOCOL.position], atol=1e-5)
    assert [r.site for r in records["cloud"]] == ["resid_pre", "resid_post", "resid_post"]
    assert {r.removes_mean for r in records["cloud"]} == {kind == "esm"}
    assert records["stream"][0].x_TD.shape[1] == 6
    shapes = [(r.role, r.layer, r.w_OI.shape) for r in iter_weights(tmp_path)]
    for layer in (0, 1):
        for role, shape in (("query", (16, 16)), ("mlp_in", (24, 16)), ("mlp_out", (16, 24))):
            assert (role, layer, shape) in shapes
    check_tensors(tmp_path, read_tensors(tmp_path), needed_by(tmp_path))


@pytest.mark.parametrize("kind", ENCODERS)
def test_attention_sees_later_positions(kind: str, tmp_path: Path, tokens_ST: np.ndarray) -> None:
    model = load_model(encoder(tmp_path, kind))
    records = attention_records(model, tokens_ST, PROTOCOL)
    assert [(r.layer, r.head) for r in records] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for record in records:
        np.testing.assert_allclose(record.a_STT.sum(axis=2), 1, atol=1e-5)
        assert np.triu(record.a_STT, k=1).max() > 0.01


@pytest.mark.parametrize("kind", ENCODERS)
def test_jacobians_are_those_of_a_block_at_one_position(
    kind: str, tmp_path: Path, tokens_ST: np.ndarray
) -> None:
    model = load_model(encoder(tmp_path, kind))
    found: list[Jacobians] = list(jacobian_records(model, tokens_ST, PROTOCOL))
    assert [r.layer for r in found] == [0, 1]
    at, block = PROTOCOL.position, model.base_model.encoder.layer[1]
    for t in range(PROTOCOL.jacobian_positions):
        one_1T = torch.from_numpy(tokens_ST[t : t + 1])
        inputs: list[Any] = []
        handle = block.register_forward_pre_hook(
            lambda module, args, kwargs, inputs=inputs: inputs.append((args, kwargs)),
            with_kwargs=True,
        )
        with torch.no_grad():
            model.base_model(input_ids=one_1T)
        handle.remove()
        ((args, kwargs),) = inputs
        h_1TD = (args[0] if args else kwargs.pop("hidden_states")).detach()

        def out(h_D: torch.Tensor, h_1TD=h_1TD, args=args, kwargs=kwargs) -> torch.Tensor:
            moved = h_1TD.clone()
            moved[0, at] = h_D
            result = block(moved, *args[1:], **kwargs)
            return (result[0] if isinstance(result, tuple) else result)[0, at]

        j_DD = torch.autograd.functional.jacobian(out, h_1TD[0, at])
        np.testing.assert_allclose(found[1].j_TDD[t], j_DD, atol=1e-5)
        np.testing.assert_allclose(found[1].h_TD[t], h_1TD[0, at], atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_masked_losses_are_those_of_the_model(
    kind: str, tmp_path: Path, tokens_ST: np.ndarray
) -> None:
    model = load_model(encoder(tmp_path, kind))
    asked = PassRequest(model, tokens_ST, PROTOCOL, seed=5, mask_id=MASK, batch_size=16)
    (record,) = masked_losses(asked)
    assert record.loss_SM.shape == (40, 2), "15 % of 16 tokens"
    position_SM = masked_positions(*tokens_ST.shape, seed=5)
    np.testing.assert_array_equal(record.position_SM, position_SM)
    hidden_ST, label_ST = tokens_ST.copy(), np.full_like(tokens_ST, -100)
    np.put_along_axis(hidden_ST, position_SM, MASK, axis=1)
    picked = np.take_along_axis(tokens_ST, position_SM, axis=1)
    np.put_along_axis(label_ST, position_SM, picked, axis=1)
    with torch.no_grad():
        loss = model(input_ids=torch.from_numpy(hidden_ST), labels=torch.from_numpy(label_ST)).loss
    assert record.loss_SM.mean() == pytest.approx(loss.item(), abs=1e-5)


def test_what_an_encoder_does_not_have_is_refused(tmp_path: Path, tokens_ST: np.ndarray) -> None:
    model = load_model(encoder(tmp_path / "body", "bert", head=False))
    with pytest.raises(ValueError, match="'masked_losses' of a model without a head"):
        list(masked_losses(PassRequest(model, tokens_ST, PROTOCOL, mask_id=MASK)))
    with pytest.raises(ValueError, match="'token_losses' of a model that is not causal"):
        kinds = frozenset({"token_losses"})
        forward_records(model, tokens_ST, PROTOCOL, kinds=kinds, batch_size=8)
    with pytest.raises(ValueError, match="got an encoder, which is not streamed"):
        StreamedModel.open(tmp_path / "body")


def test_xlm_roberta_counts_positions_from_behind_its_padding(
    tmp_path: Path, letters: Path
) -> None:
    """514 positions of which two stand for padding and what is before it; one kind of segment."""
    sizes = {"type_vocab_size": 1, "max_position_embeddings": 18, "layer_norm_eps": 1e-5}
    folder = encoder(tmp_path / "x", "xlm-roberta", **sizes)
    (c,) = checkpoints.from_folder(folder, cache_dir=tmp_path / "cache")
    assert (c.encoder, c.max_positions, c.mask_id, c.broken) == (True, 16, MASK, None)
    tokens_ST = np.random.default_rng(1).integers(len(SPECIAL), VOCABULARY, size=(40, 16))
    model = load_model(folder)
    kinds = frozenset({"cloud"})
    records = forward_records(model, tokens_ST, PROTOCOL, kinds=kinds, batch_size=7)
    table = model.base_model.embeddings
    at = torch.from_numpy(tokens_ST[:, PROTOCOL.position])
    with torch.no_grad():
        by_hand = table.LayerNorm(
            table.word_embeddings(at)
            + table.position_embeddings.weight[PROTOCOL.position + table.padding_idx + 1]
            + table.token_type_embeddings.weight[0]
        )
    np.testing.assert_allclose(records["cloud"][0].x_TD, by_hand, atol=1e-6)
    asked = config_of(letters, folder, protocol={"sequences": 128, "length": 17, "position": 9})
    with pytest.raises(ValueError, match=r"length: got 17, allowed 1\.\.16 \(positions of model x"):
        make_plan(asked)


def test_positions_begin_behind_padding(tmp_path: Path) -> None:
    longest = {}
    for kind in ENCODERS:
        (c,) = checkpoints.from_folder(encoder(tmp_path / kind, kind), cache_dir=tmp_path / "cache")
        assert c.encoder and c.mask_id == MASK and c.no_logits is None and c.broken is None
        longest[kind] = c.max_positions
    assert longest == {"bert": 34, "roberta": 32, "esm": 34}
    body = encoder(tmp_path / "body", "bert", head=False)
    (c,) = checkpoints.from_folder(body, cache_dir=tmp_path / "cache")
    assert c.encoder and c.mask_id is None and c.broken is None


@pytest.mark.parametrize("kind", ENCODERS)
def test_parameters_are_counted_once_and_buffers_not_at_all(kind: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path / kind, kind, tie_word_embeddings=True)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    held = load_file(folder / "model.safetensors")
    head = "cls.predictions" if kind == "bert" else "lm_head"
    (table,) = (name for name in held if name.endswith("word_embeddings.weight"))
    twice = {f"{head}.decoder.weight": held[table], f"{head}.decoder.bias": held[f"{head}.bias"]}
    for more in ({}, {k: v.copy() for k, v in twice.items()}):  # as older files have them
        save_file(held | more, folder / "model.safetensors", metadata={"format": "pt"})
        (c,) = checkpoints.from_folder(folder, cache_dir=tmp_path / "cache")
        assert c.n_params == model.num_parameters()


@pytest.mark.parametrize(("kind", "head"), [("bert", False), ("roberta", True), ("esm", True)])
def test_everything_of_an_encoder_is_planned_and_measured(
    kind: str, head: bool, tmp_path: Path, letters: Path
) -> None:
    folder = encoder(tmp_path / kind, kind, head=head)
    protocol = dataclasses.asdict(PROTOCOL) | {"sequences": 128, "length": 24}
    config = config_of(letters, folder, protocol=protocol, variants=["trained", "random_init"])
    plan = make_plan(config)
    causal = {"token_losses", "hessian", "ggn", "chains", "effects", "readings"}
    kinds = set(KINDS) - causal - (set() if head else {"masked_losses"})
    assert {m.kind for m in plan.measurements} == kinds
    assert "behaviour.masked_prediction" not in price(plan, plan.measurements).unpriced
    counts = made(config, plan, tmp_path / "run")
    assert counts["failed"] == 0 and counts["ok"] > 100
    named = config_of(letters, folder, invariants=["behaviour.capabilities"], protocol=protocol)
    with pytest.raises(ValueError, match="got encoders alone .*, which give no 'token_losses'"):
        make_plan(named)


def test_a_trained_encoder_knows_its_text(tmp_path: Path) -> None:
    """One letter throughout a sequence: any that is not hidden tells those that are."""
    config = AutoConfig.for_model("bert", **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # without dropout: what that draws hangs on the tests before
        model = AutoModelForMaskedLM.from_config(config).eval()
    rng = np.random.default_rng(0)

    def text(count: int) -> np.ndarray:
        letter_S1 = rng.integers(len(SPECIAL), VOCABULARY, size=(count, 1))
        return np.repeat(letter_S1, PROTOCOL.length, axis=1)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        tokens_ST = text(32)
        position_SM = masked_positions(*tokens_ST.shape, seed=step)
        hidden_ST = tokens_ST.copy()
        np.put_along_axis(hidden_ST, position_SM, MASK, axis=1)
        labels_ST = np.where(hidden_ST == MASK, tokens_ST, -100)
        loss = model(input_ids=torch.from_numpy(hidden_ST), labels=torch.from_numpy(labels_ST)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    asked = PassRequest(load_model(tmp_path), text(40), PROTOCOL, mask_id=MASK)
    (record,) = masked_losses(asked)
    assert record.loss_SM.mean() < 0.3 < np.log(len(LETTERS)), "the entropy of a letter"


def test_inspection_of_an_encoder_has_its_loss(tmp_path: Path) -> None:
    ids_ST = np.random.default_rng(0).integers(len(SPECIAL), VOCABULARY, size=(24, 16))
    np.save(tmp_path / "ids.npy", ids_ST)
    found = inspect(encoder(tmp_path / "m", "bert"), tokens=tmp_path / "ids.npy", budget_s=20)
    (loss,) = [line for line in found.lines if line.at.quantity == "masked_loss"]
    assert 2 < loss.value.value < 4


def test_encoders_of_other_kinds_give_their_weights(tmp_path: Path, letters: Path) -> None:
    config = DistilBertConfig(dim=16, hidden_dim=24, n_layers=1, n_heads=2, vocab_size=VOCABULARY,
                              tie_word_embeddings=False)  # fmt: skip
    DistilBertForMaskedLM(config).save_pretrained(tmp_path / "d")
    letters_tokenizer().save_pretrained(tmp_path / "d")
    asked = config_of(letters, tmp_path / "d", invariants=["weights.weight_tail"])
    assert made(asked, make_plan(asked), tmp_path / "run")["failed"] == 0
    with pytest.raises(ValueError, match=r"model_type: got 'distilbert', .*weights alone"):
        make_plan(config_of(letters, tmp_path / "d"))


def test_encoder_and_decoder_is_refused_with_the_reason(tmp_path: Path, letters: Path) -> None:
    config = T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=VOCABULARY,
                      tie_word_embeddings=False)  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    letters_tokenizer().save_pretrained(tmp_path / "t5")
    asked = config_of(letters, tmp_path / "t5", invariants=["topology.persistence"])
    with pytest.raises(ValueError, match="t5 is an encoder and decoder .*weights alone"):
        make_plan(asked)
