"""Kind of capture -> what makes its records; filled by importing `capture.by_kind`.

Kinds of one pass are made by collectors, which look at the tensors that pass the sites of a model;
the others by a pass of their own.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.checkpoints.weights.matrices import dtype_name
from scaleinv_ray.kinds import KINDS, Settings
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.records import Protocol, Record

FINAL = "final"
"""Site of what the head reads: the output of the body, after its final norm."""
Allocate = Callable[[tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class PassRequest:
    """What is asked of a model at one probe, whatever the kind.

    Attributes:
        model: a language model in eval mode.
        tokens_ST: token ids, (protocol.sequences, left_out + protocol.length), no padding; of an
            encoder, what stands behind the text may follow.
        protocol: what makes captures comparable.
        left_out: tokens at the beginning of every sequence that the model reads and nobody looks
            at; positions count from the one after them.
        labels: fields of Record that are given.
        seed: of what is drawn; the same for every model.
        settings: of the kind, None where it has none.
        observed: tokens of the other probes that settings name.
        pairs: the probe's clean and corrupted sequences, of a kind that reads it so.
        mask_id: the token that stands for a hidden one, None where the model has none.
        batch_size: sequences in a forward pass.
        allocate: gives the arrays in which large sums are gathered, such as mapped files.
    """

    model: PreTrainedModel
    tokens_ST: np.ndarray
    protocol: Protocol
    labels: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    settings: Settings | None = None
    observed: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: Pairs | None = None
    mask_id: int | None = None
    batch_size: int = 32
    allocate: Allocate = np.empty
    left_out: int = 0

    @property
    def text_ST(self) -> np.ndarray:
        """The tokens that are looked at, (protocol.sequences, protocol.length)."""
        return self.tokens_ST[:, self.text]

    @property
    def text(self) -> slice:
        """The positions of these tokens in a sequence."""
        return slice(self.left_out, self.left_out + self.protocol.length)

    @cached_property
    def architecture(self) -> Architecture:
        """Of the model."""
        return architecture_of(self.model.config)


class Collector(typing.Protocol):
    """What keeps something of the tensors that pass its sites."""

    sites: frozenset[str]

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Reads a batch whose first sequence has the number `first`, at any site of the pass."""

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough."""

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """Kind -> records, after the pass."""


class Collecting(NamedTuple):
    """How kinds of one pass are made.

    Attributes:
        new: a collector for some kinds that it makes.
        by_block: a record follows from one block, and is as large as its weights: where a model is
            in memory block by block, so are these.
    """

    new: Callable[[PassRequest, frozenset[str]], Collector]
    by_block: bool = False


COLLECTORS: dict[str, Collecting] = {}
PASSES: dict[str, Callable[[PassRequest], Iterable[Record]]] = {}
NewT = TypeVar("NewT", bound=Callable[[PassRequest, frozenset[str]], Collector])
PassT = TypeVar("PassT", bound=Callable[[PassRequest], Iterable[Record]])


def collects(*kinds: str, by_block: bool = False) -> Callable[[NewT], NewT]:
    """Registers what makes the collector of some kinds, one for all of them.

    Args:
        kinds: keys of `kinds.KINDS`, all of one pass.
        by_block: as of `Collecting`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        TypeError: for a kind that is unknown or has a pass of its own.
    """
    _check_registered(kinds, one_pass=True)

    def register(new: NewT) -> NewT:
        COLLECTORS.update(dict.fromkeys(kinds, Collecting(new, by_block)))
        return new

    return register


def passes(*kinds: str) -> Callable[[PassT], PassT]:
    """Registers what makes the records of a kind in a pass of its own.

    Args:
        kinds: keys of `kinds.KINDS`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        TypeError: for a kind that is unknown or comes out of the shared pass.
    """
    _check_registered(kinds, one_pass=False)

    def register(records: PassT) -> PassT:
        PASSES.update(dict.fromkeys(kinds, records))
        return records

    return register


def _check_registered(kinds: Iterable[str], *, one_pass: bool) -> None:
    for name in kinds:
        if name not in KINDS or KINDS[name].one_pass is not one_pass:
            allowed = sorted(n for n, kind in KINDS.items() if kind.one_pass is one_pass)
            raise TypeError(f"kind: got {name!r} with one_pass={one_pass}, allowed {allowed}")


def makings_of(kinds: Iterable[str]) -> dict[Collecting, frozenset[str]]:
    """Ways of making -> the kinds of one pass that are made so: clouds with depth stacks."""
    together: dict[Collecting, set[str]] = {}
    for kind in sorted(kinds):
        together.setdefault(COLLECTORS[kind], set()).add(kind)
    return {making: frozenset(own) for making, own in together.items()}


def check_shape(
    tokens_ST: np.ndarray, protocol: Protocol, left_out: int = 0, *, causal: bool = True
) -> None:
    """Checks that a probe has the shape the protocol names.

    Args:
        left_out: as of `PassRequest`.
        causal: nothing stands behind the text, which no token of it could see.

    Raises:
        ValueError: otherwise (two captures under one protocol would not be comparable).
    """
    allowed = (protocol.sequences, left_out + protocol.length)
    beyond = 0 if causal else max(0, tokens_ST.shape[-1] - allowed[1])
    if tokens_ST.shape != (allowed[0], allowed[1] + beyond):
        raise ValueError(
            f"tokens_ST: got shape {tokens_ST.shape}, allowed {allowed} (protocol's sequences, "
            "length)"
        )


def labels_of(
    model: PreTrainedModel, protocol: Protocol, labels: Mapping[str, Any]
) -> dict[str, Any]:
    """The labels given, with those that model and protocol know."""
    known = {
        "num_layers": model.config.num_hidden_layers,
        "dtype": dtype_name(model.dtype),
        "protocol": protocol.digest(),
    }
    return known | dict(labels)
