"""Null variants of a live model and of a probe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import accelerate
import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.checkpoints.weights.changed import Change, change_of
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.matrices import (
    build_from_config,
    read_config,
    stored_dtype,
)
from scaleinv_ray.records import VARIANTS, Variant

InitSource = Literal["step0", "from_config"]


class Materialised(NamedTuple):
    """A model, and for random_init where its weights came from (None for other variants)."""

    model: PreTrainedModel
    init: InitSource | None


def is_offloaded(model: PreTrainedModel) -> bool:
    """Whether Accelerate keeps some weights outside the model (on the meta device)."""
    return any(p.is_meta for p in model.parameters())


def shuffle_tokens(
    tokens_ST: np.ndarray, seed: int, *, keep: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Permutes the tokens within each sequence, every sequence by its own permutation.

    Args:
        keep: counts of the tokens at the start and at the end of every sequence that stay there.

    Returns:
        A new array of the same shape and dtype.

    >>> sorted(shuffle_tokens(np.array([[3, 1, 2]]), seed=0)[0].tolist())
    [1, 2, 3]
    """
    start, stop = keep[0], tokens_ST.shape[1] - keep[1]
    mixed_ST = np.random.default_rng(seed).permuted(tokens_ST[:, start:stop], axis=1)
    return np.concatenate([tokens_ST[:, :start], mixed_ST, tokens_ST[:, stop:]], axis=1)


def change_weights_(model: PreTrainedModel, change: Change) -> None:
    """Changes every parameter of two or more dimensions in place; a tied embedding once.

    The tensors are those of `weights.iter_weights` of the same variant.

    Args:
        model: a model that is wholly in memory.

    Raises:
        ValueError: for an offloaded model, where a change in place is lost silently.
    """
    if is_offloaded(model):
        raise ValueError("model: got an offloaded model, its weights cannot be changed in place")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.copy_(change(parameter, name))


def _from_config(folder: Path, seed: int, options: LoadOptions) -> PreTrainedModel:
    trusted = options.trust_remote_code
    config = read_config(folder, trusted=trusted)
    config._attn_implementation = options.attention_for(config.model_type)
    dtype = options.dtype or stored_dtype(folder)
    model = build_from_config(config, seed, dtype=dtype, trusted=trusted)
    device_map = options.device_map
    if device_map is None:
        return model
    if device_map in ("auto", "balanced"):
        device_map = accelerate.infer_auto_device_map(
            model,
            max_memory=dict(options.max_memory) if options.max_memory else None,
            no_split_module_classes=model._no_split_modules,
        )
    elif isinstance(device_map, str):
        device_map = {"": device_map}
    return accelerate.dispatch_model(model, device_map=device_map)


def materialise(
    folder: Path,
    variant: Variant,
    seed: int,
    *,
    init_folder: Path | None = None,
    options: LoadOptions | None = None,
) -> Materialised:
    """Loads the model of a variant.

    Args:
        variant: trained and shuffled_tokens load it as it is; random_init loads `init_folder`, or
            initialises from the config; one of `CHANGES` is changed in place.
        seed: of random_init from the config, and of what is changed.
        init_folder: the run's own step 0.
        options: device, dtype, attention.

    Returns:
        The model, and the source of a random_init.

    Raises:
        ValueError: for an unknown variant, or a folder that is not whole.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: got {variant!r}, allowed {VARIANTS}")
    options = options or LoadOptions()
    if variant == "random_init":
        if init_folder is not None:
            return Materialised(load_model(init_folder, options), "step0")
        return Materialised(_from_config(folder, seed, options), "from_config")
    model = load_model(folder, options)
    if change := change_of(variant, model_type=model.config.model_type, seed=seed):
        change_weights_(model, change)
    return Materialised(model, None)
