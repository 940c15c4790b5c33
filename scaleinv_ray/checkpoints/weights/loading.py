"""Loading a checkpoint folder: checked first, safetensors only, never from the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from scaleinv_ray.attention_only import modeling as attention_only
from scaleinv_ray.checkpoints.files.roles import has_masked_head, is_encoder
from scaleinv_ray.checkpoints.weights.matrices import read_config, stored_dtype
from scaleinv_ray.checkpoints.weights.whole import check_whole

assert attention_only, "importing the module makes the architecture known to AutoModelForCausalLM"

_EAGER_ALONE = {"gemma2"}
"""Whose scores have a soft cap, which fused attention lacks: transformers refuses another one."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is put into memory.

    Attributes:
        device_map: as in `from_pretrained`: None (CPU), a device, 'auto', 'balanced', or a dict.
        max_memory: device -> bytes, for 'auto' and 'balanced'.
        dtype: None keeps the stored dtype.
        attention: 'sdpa' or 'eager'; None for the first of them that the model has.
        trust_remote_code: run code out of the checkpoint folder.
    """

    device_map: str | dict[str, str | int] | None = None
    max_memory: Mapping[int | str, int | str] | None = None
    dtype: torch.dtype | None = None
    attention: Literal["sdpa", "eager"] | None = None
    trust_remote_code: bool = False

    def attention_for(self, model_type: str) -> str:
        """The attention with which a model of this type is built."""
        return self.attention or ("eager" if model_type in _EAGER_ALONE else "sdpa")


def _class_of(
    config: PreTrainedConfig, names: Iterable[str]
) -> tuple[type[AutoModel | AutoModelForCausalLM | AutoModelForMaskedLM], dict[str, bool]]:
    """The class to load, and its own options."""
    if not is_encoder(config.to_dict()):
        return AutoModelForCausalLM, {}
    if has_masked_head(names):
        return AutoModelForMaskedLM, {}
    return AutoModel, {"add_pooling_layer": False}  # a pooler reads the last layer: no site of ours


def load_model(folder: Path, options: LoadOptions | None = None) -> PreTrainedModel:
    """Loads a language model in eval mode: a causal one, or an encoder with or without its head.

    transformers builds on the meta device and fills from the files, so the peak is one model.

    Args:
        options: device, dtype and attention.

    Raises:
        ValueError: where `check_folder` finds a fault, or where the files lack weights of the
            model or hold them in another shape (transformers would draw them at random).
    """
    names = check_whole(folder)
    options = options or LoadOptions()
    config = read_config(folder, trusted=options.trust_remote_code)
    of_class, more = _class_of(config, names)
    loaded: Any = of_class.from_pretrained(
        folder,
        config=config,
        **more,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        dtype=options.dtype or stored_dtype(folder),
        device_map=options.device_map,
        max_memory=dict(options.max_memory) if options.max_memory else None,
        attn_implementation=options.attention_for(config.model_type),
        trust_remote_code=options.trust_remote_code,
    )
    model, info = loaded  # with output_loading_info
    for fault in ("missing_keys", "mismatched_keys"):
        if info[fault]:
            raise ValueError(f"{folder}: {fault.replace('_', ' ')} {sorted(info[fault])}")
    return model.eval()
