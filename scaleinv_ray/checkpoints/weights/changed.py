"""Nulls whose weights are the trained ones, changed tensor by tensor, however they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from scaleinv_ray.checkpoints.files.roles import canonical_name
from scaleinv_ray.records import Variant

Change = Callable[[torch.Tensor, str], torch.Tensor]
"""Of a tensor and its stored or live name."""


def shuffled(tensor: torch.Tensor, name: str, *, model_type: str, seed: int) -> torch.Tensor:
    """A tensor permuted within itself, seeded by its name.

    Args:
        tensor: any shape and dtype, in the orientation in which it is stored.
        name: stored or live name; both give the same permutation.
        model_type: `config.model_type`.

    Returns:
        A new tensor with the same entries; the permutation depends on name, seed and the number of
        entries, not on the dtype.
    """
    key = f"{seed}:{canonical_name(name, model_type)}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16]))
    bits = tensor.detach().cpu().contiguous().view(-1)
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.element_size()]
    moved = bits.clone().view(integers)
    rng.shuffle(moved.numpy())
    return moved.view(tensor.dtype).view(tensor.shape)


CHANGES: Mapping[Variant, Callable[..., torch.Tensor]] = {"shuffled_weights": shuffled}
"""Null -> what it does to a tensor of two or more dimensions; norms and biases are kept."""


def change_of(variant: Variant, *, model_type: str, seed: int) -> Change | None:
    """What a variant does to the tensors of a model; None where it leaves them."""
    change = CHANGES.get(variant)
    return None if change is None else partial(change, model_type=model_type, seed=seed)
