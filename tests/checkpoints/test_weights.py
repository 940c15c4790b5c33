"""Streaming weights: every tensor once, in every variant."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.checkpoints.weights.changed import shuffled
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights


def _key(record):
    return record.role, record.layer, record.head, record.w_OI.shape


def _assert_same(left, right):
    left, right = sorted(left, key=str_key), sorted(right, key=str_key)
    assert [_key(r) for r in left] == [_key(r) for r in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.w_OI, b.w_OI)


def str_key(record):
    return str(_key(record))


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel", "llama"])
def test_all_entries_of_all_matrices_come_once(name, folder):
    stored = load_file(folder(name) / "model.safetensors")
    wanted = torch.cat([t.ravel() for t in stored.values() if t.ndim >= 2]).sort().values
    for per_head in (False, True):
        got = [r.w_OI.ravel() for r in iter_weights(folder(name), per_head=per_head)]
        np.testing.assert_array_equal(np.sort(np.concatenate(got)), wanted.numpy())


@pytest.mark.parametrize("name", ["gpt2", "neox_parallel"])
def test_sharded_equals_single(name, folder, tmp_path):
    load_model(folder(name)).save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    _assert_same(iter_weights(folder(name)), iter_weights(tmp_path))


def test_tied_embedding_counts_once_even_where_the_head_is_stored(folder, tmp_path):
    shutil.copytree(folder("gpt2"), tmp_path / "both")
    tensors = load_file(tmp_path / "both" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, tmp_path / "both" / "model.safetensors", metadata={"format": "pt"})
    _assert_same(iter_weights(folder("gpt2")), iter_weights(tmp_path / "both"))
    roles = [r.role for r in iter_weights(tmp_path / "both")]
    assert roles.count("embedding") == 1
    assert "unembedding" not in roles


def test_untied_head_is_kept(folder):
    assert "unembedding" in {r.role for r in iter_weights(folder("neox_parallel"))}


def test_stored_causal_masks_are_no_weights(folder, tmp_path):
    shutil.copytree(folder("gpt2"), tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    save_file(tensors, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    _assert_same(iter_weights(folder("gpt2")), iter_weights(tmp_path / "old"))


def test_stored_dtype(folder, tmp_path):
    load_model(folder("llama")).to(torch.bfloat16).save_pretrained(tmp_path)
    records = list(iter_weights(tmp_path))
    assert {(r.dtype, r.num_layers) for r in records} == {("bfloat16", 2)}
    assert {r.w_OI.dtype for r in records} == {np.dtype(np.float32)}


def test_shuffled_keeps_the_entries_of_each_tensor_and_moves_them(folder):
    stored = load_file(folder("llama") / "model.safetensors")
    for name, tensor in stored.items():
        moved = shuffled(tensor, name, model_type="llama", seed=3)
        assert moved.shape == tensor.shape
        torch.testing.assert_close(moved.ravel().sort().values, tensor.ravel().sort().values)
        assert not torch.equal(moved, tensor)
        assert torch.equal(moved, shuffled(tensor, name, model_type="llama", seed=3))
        assert not torch.equal(moved, shuffled(tensor, name, model_type="llama", seed=4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_permutation_does_not_depend_on_the_dtype(dtype):
    tensor = torch.arange(12.0).reshape(3, 4)
    want = shuffled(tensor, "a", model_type="gpt2", seed=0)
    got = shuffled(tensor.to(dtype), "a", model_type="gpt2", seed=0)
    assert torch.equal(got.float(), want.to(dtype).float())


def test_shuffled_is_done_before_the_split(folder):
    """Entries cross from queries to values: the tensor is the unit that is stored."""
    plain, mixed = (
        next(r for r in iter_weights(folder("gpt2"), variant=v) if r.role == "query")
        for v in ("trained", "shuffled_weights")
    )
    assert not np.array_equal(np.sort(plain.w_OI, axis=None), np.sort(mixed.w_OI, axis=None))


def test_random_init_from_step_0_or_from_the_config(folder):
    step0 = iter_weights(folder("llama"), variant="random_init", init_folder=folder("llama"))
    _assert_same(step0, iter_weights(folder("llama")))
    drawn = [list(iter_weights(folder("llama"), variant="random_init", seed=s)) for s in (0, 0, 1)]
    _assert_same(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][0].w_OI, drawn[2][0].w_OI)
    assert {_key(r) for r in drawn[0]} == {_key(r) for r in iter_weights(folder("llama"))}


def test_building_a_model_leaves_the_global_generator_alone(folder):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    list(iter_weights(folder("llama"), variant="random_init"))
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_of_shuffled_tokens_are_refused(folder):
    with pytest.raises(ValueError, match="variant: got 'shuffled_tokens'"):
        list(iter_weights(folder("llama"), variant="shuffled_tokens"))


def test_reading_weights_imports_no_model_code():
    """Every task that measures weights pays for its imports; transformers' models take seconds."""
    module = "scaleinv_ray.checkpoints.weights.matrices"
    code = f"import sys, {module}; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


