"""Records of a checkpoint that is larger than memory: the same as of a resident one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from scaleinv_ray.capture.streaming import States, StreamedModel, final_states, stream
from scaleinv_ray.records import Protocol, Record


class _BlockMoments:
    """Moments of one block at a time: eight second moments of a wide model are as large as it."""

    sites = MomentCollector.sites

    def __init__(
        self,
        new: Callable[[], MomentCollector],
        record: Callable[[MomentCollector], list[Record]],
        keep: Callable[[Record], Record],
    ) -> None:
        self._new, self._record, self._keep, self._now = new, record, keep, new()
        self._found: list[Record] = []

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Adds a batch of one site."""
        self._now.visit(site, layer, x_BTD, first)

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough."""
        return self._now.complete(seen)

    def end_block(self) -> None:
        """Makes the record of a block and frees its sums."""
        done = self._record(self._now)
        self._now = self._new()
        self._found += [self._keep(record) for record in done]

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """One record a layer, as kept."""
        del labels, removes_mean  # the records have been made with them
        return {"moments": self._found}


class _StreamedPass(Pass):
    """A pass that is told when a block is done."""

    def __init__(self, collectors: list[Any], moments: _BlockMoments | None) -> None:
        super().__init__([*collectors, moments] if moments else collectors, (0, 0))
        self._moments = moments

    def end_block(self, layer: int) -> None:
        """Called after the last batch of a block."""
        del layer  # the collector knows which one it has seen
        if self._moments:
            self._moments.end_block()


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
    of_model = labels_of(model, protocol, labels or {})
    collectors = collectors_of(kinds - {"moments"}, tokens_ST.shape, protocol, seed_units)
    moments = None
    if "moments" in kinds:
        num, length = tokens_ST.shape
        mean = architecture.removes_mean
        moments = _BlockMoments(
            lambda: MomentCollector(protocol, num_sequences=num, length=length),
            lambda sums: sums.records(of_model, removes_mean=mean)["moments"],
            keep,
        )
    passing = _StreamedPass(collectors, moments)
    wanted = [*collectors, moments] if moments else collectors
    sites = frozenset[str]().union(*(c.sites for c in wanted))
    with watch(model, architecture, sites, passing.visit):
        stream(streamed, tokens_ST, states, batch_size=batch_size, passing=passing)
    passing.check_finite()
    losses = LossCollector(num_sequences=len(tokens_ST)) if "token_losses" in kinds else None
    if losses:
        for hidden_BTD, tokens_BT in final_states(
            streamed, tokens_ST, states, batch_size=batch_size
        ):
            losses.add(next_token_losses(model, architecture, hidden_BTD, tokens_BT))
    return records_of(wanted, losses, of_model, architecture)
