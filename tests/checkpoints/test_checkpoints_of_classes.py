"""Checkpoints as transformers writes them, of many classes: counts, matrices and nulls agree."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from scaleinv_ray.checkpoints import from_folder
from scaleinv_ray.checkpoints.weights.matrices import iter_weights

D, FF, V = 32, 48, 97
SIZES: dict[str, Any] = {
    "hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": V,
    "num_key_value_heads": 2, "intermediate_size": FF, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FOUR = {"num_local_experts": 4}
FEW = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "q_lora_rank": 8,
    "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
NO_GROUPS = {k: v for k, v in SIZES.items() if k not in {"num_key_value_heads"}}
CLASSES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": D, "n_layer": 3, "n_head": 4, "vocab_size": V, "n_positions": 64},
    "mpt": {"d_model": D, "n_layers": 3, "n_heads": 4, "vocab_size": V, "max_seq_len": 64},
    "gpt_neox": NO_GROUPS, "phi": SIZES, "olmo2": SIZES, "qwen3": SIZES, "gemma2": SIZES,
    "gemma3_text": SIZES, "falcon": NO_GROUPS, "mamba": NO_GROUPS | {"state_size": 8},
    "opt": {k: v for k, v in NO_GROUPS.items() if k != "intermediate_size"}
    | {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "bert": NO_GROUPS | {"is_decoder": True},
    "mixtral": SIZES | FOUR, "gpt_oss": SIZES | FOUR | {"head_dim": 8},
    "granitemoe": SIZES | FOUR, "qwen3_moe": SIZES | FEW,
    "qwen2_moe": SIZES | FEW | {"shared_expert_intermediate_size": 24},
    "deepseek_v3": SIZES | LATENT,
}  # fmt: skip
# a gate and what it opens are one matrix where the class stores them so
STACKS = {
    "mixtral": {(FF, D): 24, (D, FF): 12},
    "qwen3_moe": {(16, D): 24 + 6, (D, 16): 12},
    "gpt_oss": {(D, 2 * FF): 12, (FF, D): 12},
    "granitemoe": {(2 * FF, D): 12, (D, FF): 12},
}


def _saved(kind: str, folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CLASSES[kind]))
    model.save_pretrained(folder)
    return model


def _shapes(folder: Path, **more: Any) -> Counter[tuple[str | None, tuple[int, ...]]]:
    return Counter((r.role, r.w_OI.shape) for r in iter_weights(folder, **more))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_is_counted_and_measured_as_it_is(kind: str, tmp_path: Path) -> None:
    model = _saved(kind, tmp_path)
    count = sum(p.numel() for p in model.parameters())
    (found,) = from_folder(tmp_path)
    assert (found.n_params, found.odd, found.broken) == (count, (), None)
    shapes = _shapes(tmp_path)
    assert shapes == _shapes(tmp_path, variant="random_init"), "a null has the same matrices"
    of_shape: Counter[tuple[int, ...]] = Counter()
    for (_, shape), number in shapes.items():
        of_shape[shape] += number
    assert {s: of_shape[s] for s in STACKS.get(kind, {})} == STACKS.get(kind, {})


@pytest.mark.parametrize("kind", ["falcon", "bert"])
def test_what_a_class_ties_by_default_is_measured_once(kind: str, tmp_path: Path) -> None:
    model = _saved(kind, tmp_path)
    shapes, (once,) = _shapes(tmp_path), from_folder(tmp_path)
    once_only = dict(model.named_parameters())
    twice = {
        name: p.detach().clone()
        for name, p in model.named_parameters(remove_duplicate=False)
        if name not in once_only
    }
    assert twice
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    save_file(load_file(file) | twice, file)
    told = json.loads(config.read_text())
    told.pop("tie_word_embeddings", None)
    config.write_text(json.dumps(told))
    (found,) = from_folder(tmp_path)
    assert found.n_params == once.n_params
    assert _shapes(tmp_path) == shapes
