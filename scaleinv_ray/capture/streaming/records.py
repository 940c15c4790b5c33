"""Records of a checkpoint that is larger than memory: the same as of a resident one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch

from scaleinv_ray.capture.forward import Pass, check_request, records_of
from scaleinv_ray.capture.makers import Allocate, Collector, PassRequest, makings_of
from scaleinv_ray.capture.sites import hooked
from scaleinv_ray.capture.streaming.layers import States, final_states, stream
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.records import Protocol, Record

Keep = Callable[[str, Record], Record]


def as_it_is(kind: str, record: Record) -> Record:
    """A record that stays in memory."""
    del kind
    return record


class _ByBlock:
    """A collector for every block at work: a block's records are made when it is done."""

    def __init__(
        self,
        kinds: frozenset[str],
        new: Callable[[], Collector],
        records: Callable[[Collector], dict[str, list[Record]]],
        keep: Keep,
    ) -> None:
        self._kinds, self._records, self._keep = kinds, records, keep
        self._open: dict[int, Collector] = defaultdict(new)
        self._found: dict[str, list[Record]] = defaultdict(list)
        self.sites = new().sites

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch of one site."""
        if site in self.sites:
            self._open[layer].visit(site, layer, x_BTD, first)

    def end_block(self, layer: int) -> None:
        """Makes the records of a block and frees what they were made of."""
        if layer not in self._open:
            kinds = ", ".join(sorted(self._kinds))
            raise ValueError(f"{kinds}: got too few sequences, none, at layer {layer}")
        for kind, found in self._records(self._open.pop(layer)).items():
            self._found[kind] += [self._keep(kind, record) for record in found]

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """Kind -> records of all blocks, as kept."""
        del labels, removes_mean  # the records have been made with them
        return dict(self._found)


class PartialPass(Pass):
    """What blocks that are in memory for a while leave behind: told when a block is done."""

    def __init__(self, asked: PassRequest, kinds: frozenset[str], keep: Keep = as_it_is) -> None:
        """Of a model of which blocks are in memory; keep: as of `streamed_records`."""
        self._asked = asked
        wanted: list[Any] = []
        self._by_block: list[_ByBlock] = []
        for making, own in makings_of(kinds).items():
            new = partial(making.new, asked, own)
            if making.by_block:
                self._by_block.append(_ByBlock(own, new, lambda of: records_of(asked, [of]), keep))
            else:
                wanted.append(new())
        super().__init__(wanted + self._by_block, (0, 0), asked.text)

    def watched(self) -> AbstractContextManager[None]:
        """Hooks on the blocks, while it is open."""
        return hooked(self._asked.model, self._asked.architecture, self.hooked, self.visit)

    def end_block(self, layer: int) -> None:
        """Called after the last batch of a block."""
        for collector in self._by_block:
            collector.end_block(layer)

    def records(self) -> dict[str, list[Record]]:
        """Kind -> records of what has passed."""
        return records_of(self._asked, self._collectors)


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
    left_out: int = 0,
    keep: Keep = as_it_is,
    allocate: Allocate = np.empty,
) -> dict[str, list[Record]]:
    """What `forward.forward_records` gives, bit for bit, with one block in memory at a time.

    A pass that was interrupted goes on at the block where it stopped, but for kinds that are not
    resumable: what they need is not among the states, so they begin again.

    Args:
        tokens_ST: token ids, (protocol.sequences, left_out + protocol.length), no padding.
        states: holds the hidden states between the blocks; for a pass to be resumed it keeps all
            levels.
        kinds: those of one pass in `kinds.KINDS`.
        labels: unit, probe and other fields of Record.
        seed_units: seed of the sampled units.
        left_out: as of `PassRequest`.
        keep: takes a kind and a record of a block, where these are large (moments), when the block
            is done, and gives what stands for it in the result, such as a copy on disk, mapped; so
            that one block's are in memory at a time.
        allocate: gives the arrays in which these are gathered, such as mapped files.

    Returns:
        Kind -> records, for exactly the kinds asked for.

    Raises:
        ValueError: as `forward_records`; for a kind that is not resumable, with states of an
            earlier pass.
    """
    model, levels = streamed.model, range(streamed.architecture.num_layers + 1)
    asked = PassRequest(
        model, tokens_ST, protocol, labels or {}, seed_units, allocate=allocate, left_out=left_out
    )
    check_request(asked, kinds=kinds, batch_size=batch_size)
    again = sorted(kind for kind in kinds if not KINDS[kind].resumable)
    if again and any(states.complete(level) for level in levels):
        raise ValueError(
            f"states: got levels of an earlier pass, a {again[0]} needs to begin at level 0"
        )
    passing = PartialPass(asked, kinds, keep)
    with passing.watched():
        stream(streamed, tokens_ST, states, batch_size=batch_size, passing=passing)
    passing.check_finite()
    if passing.reads_final:
        first = 0
        for hidden_BTD in final_states(streamed, tokens_ST, states, batch_size=batch_size):
            passing.start_batch(first, (hidden_BTD.shape[0], hidden_BTD.shape[1]))
            with torch.inference_mode():  # as hooks are called
                passing.finish(hidden_BTD)
            first += len(hidden_BTD)
    return passing.records()