OUTPUT_PROJECTION = {  # from the block to the module that mixes the heads
    "gpt2": "attn.c_proj",
    "neox_parallel": "attention.dense",
    "llama": "self_attn.o_proj",
    "opt": "self_attn.out_proj",
    "bert": "attention.output.dense",
}


class Forward:
    """What passes through the attention of each layer in a forward pass without biases.

    All tokens stand at position 0, where rotary embeddings do not turn.
    """

    def __init__(self, name, folder, tokens_ST):
        self.input, self.heads, self.mixed = [], [], []
        model = load_model(folder)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter_name.endswith("bias"):
                    parameter.zero_()
        AttentionInterface.register("spy_on_heads", self._spy)
        model.set_attn_implementation("spy_on_heads")
        architecture = architecture_of(model.config)
        for block in architecture.layers(model):
            block.get_submodule(architecture.attention).register_forward_pre_hook(
                lambda _m, args, kwargs: self.input.append(
                    to_numpy(args[0] if args else kwargs["hidden_states"])
                ),
                with_kwargs=True,
            )
            block.get_submodule(OUTPUT_PROJECTION[name]).register_forward_hook(
                lambda _m, _args, output: self.mixed.append(to_numpy(output))
            )
        tokens = torch.from_numpy(tokens_ST)
        with torch.no_grad():
            model(tokens, position_ids=torch.zeros_like(tokens))

    def _spy(self, module, query, key, value, *args, **kwargs):
        output, pattern = sdpa_attention_forward(module, query, key, value, *args, **kwargs)
        per_head = {"query": query, "key": key, "value": value}
        seen = {role: to_numpy(x) for role, x in per_head.items()}  # [S, head, T, head_dim]
        seen["attn_out"] = np.moveaxis(to_numpy(output), 2, 1)
        self.heads.append(seen)
        return output, pattern


@pytest.mark.parametrize("name", OUTPUT_PROJECTION)
def test_heads_are_those_of_the_forward_pass(name, folder, tokens_ST):
    """Each head's rows give the model's own query, key or value of that head at every token, and
    the columns of the heads add up to what attention writes."""
    forward = Forward(name, folder(name), tokens_ST[:5])
    # OPT scales its queries by head_dim^(-1/2) before attention
    scale = {"query": 8**-0.5} if name == "opt" else {}
    written = [np.zeros_like(mixed) for mixed in forward.mixed]
    compared = dict.fromkeys(("query", "key", "value", "attn_out"), 0)
    for record in iter_weights(folder(name), per_head=True):
        if record.role not in compared:
            continue
        compared[record.role] += 1
        of_head = forward.heads[record.layer][record.role][:, record.head]
        if record.role == "attn_out":
            written[record.layer] += of_head @ record.w_OI.T
        else:
            want = forward.input[record.layer] @ record.w_OI.T * scale.get(record.role, 1.0)
            np.testing.assert_allclose(of_head, want, atol=2e-5)
    for total, mixed in zip(written, forward.mixed, strict=True):
        np.testing.assert_allclose(total, mixed, atol=2e-5)
    shared = 2 * (2 if name == "llama" else 4)  # grouped keys and values
    assert compared == {"query": 8, "key": shared, "value": shared, "attn_out": 8}


@pytest.mark.parametrize("name", OUTPUT_PROJECTION)
def test_projections_are_their_heads_in_order(name, folder):
    heads: dict = {}
    for record in iter_weights(folder(name), per_head=True):
        if record.head is not None:
            assert record.head == len(heads.setdefault((record.role, record.layer), []))
            heads[record.role, record.layer].append(record.w_OI)
    whole = {(r.role, r.layer): r for r in iter_weights(folder(name)) if (r.role, r.layer) in heads}
    assert set(whole) == set(heads)
    for (role, layer), parts in heads.items():
        assert whole[role, layer].head is None
        joined = np.concatenate(parts, axis=1 if role == "attn_out" else 0)
        np.testing.assert_array_equal(joined, whole[role, layer].w_OI)
