"""Attention patterns of a few sequences.

Shape suffixes: S sequences, T tokens, H heads.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import architecture_of
from scaleinv_ray.capture.makers import PassRequest, check_shape, labels_of, passes
from scaleinv_ray.capture.sites import check_tokens, to_device, to_numpy
from scaleinv_ray.records import Attention, Protocol


@contextmanager
def eager_attention(model: PreTrainedModel) -> Generator[None]:
    """Switches a model to eager attention, the only one that returns patterns, and back."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def patterns(model: PreTrainedModel, tokens_ST: np.ndarray) -> dict[int, np.ndarray]:
    """Attention patterns of all layers, whatever the attention implementation.

    Args:
        model: in eval mode.

    Returns:
        Layer -> a[head, sequence, query, key], rows sum to 1.

    Raises:
        ValueError: for patterns that are not finite.
    """
    architecture = architecture_of(model.config)
    a_HSTT: dict[int, np.ndarray] = {}

    def keep(layer: int, _module: Any, _args: Any, output: Any) -> None:
        a_HSTT[layer] = to_numpy(output[1].transpose(0, 1))

    handles = [
        block.get_submodule(architecture.attention).register_forward_hook(partial(keep, layer))
        for layer, block in enumerate(architecture.layers(model))
    ]
    try:
        with torch.inference_mode(), eager_attention(model):
            model.base_model(input_ids=to_device(tokens_ST, model), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if bad := [layer for layer, a in a_HSTT.items() if not np.isfinite(a).all()]:
        raise ValueError(f"attention patterns: got values that are not finite in layers {bad}")
    return a_HSTT


def attention_records(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: Protocol,
    *,
    labels: Mapping[str, Any] | None = None,
    left_out: int = 0,
) -> list[Attention]:
    """Attention patterns of the first `protocol.attention_sequences` sequences.

    Args:
        model: a causal language model in eval mode, with any attention implementation.
        tokens_ST: token ids, (protocol.sequences, left_out + protocol.length).
        protocol: gives the number of sequences.
        labels: unit, probe and other fields of Record.
        left_out: as of `PassRequest`; patterns keep these tokens, without which no row sums to 1.

    Returns:
        One record a layer and head, a_STT[s, query, key]; rows sum to 1.

    Raises:
        ValueError: for bad tokens (see `check_tokens`), too few sequences, or patterns that are not
            finite.
    """
    check_tokens(model, tokens_ST)
    architecture = architecture_of(model.config)
    check_shape(tokens_ST, protocol, left_out, causal=architecture.causal)
    wanted = protocol.attention_sequences
    if wanted > len(tokens_ST):
        raise ValueError(f"attention_sequences: got {wanted}, allowed <= {len(tokens_ST)}")
    a_HSTT = patterns(model, tokens_ST[:wanted])
    shared = labels_of(model, protocol, labels or {})
    return [
        Attention(a_STT=np.ascontiguousarray(a), site="attn_pattern", layer=layer, head=h, **shared)
        for layer, heads in a_HSTT.items()
        for h, a in enumerate(heads)
    ]


@passes("attention")
def _attention(asked: PassRequest) -> list[Attention]:
    return attention_records(
        asked.model, asked.tokens_ST, asked.protocol, labels=asked.labels, left_out=asked.left_out
    )
