"""Models by width and depth: configuration, initialisation, learning rate of every tensor.

Initialisation of the matrices (D width, L blocks), as is usual for the family:
    gpt_neox: N(0, 2 / (5 D)), output projections N(0, 4 / (L^2 D)): small_init (Nguyen & Salazar
        2019) and wang_init (Wang & Komatsuzaki 2021), as in Pythia.
    gpt2: N(0, 0.02^2), output projections divided by sqrt(2 L) (Radford et al. 2019, section 2.3).
    llama: N(0, 0.02^2), the default of transformers.
    granite (muP): hidden N(0, 1 / fan_in), embedding and unembedding N(0, 0.02^2) with logits
        divided by D / base_width (Yang et al. 2022, Table 8).
    attention_only: N(0, 1 / D), the gain of a linear map that keeps the norm.
A ladder's `init_scale` multiplies the standard deviation of the hidden matrices of any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from scaleinv_ray.attention_only import modeling
from scaleinv_ray.attention_only.configuration import MODEL_TYPE
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.ladder.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE

assert modeling, "importing the module makes the architecture known to AutoModelForCausalLM"

Role = Literal["hidden", "embedding", "unembedding", "vector"]

_STD = 0.02
_EMBEDDINGS = tuple(
    f"{name}.weight" for name in ("embed_in", "embed_tokens", "embed_positions", "wte", "wpe")
)
_EMBEDDING_MULTIPLIER = 12.0  # Granite 3.0's own value
# Learning rate ~ (width / base_width) ** power: Yang et al. 2022, Table 8. "vector" are gains and
# biases, which count as input weights.
_MUP_POWER: dict[str, dict[Role, int]] = {
    "adamw": {"hidden": -1, "embedding": 0, "unembedding": 0, "vector": 0},
    "sgd": {"hidden": 0, "embedding": 1, "unembedding": 1, "vector": 1},
}


def model_config(spec: TrainSpec, rung: Rung) -> PreTrainedConfig:
    """The transformers configuration of one rung.

    Args:
        spec: architecture, head_dim, length and, for muP, the base width.

    Returns:
        A configuration for the byte tokenizer, without dropout; `initializer_range` is the
        standard deviation of the hidden matrices.
    """
    build: dict[str, Callable[[TrainSpec, Rung], dict[str, object]]] = {
        "gpt_neox": _gpt_neox,
        "gpt2": _gpt2,
        "llama": _llama,
        "granite": _granite,
        "attention_only": _attention_only,
    }
    return AutoConfig.for_model(
        MODEL_TYPE if spec.architecture == "attention_only" else spec.architecture,
        vocab_size=VOCAB_SIZE,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
        **build[spec.architecture](spec, rung),
    )


def _gpt_neox(spec: TrainSpec, rung: Rung) -> dict[str, object]:
    return {
        "hidden_size": rung.width,
        "num_hidden_layers": rung.depth,
        "num_attention_heads": rung.width // spec.head_dim,
        "intermediate_size": 4 * rung.width,
        "max_position_embeddings": spec.length,
        "initializer_range": math.sqrt(2 / (5 * rung.width)),
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }


def _gpt2(spec: TrainSpec, rung: Rung) -> dict[str, object]:
    return {
        "n_embd": rung.width,
        "n_layer": rung.depth,
        "n_head": rung.width // spec.head_dim,
        "n_positions": spec.length,
        "initializer_range": _STD,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _llama(spec: TrainSpec, rung: Rung) -> dict[str, object]:
    return {
        "hidden_size": rung.width,
        "num_hidden_layers": rung.depth,
        "num_attention_heads": rung.width // spec.head_dim,
        "num_key_value_heads": rung.width // spec.head_dim,
        "intermediate_size": 8 * math.ceil(rung.width / 3),  # 8/3 D: three matrices as large as two
        "max_position_embeddings": spec.length,
        "initializer_range": _STD,
    }


def _granite(spec: TrainSpec, rung: Rung) -> dict[str, object]:
    """muP: attention ~ 1 / head_dim, logits ~ 1 / width, residual branches ~ 1 / sqrt(2 L)."""
    return _llama(spec, rung) | {
        "initializer_range": 1 / math.sqrt(rung.width),
        "embedding_multiplier": _EMBEDDING_MULTIPLIER,
        "attention_multiplier": 1 / spec.head_dim,
        "residual_multiplier": 1 / math.sqrt(2 * rung.depth),
        "logits_scaling": rung.width / (spec.base_width or rung.width),
    }


def _attention_only(spec: TrainSpec, rung: Rung) -> dict[str, object]:
    return {
        "hidden_size": rung.width,
        "num_hidden_layers": rung.depth,
        "num_attention_heads": rung.width // spec.head_dim,
        "max_position_embeddings": spec.length,
        "initializer_range": 1 / math.sqrt(rung.width),
    }


def build_model(spec: TrainSpec, rung: Rung) -> PreTrainedModel:
    """The model at step 0: a function of the rung's width, depth and seed.

    Returns:
        A float32 model with scaled-dot-product attention; torch's global generator is untouched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rung.seed)
        model = AutoModelForCausalLM.from_config(
            model_config(spec, rung), dtype=torch.float32, attn_implementation="sdpa"
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            factor = _init_factor(spec.architecture, name, parameter, rung)
            hidden = role_of(name, parameter) == "hidden"
            parameter.mul_(factor * spec.init_scale if hidden else factor)
    return model


def _init_factor(architecture: str, name: str, parameter: torch.nn.Parameter, rung: Rung) -> float:
    """What a tensor drawn with initializer_range has to be multiplied with."""
    if architecture == "gpt_neox" and name.endswith((
        "attention.dense.weight",
        "dense_4h_to_h.weight",
    )):
        return math.sqrt(10) / rung.depth  # 2 / (L sqrt(D)) over sqrt(2 / (5 D))
    if architecture == "granite":
        role = role_of(name, parameter)
        if role in {"embedding", "unembedding"}:
            return _STD * math.sqrt(rung.width)
        if name.endswith("down_proj.weight"):
            return math.sqrt(rung.width / parameter.shape[1])  # its fan_in is the inner width
    return 1.0


def role_of(name: str, parameter: torch.Tensor) -> Role:
    """What a tensor is to the parametrisation: embedding, unembedding, hidden matrix or vector."""
    if name.endswith(_EMBEDDINGS):
        return "embedding"
    if name.endswith(("embed_out.weight", "lm_head.weight")):
        return "unembedding"
    return "hidden" if parameter.ndim >= 2 else "vector"


def rate_factor(spec: TrainSpec, rung: Rung, role: Role) -> float:
    """Learning rate of a tensor over the scheduled one.

    Standard parametrisation: base_width / width for every tensor, because a step of Adam moves
    each entry of a matrix by lr whatever the width and its fan_in entries add up (Yang et al.
    2022, section 2); 1 without base_width. muP (granite): Table 8 of Yang et al. 2022.

    Args:
        spec: architecture, optimizer and base width.
    """
    if spec.base_width is None:
        return 1.0
    ratio = rung.width / spec.base_width
    if spec.architecture == "granite":
        return ratio ** _MUP_POWER[spec.optimizer.name][role]
    return 1 / ratio
