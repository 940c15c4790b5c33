"""Captures of the attention-only architecture: a folder of it is read as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from scaleinv_ray.attention_only.configuration import MODEL_TYPE, AttentionOnlyConfig
from scaleinv_ray.capture.by_kind.attention import attention_records
from scaleinv_ray.capture.by_kind.jacobians import jacobian_records
from scaleinv_ray.capture.forward import forward_records
from scaleinv_ray.capture.streaming.layers import StreamedModel
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.records import Protocol

PROTOCOL = Protocol(
    sequences=16, length=12, position=8, tokens_per_dim=4, blocks=4, stream_units=2,
    jacobian_positions=3, attention_sequences=3, vocab_rows=7,
)  # fmt: skip
VARIANTS = [("rotary", True), ("rotary", False), ("learned", True), ("learned", False)]


@pytest.fixture(params=VARIANTS, ids=lambda v: f"{v[0]}-{'norm' if v[1] else 'plain'}")
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    positions, layer_norm = request.param
    config = AttentionOnlyConfig(
        vocab_size=50, hidden_size=16, num_attention_heads=4, positions=positions,
        layer_norm=layer_norm, max_position_embeddings=12, initializer_range=0.25,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def tokens_ST() -> np.ndarray:
    return np.random.default_rng(1).integers(50, size=(PROTOCOL.sequences, PROTOCOL.length))


def test_weights_by_role_and_head(folder: Path) -> None:
    found = [(r.role, r.layer, r.head, r.w_OI.shape) for r in iter_weights(folder, per_head=True)]
    for layer in range(2):
        for role, shape in (("query", (4, 16)), ("key", (4, 16)), ("attn_out", (16, 4))):
            heads = [f for f in found if f[:2] == (role, layer)]
            assert heads == [(role, layer, h, shape) for h in range(4)]
    assert ("embedding", None, None, (50, 16)) in found
    assert ("unembedding", None, None, (50, 16)) in found


def test_forward_records_and_both_attentions(folder: Path, tokens_ST: np.ndarray) -> None:
    kinds = frozenset({"cloud", "moments", "depth_stack", "token_losses"})
    eager, fused = (
        forward_records(
            load_model(folder, LoadOptions(attention=attention)), tokens_ST, PROTOCOL,
            kinds=kinds, batch_size=5,
        )
        for attention in ("eager", "sdpa")
    )  # fmt: skip
    np.testing.assert_allclose(
        eager["token_losses"][0].loss_ST, fused["token_losses"][0].loss_ST, atol=1e-5
    )
    model = load_model(folder)
    ids = torch.from_numpy(tokens_ST)
    with torch.no_grad():
        whole = model(ids, labels=ids).loss  # as transformers has it
    assert float(whole) == pytest.approx(fused["token_losses"][0].loss_ST.mean(), abs=1e-5)
    assert [r.layer for r in fused["cloud"]] == [0, 0, 1]
    assert {r.removes_mean for r in fused["moments"]} == {model.config.layer_norm}


def test_attention_is_causal_and_a_block_adds_its_heads(
    folder: Path, tokens_ST: np.ndarray
) -> None:
    model = load_model(folder)
    records = attention_records(model, tokens_ST, PROTOCOL)
    assert [(r.layer, r.head) for r in records] == [(n, h) for n in range(2) for h in range(4)]
    for record in records:
        np.testing.assert_allclose(record.a_STT.sum(axis=2), 1.0, atol=1e-5)
        assert not np.triu(record.a_STT, 1).any()
    if model.config.layer_norm:
        return
    # x + sum over heads of A x Wv^T Wo^T, from the record and the weights as captured
    weights = {
        (r.role, r.head): r.w_OI for r in iter_weights(folder, per_head=True) if r.layer == 0
    }
    seen: list[torch.Tensor] = []
    hooks = [
        model.model.layers[0].register_forward_pre_hook(
            lambda _m, args, kwargs: seen.append(args[0]), with_kwargs=True
        ),
        model.model.layers[0].register_forward_hook(lambda _m, _a, out: seen.append(out)),
    ]
    with torch.no_grad():
        model(torch.from_numpy(tokens_ST[:3]))
    for hook in hooks:
        hook.remove()
    x_STD, out_STD = (x.numpy() for x in seen)
    added = sum(
        records[h].a_STT @ x_STD @ weights["value", h].T @ weights["attn_out", h].T
        for h in range(4)
    )
    np.testing.assert_allclose(x_STD + added, out_STD, atol=1e-5)


def test_jacobians_are_those_of_differences(folder: Path, tokens_ST: np.ndarray) -> None:
    model = load_model(folder, LoadOptions(dtype=torch.float64))
    record = list(jacobian_records(model, tokens_ST, PROTOCOL))[1]
    captured: list = []
    block = model.model.layers[1]

    def keep(_module: object, args: tuple, kwargs: dict) -> None:
        captured.append((args, kwargs))

    hook = block.register_forward_pre_hook(keep, with_kwargs=True)
    at = PROTOCOL.position
    with torch.no_grad():
        model(torch.from_numpy(tokens_ST[:1, : at + 1]), use_cache=False)
        hook.remove()
        (args, kwargs), step = captured[0], 1e-5
        moved = []
        for sign in (1, -1):
            x = args[0].clone()
            x[0, at, 2] += sign * step
            moved.append(block(x, *args[1:], **kwargs)[0, at])
    difference = ((moved[0] - moved[1]) / (2 * step)).numpy()
    np.testing.assert_allclose(record.j_TDD[0, :, 2], difference, atol=1e-7)


def test_what_needs_an_mlp_is_refused(folder: Path, tokens_ST: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"sites: got 'mlp_hidden', .*{MODEL_TYPE} has no MLP"):
        forward_records(
            load_model(folder), tokens_ST, PROTOCOL, kinds=frozenset({"stream"}), batch_size=8
        )


def test_a_skeleton_is_built_without_weights(folder: Path) -> None:
    streamed = StreamedModel.open(folder)
    assert all(p.is_meta for p in streamed.model.parameters())
    assert streamed.architecture.num_layers == 2
