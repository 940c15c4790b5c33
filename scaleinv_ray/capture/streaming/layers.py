"""Layer-major streaming: a checkpoint larger than memory, one block at a time.

All batches of a probe go through block 0, then through block 1, and so on: every weight is read
once, and one block is in memory at a time. The hidden states between the blocks go to a store, so
that a pass that was interrupted goes on at the block where it stopped.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch

from scaleinv_ray.capture.streaming.partial import StreamedModel


class States(typing.Protocol):
    """Where hidden states live between blocks: level 0 before block 0, level l + 1 after block l.

    An array is [S, T, D] in a dtype of numpy (bfloat16 as uint16).
    """

    def complete(self, level: int) -> bool:
        """Whether a level was written to its end."""

    def write(self, level: int) -> AbstractContextManager[Callable[[np.ndarray], None]]:
        """Opens a level; what it gives takes the batches in order; complete when it is closed."""

    def read(self, level: int, first: int, count: int) -> np.ndarray:
        """Some sequences of a complete level."""


class Passing(typing.Protocol):
    """What looks at a pass while it runs."""

    def start_batch(self, first: int, batch_shape: tuple[int, int]) -> None:
        """Before a batch, whose first sequence has the number `first`, goes through a block."""

    def visit(self, site: str, layer: int, x: torch.Tensor) -> None:
        """A tensor at a site."""

    def end_block(self, layer: int) -> None:
        """After all batches have gone through a block."""


def batches(num_sequences: int, batch_size: int) -> list[tuple[int, int]]:
    """Number of the first sequence, and count, of every batch; the last one may be smaller."""
    return [(i, min(batch_size, num_sequences - i)) for i in range(0, num_sequences, batch_size)]


def stream(
    streamed: StreamedModel,
    tokens_ST: np.ndarray,
    states: States,
    *,
    batch_size: int,
    passing: Passing | None = None,
) -> None:
    """Pushes a probe through a model, block by block, from the highest complete level on.

    Args:
        tokens_ST: token ids, no padding.
        states: takes the hidden states; levels that are complete are not computed again.
        passing: told of every batch before it goes through a block; hooks on the blocks see the
            rest. Of a level that was complete before, its states are handed to it instead.
    """
    num_layers, dtype = streamed.architecture.num_layers, streamed.model.dtype
    reached = max((n for n in range(num_layers + 1) if states.complete(n)), default=-1)
    parts = batches(len(tokens_ST), batch_size)
    if reached < 0:
        with streamed.beginning() as embed, states.write(0) as write:
            for first, count in parts:
                write(as_array(embed(tokens_ST[first : first + count])))
    if passing is not None:
        _replay(states, reached, parts, passing, dtype)
    for layer in range(max(reached, 0), num_layers):
        with streamed.block(layer) as through, states.write(layer + 1) as write:
            for first, count in parts:
                x_BTD = as_tensor(states.read(layer, first, count), dtype)
                if passing is not None:
                    passing.start_batch(first, (count, tokens_ST.shape[1]))
                write(as_array(through(x_BTD)))
        if passing is not None:
            passing.end_block(layer)


def _replay(
    states: States,
    reached: int,
    parts: list[tuple[int, int]],
    passing: Passing,
    dtype: torch.dtype,
) -> None:
    """Hands over the levels that an earlier pass has left (hooks see level 0 if block 0 is to run).

    That is the case where no level but that one was reached.
    """
    for level in range(reached + 1 if reached > 0 else 0):
        site, layer = ("resid_pre", 0) if level == 0 else ("resid_post", level - 1)
        for first, count in parts:
            x_BTD = as_tensor(states.read(level, first, count), dtype)
            passing.start_batch(first, (count, x_BTD.shape[1]))
            passing.visit(site, layer, x_BTD)
        if level > 0:
            passing.end_block(layer)


def final_states(
    streamed: StreamedModel, tokens_ST: np.ndarray, states: States, *, batch_size: int
) -> Iterator[torch.Tensor]:
    """What the head reads: the last level after the body's final norm, batch by batch.

    Args:
        streamed: the model; its final norm and head are in memory while this is iterated over.
        states: with the last level complete.

    Yields:
        hidden_BTD.
    """
    last = streamed.architecture.num_layers
    with streamed.ending() as finish:
        for first, count in batches(len(tokens_ST), batch_size):
            x_BTD = as_tensor(states.read(last, first, count), streamed.model.dtype)
            yield finish(x_BTD)


def as_array(x: torch.Tensor) -> np.ndarray:
    """A tensor as numpy has it; bfloat16 as uint16."""
    x = x.detach().cpu().contiguous()
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def as_tensor(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of `as_array`, a copy."""
    tensor = torch.from_numpy(np.array(x))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor
