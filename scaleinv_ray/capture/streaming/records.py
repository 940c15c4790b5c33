"""Records of a checkpoint that is larger than memory: the same as of a resident one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from scaleinv_ray.capture.forward import (
    Pass,
    check_request,
    collectors_of,
    labels_of,
    records_of,
)
from scaleinv_ray.capture.losses import LossCollector, next_token_losses
from scaleinv_ray.capture.moments import MomentCollector
from scaleinv_ray.capture.sites import watch
from scaleinv_ray.capture.streaming.layers import States, final_states, stream
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.records import Protocol, Record

Allocate = Callable[[tuple[int, ...]], np.ndarray]


class _BlockMoments:
    """Moments of the blocks at work: eight second moments of a wide model are as large as it."""

    sites = MomentCollector.sites

    def __init__(
        self,
        new: Callable[[], MomentCollector],
        record: Callable[[MomentCollector], list[Record]],
        keep: Callable[[Record], Record],
    ) -> None:
        self._record, self._keep = record, keep
        self._open: dict[int, MomentCollector] = defaultdict(new)
        self._found: list[Record] = []

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch of one site."""
        if site in self.sites:
            self._open[layer].visit(site, layer, x_BTD, first)

    def end_block(self, layer: int) -> None:
        """Makes the record of a block and frees its sums."""
        if layer not in self._open:
            raise ValueError(f"moments: got too few sequences, none, at layer {layer}")
        self._found += [self._keep(record) for record in self._record(self._open.pop(layer))]

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """One record a layer, as kept."""
        del labels, removes_mean  # the records have been made with them
        return {"moments": self._found}


class PartialPass(Pass):
    """What blocks that are in memory for a while leave behind: told when a block is done."""

    def __init__(
        self,
        streamed: StreamedModel,
        shape: tuple[int, ...],
        protocol: Protocol,
        *,
        kinds: frozenset[str],
        labels: Mapping[str, Any] | None = None,
        seed_units: int = 0,
        keep: Callable[[Record], Record] = lambda record: record,
        allocate: Allocate = np.empty,
    ) -> None:
        """The arguments are those of `streamed_records`, but for the shape of the tokens."""
        self._streamed, architecture = streamed, streamed.architecture
        self._labels = labels_of(streamed.model, protocol, labels or {})
        wanted: list[Any] = [*collectors_of(kinds - {"moments"}, shape, protocol, seed_units)]
        self._moments: _BlockMoments | None = None
        if "moments" in kinds:
            num, length = shape
            mean = architecture.removes_mean
            self._moments = _BlockMoments(
                lambda: MomentCollector(
                    protocol, num_sequences=num, length=length, allocate=allocate
                ),
                lambda sums: sums.records(self._labels, removes_mean=mean)["moments"],
                keep,
            )
            wanted.append(self._moments)
        super().__init__(wanted, (0, 0))
        self.losses = LossCollector(num_sequences=shape[0]) if "token_losses" in kinds else None

    def watched(self) -> AbstractContextManager[None]:
        """Hooks on the blocks, while it is open."""
        sites = frozenset[str]().union(*(c.sites for c in self._collectors))
        return watch(self._streamed.model, self._streamed.architecture, sites, self.visit)

    def end_block(self, layer: int) -> None:
        """Called after the last batch of a block."""
        if self._moments:
            self._moments.end_block(layer)

    def lose(self, hidden_BTD: torch.Tensor, tokens_BT: torch.Tensor) -> None:
        """Adds the next-token losses of a batch that has gone through all blocks and the norm."""
        model, architecture = self._streamed.model, self._streamed.architecture
        if self.losses:
            self.losses.add(next_token_losses(model, architecture, hidden_BTD, tokens_BT))

    def records(self) -> dict[str, list[Record]]:
        """Kind -> records of what has passed."""
        return records_of(self._collectors, self.losses, self._labels, self._streamed.architecture)


def streamed_records(
    streamed: StreamedModel,
    tokens_ST: np.ndarray,
    protocol: Protocol,
    states: States,
    *,
    kinds: frozenset[str],
    batch_size: int,
    labels: Mapping[str, Any] | None = None,
    seed_units: int = 0,
    keep: Callable[[Record], Record] = lambda record: record,
    allocate: Allocate = np.empty,
) -> dict[str, list[Record]]:
    """What `forward.forward_records` gives, bit for bit, with one block in memory at a time.

    A pass that was interrupted goes on at the block where it stopped, but for `stream`: hidden
    units of an MLP are not among the states, so a stream begins again.

    Args:
        streamed: the model.
        tokens_ST: token ids, (protocol.sequences, protocol.length), no padding.
        protocol: what makes captures comparable.
        states: holds the hidden states between the blocks; for a pass to be resumed it keeps all
            levels.
        kinds: out of `forward.FORWARD_KINDS`.
        batch_size: sequences in a batch.
        labels: unit, probe and other fields of Record.
        seed_units: seed of the sampled units.
        keep: takes the moments of a block when it is done and gives what stands for them in the
            result, such as a copy on disk, mapped; so that one block's are in memory at a time.
        allocate: gives the arrays in which these moments are gathered, such as mapped files.

    Returns:
        Kind -> records, for exactly the kinds asked for.

    Raises:
        ValueError: as `forward_records`; for a stream with states of an earlier pass.
    """
    model, architecture = streamed.model, streamed.architecture
    check_request(model, tokens_ST, protocol, kinds=kinds, batch_size=batch_size)
    if "stream" in kinds and any(states.complete(n) for n in range(architecture.num_layers + 1)):
        raise ValueError(
            "states: got levels of an earlier pass, a stream needs to begin at level 0"
        )
    passing = PartialPass(
        streamed, tokens_ST.shape, protocol,
        kinds=kinds, labels=labels, seed_units=seed_units, keep=keep, allocate=allocate,
    )  # fmt: skip
    with passing.watched():
        stream(streamed, tokens_ST, states, batch_size=batch_size, passing=passing)
    passing.check_finite()
    if passing.losses:
        for hidden_BTD, tokens_BT in final_states(
            streamed, tokens_ST, states, batch_size=batch_size
        ):
            passing.lose(hidden_BTD, tokens_BT)
    return passing.records()
