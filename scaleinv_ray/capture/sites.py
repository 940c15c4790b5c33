"""Plain forward hooks on the sites of a model, and the checks on what goes in.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture

SITES: tuple[str, ...] = ("resid_pre", "resid_post", "mlp_hidden")


class Visit(Protocol):
    """Called with every tensor that passes a site."""

    def __call__(self, site: str, layer: int, x: torch.Tensor) -> None:
        """Reads x, [B, T, D] or flattened to [B * T, D]."""


def check_tokens(model: PreTrainedModel, tokens_ST: np.ndarray) -> None:
    """Checks model and tokens before a pass.

    Args:
        tokens_ST: token ids [sequences, length].

    Raises:
        ValueError: for a model in train mode; an empty or ragged batch, or one that is no integer
            array; a sequence longer than the model's positions; a token id outside the vocabulary.
    """
    if model.training:
        raise ValueError("model: got train mode, allowed eval mode (dropout changes every number)")
    if not isinstance(tokens_ST, np.ndarray) or tokens_ST.dtype == object:
        raise ValueError("tokens_ST: got ragged rows or no array, allowed an array [S, T]")
    if tokens_ST.ndim != 2 or not np.issubdtype(tokens_ST.dtype, np.integer):
        got = f"{tokens_ST.ndim}-d {tokens_ST.dtype}"
        raise ValueError(f"tokens_ST: got {got}, allowed an integer array [S, T]")
    if tokens_ST.size == 0:
        raise ValueError(f"tokens_ST: got an empty batch {tokens_ST.shape}, allowed S, T >= 1")
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and tokens_ST.shape[1] > positions:
        raise ValueError(f"tokens_ST: got length {tokens_ST.shape[1]}, allowed <= {positions}")
    vocabulary = model.config.vocab_size
    if tokens_ST.min() < 0 or tokens_ST.max() >= vocabulary:
        got = f"{tokens_ST.min()}..{tokens_ST.max()}"
        raise ValueError(f"tokens_ST: got token ids {got}, allowed 0..{vocabulary - 1}")


def check_whole(model: PreTrainedModel) -> None:
    """Checks that gradients can be had: offloaded or divided weights leave out some of them.

    Raises:
        ValueError: for weights on several devices, offloaded, or not loaded.
    """
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    if "disk" in places or len(places) > 1:
        raise ValueError(f"model: got weights on {sorted(places)}, allowed one device")
    for name, p in model.named_parameters():
        if p.is_meta:
            raise ValueError(f"model.{name}: got a meta tensor, allowed weights in memory")


def to_device(tokens_ST: np.ndarray, model: PreTrainedModel) -> torch.Tensor:
    """Token ids on the device of the model's embedding."""
    weight = next(model.get_input_embeddings().parameters())
    # offloaded: Accelerate moves the input itself
    device = torch.device("cpu") if weight.is_meta else weight.device
    return torch.from_numpy(np.ascontiguousarray(tokens_ST)).long().to(device)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """A copy on the CPU: float64 stays, every other dtype becomes float32."""
    x = x.detach()
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return x.to("cpu", dtype, copy=True).numpy()  # a view would keep the whole batch alive


def _on_output(visit: Visit, layer: int, _module: Any, _args: Any, output: Any) -> None:
    visit("resid_post", layer, output[0] if isinstance(output, tuple) else output)


def _on_input(visit: Visit, site: str, layer: int, _module: Any, args: Any, kwargs: Any) -> None:
    visit(site, layer, args[0] if args else kwargs["hidden_states"])


@contextmanager
def hooked(
    model: PreTrainedModel, architecture: Architecture, sites: frozenset[str], visit: Visit
) -> Generator[None]:
    """Calls `visit` for every tensor at the sites while the context is open.

    resid_pre is the input of block 0, resid_post the output of each block (of the last one before
    the final norm, unlike `hidden_states[-1]`), mlp_hidden the input of the down projection.

    Args:
        sites: names out of `SITES`.
        visit: reads a tensor; what it returns is ignored.

    Yields:
        None; the hooks are removed afterwards, after an exception too.

    Raises:
        ValueError: for an unknown site, and for mlp_hidden of an architecture without an MLP.
    """
    if unknown := sites.difference(SITES):
        raise ValueError(f"sites: got {sorted(unknown)}, allowed {SITES}")
    if "mlp_hidden" in sites and architecture.down_projection is None:
        allowed = tuple(s for s in SITES if s != "mlp_hidden")
        raise ValueError(
            f"sites: got 'mlp_hidden', allowed {allowed}: {architecture.model_type} has no MLP"
        )
    blocks = architecture.layers(model)
    handles: list[Any] = []

    def before(module: nn.Module, site: str, layer: int) -> None:
        hook: Callable[..., None] = partial(_on_input, visit, site, layer)
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        if "resid_pre" in sites:
            before(blocks[0], "resid_pre", 0)
        for layer, block in enumerate(blocks):
            if "resid_post" in sites:
                handles.append(block.register_forward_hook(partial(_on_output, visit, layer)))
            if "mlp_hidden" in sites and architecture.down_projection is not None:
                before(block.get_submodule(architecture.down_projection), "mlp_hidden", layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
