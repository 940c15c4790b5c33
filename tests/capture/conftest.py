"""Tiny models of every architecture, saved as safetensors once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.records import Protocol

VOCABULARY, POSITIONS, WIDTH, LAYERS = 50, 32, 32, 2
_SHARED = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_GROUPED = _SHARED | {"num_key_value_heads": 2}


def _opt(**more: object) -> tf.PretrainedConfig:
    shared = {k: v for k, v in _SHARED.items() if k != "intermediate_size"}
    return tf.OPTConfig(**shared, ffn_dim=48, **{"word_embed_proj_dim": WIDTH, **more})


CONFIGS: dict[str, Callable[[], tf.PretrainedConfig]] = {
    "gpt2": lambda: tf.GPT2Config(
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        n_inner=48,
        n_positions=POSITIONS,
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "neox_parallel": lambda: tf.GPTNeoXConfig(**_SHARED, use_parallel_residual=True),
    "neox_sequential": lambda: tf.GPTNeoXConfig(**_SHARED, use_parallel_residual=False),
    "llama": lambda: tf.LlamaConfig(**_GROUPED),
    "granite": lambda: tf.GraniteConfig(
        **_GROUPED, residual_multiplier=0.5, logits_scaling=3.0, embedding_multiplier=2.0
    ),
    "mistral": lambda: tf.MistralConfig(**_GROUPED, sliding_window=6),
    "qwen2": lambda: tf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: tf.Qwen3Config(**_GROUPED, head_dim=16),
    "olmo2": lambda: tf.Olmo2Config(**_GROUPED),
    "gemma2": lambda: tf.Gemma2Config(
        **_GROUPED, head_dim=16, sliding_window=6, final_logit_softcapping=2.0
    ),
    "opt": _opt,
    "opt_post_norm": lambda: _opt(word_embed_proj_dim=16, do_layer_norm_before=False),
    "bert": lambda: tf.BertConfig(**_SHARED),
}
CAUSAL = tuple(name for name in CONFIGS if name != "bert")
PROTOCOL = Protocol(
    sequences=160,
    length=12,
    position=8,
    tokens_per_dim=40,
    blocks=4,
    stream_units=32,
    jacobian_positions=3,
    attention_sequences=3,
    vocab_rows=7,
)


def attention_for(name: str) -> str:
    return "eager" if name == "gemma2" else "sdpa"  # Gemma 2 has no other


def _perturb(model: torch.nn.Module) -> None:
    """Default initialisation has no biases, unit gains and nearly uniform attention."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of an architecture -> folder of its tiny model."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = tf.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32)
            _perturb(model)
            model.save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def model(folder: Callable[[str], Path]) -> Callable[[str], tf.PreTrainedModel]:
    """Name of an architecture -> its tiny model; shared, so not to be changed."""
    loaded: dict[str, tf.PreTrainedModel] = {}

    def load(name: str) -> tf.PreTrainedModel:
        if name not in loaded:
            loaded[name] = load_model(folder(name), LoadOptions(attention=attention_for(name)))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def tokens_ST() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(VOCABULARY, size=(PROTOCOL.sequences, PROTOCOL.length))
