"""Records of a checkpoint that is larger than memory: the same as of a resident one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scaleinv_ray.capture.forward import (
    Pass,
    check_request,
    collectors_of,
    labels_of,
    records_of,
)
from scaleinv_ray.capture.losses import LossCollector, next_token_losses
from scaleinv_ray.capture.sites import watch
from scaleinv_ray.capture.streaming import States, StreamedModel, final_states, stream
from scaleinv_ray.records import Protocol, Record


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
    collectors = collectors_of(kinds, tokens_ST.shape, protocol, seed_units)
    sites = frozenset[str]().union(*(c.sites for c in collectors))
    passing = Pass(collectors, (0, 0))
    with watch(model, architecture, sites, passing.visit):
        stream(streamed, tokens_ST, states, batch_size=batch_size, passing=passing)
    passing.check_finite()
    losses = LossCollector(num_sequences=len(tokens_ST)) if "token_losses" in kinds else None
    if losses:
        for hidden_BTD, tokens_BT in final_states(
            streamed, tokens_ST, states, batch_size=batch_size
        ):
            losses.add(next_token_losses(model, architecture, hidden_BTD, tokens_BT))
    return records_of(collectors, losses, labels_of(model, protocol, labels or {}), architecture)
