"""Role map: known names, unknown names, head geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.checkpoints.files.roles import Heads, TensorRole, split, tensor_role
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights

_ROLES = {"query", "key", "value", "attn_out", "mlp_in", "mlp_out", "embedding"}


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel", "llama", "opt", "bert"])
def test_split_projections_are_those_of_the_forward_pass(name, folder, tokens_ST):
    """W x of each split head equals what reaches the attention function (at position 0, where
    rotary embeddings do not turn)."""
    seen = []

    def spy(module, query, key, value, *args, **kwargs):
        seen.append([to_numpy(x[:, :, 0]) for x in (query, key, value)])
        return sdpa_attention_forward(module, query, key, value, *args, **kwargs)

    AttentionInterface.register("spy", spy)
    model = load_model(folder(name))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
    model.set_attn_implementation("spy")
    architecture = architecture_of(model.config)
    inputs = []
    for block in architecture.layers(model):
        block.get_submodule(architecture.attention).register_forward_pre_hook(
            lambda _m, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    with torch.no_grad():
        model(torch.from_numpy(tokens_ST[:5]))
    scale = {"query": 8**-0.5} if name == "opt" else {}  # OPT scales queries before attention
    compared = 0
    for record in iter_weights(folder(name), per_head=True):
        if record.role in {"query", "key", "value"}:
            x_SD = to_numpy(inputs[record.layer][:, 0])
            got = seen[record.layer][["query", "key", "value"].index(record.role)]
            want = x_SD @ record.w_OI.T * scale.get(record.role, 1.0)
            np.testing.assert_allclose(got[:, record.head], want, atol=1e-5)
            compared += 1
    assert compared == 2 * ({"llama": 4 + 2 + 2}.get(name, 12))


def test_attention_output_is_split_by_columns():
    heads = Heads(num_query=2, num_key_value=1, head_dim=2)
    w_OI = np.arange(12.0).reshape(3, 4)
    pieces = list(split(w_OI, TensorRole("attn_out", 0), heads, per_head=True))
    np.testing.assert_array_equal(np.concatenate([p.w_OI for p in pieces], axis=1), w_OI)
    assert [p.head for p in pieces] == [0, 1]


@pytest.mark.parametrize(
    "name", ["gpt2", "neox_parallel", "llama", "qwen3", "gemma2", "granite", "opt", "bert"]
)
def test_every_known_architecture_has_all_roles_in_every_layer(name, folder):
    records = list(iter_weights(folder(name)))
    for layer in range(2):
        in_layer = {r.role for r in records if r.layer == layer}
        assert in_layer >= _ROLES - {"embedding"}
        assert "other" not in in_layer
    assert sum(r.role == "embedding" for r in records) == 1
    assert "fused_qkv" not in {r.role for r in records}


def test_outputs_come_first_for_transposed_tensors(folder):
    shapes = {r.role: r.w_OI.shape for r in iter_weights(folder("gpt2")) if r.layer == 0}
    assert shapes["mlp_in"] == (48, 32)
    assert shapes["mlp_out"] == (32, 48)


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "unheard_of"),
        ("model.layers.0.self_attn.q_proj.lora_A", "llama"),
        ("transformer.wpe.weight", "gpt2"),
    ],
)
def test_unknown_names_and_architectures_are_other(name, model_type):
    assert tensor_role(name, model_type) == TensorRole("other")


def test_fused_tensor_of_the_wrong_size_is_refused():
    fused = TensorRole("fused_qkv", 1, fused="interleaved")
    with pytest.raises(ValueError, match="layer 1: got 5 outputs, allowed 6"):
        list(split(np.zeros((5, 2)), fused, Heads(2, 2, 1), per_head=False))


def test_unknown_architecture_has_no_sites():
    with pytest.raises(ValueError, match="model_type: got 'mamba', allowed"):
        architecture_of(tf.MambaConfig())
