"""One pass over a probe: moments, cloud, stream, depth stack and token losses.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture.architectures import Architecture, architecture_of
from scaleinv_ray.capture.losses import LossCollector, next_token_losses
from scaleinv_ray.capture.moments import MomentCollector
from scaleinv_ray.capture.rows import CloudCollector, StreamCollector
from scaleinv_ray.capture.sites import check_tokens, to_device, watch
from scaleinv_ray.checkpoints.weights.matrices import dtype_name
from scaleinv_ray.records import Protocol, Record

FORWARD_KINDS: frozenset[str] = frozenset({
    "moments",
    "cloud",
    "stream",
    "depth_stack",
    "token_losses",
})


def check_shape(tokens_ST: np.ndarray, protocol: Protocol) -> None:
    """Checks that a probe has the shape the protocol names.

    Args:
        tokens_ST: token ids.
        protocol: gives sequences and length.

    Raises:
        ValueError: otherwise (two captures under one protocol would not be comparable).
    """
    allowed = (protocol.sequences, protocol.length)
    if tokens_ST.shape != allowed:
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


class Collector(typing.Protocol):
    """What keeps something of the tensors that pass its sites."""

    sites: frozenset[str]

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Reads a batch whose first sequence has the number `first`."""

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough."""

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """Kind -> records, after the pass."""


class Pass:
    """What the hooks write to: checks every visit and hands it to the collectors."""

    def __init__(self, collectors: list[Collector], batch_shape: tuple[int, int]) -> None:
        self._collectors, self._batch_shape, self._first = collectors, batch_shape, 0
        self._visited: set[tuple[str, int]] = set()
        self._nonfinite: Counter[tuple[str, int]] = Counter()

    def start_batch(self, first: int, batch_shape: tuple[int, int]) -> None:
        """Called before each batch."""
        self._first, self._batch_shape = first, batch_shape
        self._visited.clear()

    def visit(self, site: str, layer: int, x: torch.Tensor) -> None:
        """Called by the hooks."""
        if (site, layer) in self._visited:
            raise ValueError(f"{site} of layer {layer}: hit twice in one batch, allowed once")
        self._visited.add((site, layer))
        # A sum is finite only if its terms are; it costs less than isfinite on every element.
        if not torch.isfinite(x.sum(dtype=torch.float32)):
            self._nonfinite[site, layer] += int((~torch.isfinite(x)).sum())
        x_BTD = x.reshape(*self._batch_shape, x.shape[-1])  # OPT flattens before its MLP
        for collector in self._collectors:
            collector.visit(site, layer, x_BTD, self._first)

    def check_finite(self) -> None:
        """Checks, after the pass, that all activations were finite.

        Raises:
            ValueError: with the numbers at every site, where any were not.
        """
        if found := {k: n for k, n in sorted(self._nonfinite.items()) if n}:
            text = ", ".join(f"{n} at {site} of layer {at}" for (site, at), n in found.items())
            raise ValueError(f"activations: got values that are not finite ({text}), allowed 0")


def collectors_of(
    kinds: frozenset[str], shape: tuple[int, ...], protocol: Protocol, seed_units: int
) -> list[Collector]:
    """The collectors that the kinds need.

    Args:
        kinds: out of `FORWARD_KINDS`.
        shape: sequences and length of the probe.
        protocol: what makes captures comparable.
        seed_units: seed of the sampled units.

    Returns:
        One collector for each kind, clouds and depth stacks together.
    """
    num_sequences, length = shape
    collectors: list[Collector] = []
    if rows := kinds & {"cloud", "depth_stack"}:
        collectors.append(CloudCollector(protocol, rows, num_sequences=num_sequences))
    if "moments" in kinds:
        collectors.append(MomentCollector(protocol, num_sequences=num_sequences, length=length))
    if "stream" in kinds:
        collectors.append(
            StreamCollector(
                protocol, num_sequences=num_sequences, length=length, seed_units=seed_units
            )
        )
    return collectors


def _run(
    model: PreTrainedModel,
    architecture: Architecture,
    tokens_ST: np.ndarray,
    collectors: list[Collector],
    losses: LossCollector | None,
    *,
    batch_size: int,
) -> None:
    sites = frozenset[str]().union(*(c.sites for c in collectors))
    passing = Pass(collectors, (0, 0))
    wanted: list[Any] = [*collectors, losses] if losses else [*collectors]
    with torch.inference_mode(), watch(model, architecture, sites, passing.visit):
        for first in range(0, len(tokens_ST), batch_size):
            tokens_BT = to_device(tokens_ST[first : first + batch_size], model)
            passing.start_batch(first, (tokens_BT.shape[0], tokens_BT.shape[1]))
            hidden_BTD = model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
            if losses:
                losses.add(next_token_losses(model, architecture, hidden_BTD, tokens_BT))
            if all(c.complete(first + len(tokens_BT)) for c in wanted):
                break
    passing.check_finite()


def forward_records(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: Protocol,
    *,
    kinds: frozenset[str],
    batch_size: int,
    labels: Mapping[str, Any] | None = None,
    seed_units: int = 0,
) -> dict[str, list[Record]]:
    """Captures everything that one forward pass over a probe gives.

    cloud: rows at `protocol.position` before block 0 (resid_pre) and after each block
    (resid_post). depth_stack: the same rows, stacked. moments: resid_post of each
    layer over the first tokens_per_dim * D tokens. stream: `protocol.stream_units` units of each
    mlp_hidden, the same units for every model of that width. token_losses: nats, float32.
    The pass ends with the last sequence that anything wanted needs.

    Args:
        model: a causal language model in eval mode.
        tokens_ST: token ids, (protocol.sequences, protocol.length), no padding.
        protocol: what makes captures comparable.
        kinds: out of `FORWARD_KINDS`.
        batch_size: sequences in a batch; changes speed and memory, not what is captured.
        labels: unit, probe and other fields of Record.
        seed_units: seed of the sampled units; the draw does not depend on the model.

    Returns:
        Kind -> records, for exactly the kinds asked for.

    Raises:
        ValueError: for an unknown kind or architecture, a bad batch (see `check_tokens`), a probe
            that is too short for a width, token losses of a model that is not causal, a site that
            is hit twice, or activations that are not finite (with their number at every site: the
            whole capture is refused, since no invariant of such a model can be had).
    """
    check_request(model, tokens_ST, protocol, kinds=kinds, batch_size=batch_size)
    architecture = architecture_of(model.config)
    collectors = collectors_of(kinds, tokens_ST.shape, protocol, seed_units)
    losses = LossCollector(num_sequences=len(tokens_ST)) if "token_losses" in kinds else None
    _run(model, architecture, tokens_ST, collectors, losses, batch_size=batch_size)
    return records_of(collectors, losses, labels_of(model, protocol, labels or {}), architecture)


def check_request(
    model: PreTrainedModel,
    tokens_ST: np.ndarray,
    protocol: Protocol,
    *,
    kinds: frozenset[str],
    batch_size: int,
) -> None:
    """Checks what is asked of a forward pass; the arguments are those of `forward_records`.

    Args:
        model: a causal language model in eval mode.
        tokens_ST: token ids.
        protocol: gives the shape of the tokens.
        kinds: wanted.
        batch_size: sequences in a batch.

    Raises:
        ValueError: naming what is wrong.
    """
    if unknown := kinds.difference(FORWARD_KINDS):
        raise ValueError(f"kinds: got {sorted(unknown)}, allowed {sorted(FORWARD_KINDS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, allowed integers >= 1")
    check_tokens(model, tokens_ST)
    check_shape(tokens_ST, protocol)
    if "token_losses" in kinds and not architecture_of(model.config).causal:
        raise ValueError("kinds: got 'token_losses' of a model that is not causal")


def records_of(
    collectors: list[Collector],
    losses: LossCollector | None,
    labels: dict[str, Any],
    architecture: Architecture,
) -> dict[str, list[Record]]:
    """What the collectors have gathered, by kind.

    Args:
        collectors: after the pass.
        losses: likewise.
        labels: fields of Record.
        architecture: says whether the mean over units is removed downstream.

    Returns:
        Kind -> records.
    """
    records: dict[str, list[Record]] = {}
    for collector in collectors:
        records |= collector.records(labels, removes_mean=architecture.removes_mean)
    if losses:
        records["token_losses"] = [losses.record(labels)]
    return records
