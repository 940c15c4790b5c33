"""Tiny models of every architecture, and tokens for them: of the tests and of `gpu-check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers as tf

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


def write_tiny(name: str, folder: Path) -> Path:
    """Writes one of `CONFIGS` to a folder, with biases, gains and attention that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32)
    # default initialisation has no biases, unit gains and nearly uniform attention
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def tiny_tokens() -> np.ndarray:
    """Token ids [sequences, length] of `PROTOCOL`."""
    rng = np.random.default_rng(1)
    return rng.integers(VOCABULARY, size=(PROTOCOL.sequences, PROTOCOL.length))
