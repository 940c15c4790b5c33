"""One pass over a probe, of which all collectors take what they need.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scaleinv_ray.capture import by_kind
from scaleinv_ray.capture.makers import (
    FINAL,
    Collector,
    PassRequest,
    check_shape,
    labels_of,
    makings_of,
)
from scaleinv_ray.capture.sites import check_tokens, hooked, to_device
from scaleinv_ray.kinds import one_pass_kinds
from scaleinv_ray.records import Protocol, Record

assert by_kind, "importing the package registers what makes the records"


class Pass:
    """What the hooks write to: checks every visit and hands it to the collectors."""

    def __init__(
        self, collectors: list[Collector], batch_shape: tuple[int, int], text: slice
    ) -> None:
        """Of batches of which collectors see the positions of the text."""
        self._collectors, self._batch_shape, self._first = collectors, batch_shape, 0
        self._text = text
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
        x_BTD = x_BTD[:, self._text]
        for collector in self._collectors:
            collector.visit(site, layer, x_BTD, self._first)

    @property
    def hooked(self) -> frozenset[str]:
        """The sites at which hooks are wanted."""
        return frozenset[str]().union(*(c.sites for c in self._collectors)) - {FINAL}

    @property
    def reads_final(self) -> bool:
        """Whether anything wanted reads what the head reads."""
        return any(FINAL in c.sites for c in self._collectors)

    def finish(self, hidden_BTD: torch.Tensor) -> None:
        """Called with what the head reads of a batch; not counted where it is not finite."""
        for collector in self._collectors:
            if FINAL in collector.sites:
                collector.visit(FINAL, 0, hidden_BTD[:, self._text], self._first)

    def check_finite(self) -> None:
        """Checks, after the pass, that all activations were finite.

        Raises:
            ValueError: with the numbers at every site, where any were not.
        """
        if found := {k: n for k, n in sorted(self._nonfinite.items()) if n}:
            text = ", ".join(f"{n} at {site} of layer {at}" for (site, at), n in found.items())
            raise ValueError(f"activations: got values that are not finite ({text}), allowed 0")


def _run(asked: PassRequest, collectors: list[Collector], *, batch_size: int) -> None:
    passing = Pass(collectors, (0, 0), asked.text)
    with (
        torch.inference_mode(),
        hooked(asked.model, asked.architecture, passing.hooked, passing.visit),
    ):
        for first in range(0, len(asked.tokens_ST), batch_size):
            tokens_BT = to_device(asked.tokens_ST[first : first + batch_size], asked.model)
            passing.start_batch(first, (tokens_BT.shape[0], tokens_BT.shape[1]))
            out = asked.model.base_model(input_ids=tokens_BT, use_cache=False)
            passing.finish(out.last_hidden_state)
            if all(c.complete(first + len(tokens_BT)) for c in collectors):
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
    left_out: int = 0,
) -> dict[str, list[Record]]:
    """Captures everything that one forward pass over a probe gives.

    cloud: rows at `protocol.position` before block 0 (resid_pre) and after each block
    (resid_post). depth_stack: the same rows, stacked. moments: resid_post of each
    layer over the first tokens_per_dim * D tokens. stream: `protocol.stream_units` units of each
    mlp_hidden, the same units for every model of that width. token_losses: nats, float32.
    The pass ends with the last sequence that anything wanted needs.

    Args:
        model: a causal language model in eval mode.
        tokens_ST: token ids, (protocol.sequences, left_out + protocol.length), no padding.
        kinds: those of one pass in `kinds.KINDS`.
        batch_size: sequences in a batch; changes speed and memory, not what is captured.
        labels: unit, probe and other fields of Record.
        seed_units: seed of the sampled units; the draw does not depend on the model.
        left_out: as of `PassRequest`.

    Returns:
        Kind -> records, for exactly the kinds asked for.

    Raises:
        ValueError: for an unknown kind or architecture, a bad batch (see `check_tokens`), a probe
            that is too short for a width, token losses of a model that is not causal, a site that
            is hit twice, or activations that are not finite (with their number at every site: the
            whole capture is refused, since no invariant of such a model can be had).
    """
    asked = PassRequest(model, tokens_ST, protocol, labels or {}, seed_units, left_out=left_out)
    check_request(asked, kinds=kinds, batch_size=batch_size)
    collectors = [making.new(asked, own) for making, own in makings_of(kinds).items()]
    _run(asked, collectors, batch_size=batch_size)
    return records_of(asked, collectors)


def check_request(asked: PassRequest, *, kinds: frozenset[str], batch_size: int) -> None:
    """Checks what is asked of a forward pass; the arguments are those of `forward_records`.

    Raises:
        ValueError: naming what is wrong.
    """
    if unknown := kinds - one_pass_kinds():
        raise ValueError(f"kinds: got {sorted(unknown)}, allowed {sorted(one_pass_kinds())}")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, allowed integers >= 1")
    check_tokens(asked.model, asked.tokens_ST)
    causal = asked.architecture.causal
    check_shape(asked.tokens_ST, asked.protocol, asked.left_out, causal=causal)


def records_of(asked: PassRequest, collectors: Iterable[Collector]) -> dict[str, list[Record]]:
    """What collectors have gathered in a pass, by kind."""
    labels = labels_of(asked.model, asked.protocol, asked.labels)
    removes_mean = asked.architecture.removes_mean
    records: dict[str, list[Record]] = {}
    for collector in collectors:
        records |= collector.records(labels, removes_mean=removes_mean)
    return records
