"""A chain of links, each with a range of blocks in memory, that hand hidden states on.

The links may be processes on several machines (`cluster.chain`); what crosses between them are
arrays of numpy, bfloat16 as uint16. Every link records what passes its own blocks.

Shape suffixes: S sequences, T tokens of a sequence, B sequences of a batch, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from scaleinv_ray.capture.forward import FORWARD_KINDS, check_finite, check_request
from scaleinv_ray.capture.ranges import balanced
from scaleinv_ray.capture.streaming.layers import as_array, as_tensor
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.capture.streaming.records import Allocate, PartialPass
from scaleinv_ray.records import DepthStack, Protocol, Record


@dataclass(frozen=True)
class Request:
    """What is wanted of one pass over a probe; the same for all links.

    Attributes:
        protocol: what makes captures comparable.
        kinds: out of `forward.FORWARD_KINDS`.
        batch_size: sequences in a batch.
        labels: unit, probe and other fields of Record.
        seed_units: seed of the sampled units.
    """

    protocol: Protocol
    kinds: frozenset[str]
    batch_size: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    seed_units: int = 0

    def __post_init__(self) -> None:
        if whole := self.kinds - FORWARD_KINDS:
            raise ValueError(
                f"kinds: got {sorted(whole)} of a chain, in which the model is never whole; "
                f"allowed {sorted(FORWARD_KINDS)}, or cluster.load: resident"
            )


@dataclass(frozen=True)
class Handed:
    """What a link has at the end of a pass.

    Attributes:
        records: kind -> records of its own blocks.
        nonfinite: values that were not finite, by site and layer.
    """

    records: dict[str, list[Record]]
    nonfinite: dict[tuple[str, int], int]


def split(streamed: StreamedModel, num: int) -> list[tuple[range, int]]:
    """Which link holds which blocks: the most that one has to hold is as little as it can be.

    The first one has the embeddings beside its blocks, the last one the final norm and the head.

    Args:
        streamed: the model.
        num: of links.

    Returns:
        For each link, the blocks and the bytes it is to hold.

    Raises:
        ValueError: for more links than blocks, or fewer than two.
    """
    sizes = streamed.block_bytes()
    if not 2 <= num <= len(sizes):
        raise ValueError(f"chain: got {num} actors, allowed 2..{len(sizes)} (blocks)")
    before, after = streamed.end_bytes()
    sizes[0] += before
    sizes[-1] += after
    return [(r, sum(sizes[r.start : r.stop])) for r in balanced(sizes, num)]


class Link:
    """A range of blocks in memory, and the records of what passes them.

    What lies before the blocks belongs to the first link, what lies after them to the last one,
    which reads it when losses are first wanted.
    """

    def __init__(
        self, streamed: StreamedModel, layers: range, devices: Sequence[str] = ("cpu",)
    ) -> None:
        """Reads the weights.

        Args:
            streamed: the model.
            layers: numbers of the blocks.
            devices: among which they are divided.
        """
        self.streamed, self.layers, self._devices = streamed, layers, devices
        self._held = ExitStack()
        self._through = self._held.enter_context(streamed.span(layers, devices))
        self._embed: Callable[[np.ndarray], torch.Tensor] | None = None
        if layers.start == 0:
            self._embed = self._held.enter_context(streamed.beginning())
        self._finish: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._watching = ExitStack()

    def close(self) -> None:
        """Drops the weights."""
        self._watching.close()
        self._held.close()

    def begin(
        self,
        tokens_ST: np.ndarray,
        request: Request,
        keep: Callable[[Record], Record] = lambda record: record,
        allocate: Allocate = np.empty,
    ) -> None:
        """Begins a pass; what was left of an earlier one is dropped.

        Args:
            tokens_ST: the probe.
            request: what is wanted of it.
            keep: takes the moments of a block when the pass is over, and gives what stands for
                them, such as a copy on disk.
            allocate: gives the arrays in which moments are gathered, such as mapped files.

        Raises:
            ValueError: as `forward.forward_records`.
        """
        self._watching.close()
        check_request(
            self.streamed.model, tokens_ST, request.protocol,
            kinds=request.kinds, batch_size=request.batch_size,
        )  # fmt: skip
        self._tokens_ST = tokens_ST
        is_last = self.layers.stop == self.streamed.architecture.num_layers
        kinds = request.kinds if is_last else request.kinds - {"token_losses"}
        self._passing = PartialPass(
            self.streamed, tokens_ST.shape, request.protocol, kinds=kinds,
            labels=request.labels, seed_units=request.seed_units, keep=keep, allocate=allocate,
        )  # fmt: skip
        if self._passing.losses and self._finish is None:
            self._finish = self._held.enter_context(self.streamed.ending(self._devices[-1]))
        self._watching.enter_context(self._passing.watched())

    def take(self, first: int, count: int, x_BTD: np.ndarray | None = None) -> np.ndarray | None:
        """Pushes a batch through the blocks.

        Args:
            first: number of its first sequence.
            count: of sequences.
            x_BTD: what the link before gave; None for the first link.

        Returns:
            What the next link takes; None from the last link.
        """
        tokens_BT = self._tokens_ST[first : first + count]
        if self._embed is not None:
            x = self._embed(tokens_BT)
        else:
            assert x_BTD is not None
            x = as_tensor(x_BTD, self.streamed.model.dtype)
        self._passing.start_batch(first, (count, tokens_BT.shape[1]))
        x = self._through(x)
        if self.layers.stop < self.streamed.architecture.num_layers:
            return as_array(x)
        if self._finish is not None and self._passing.losses:
            tokens = torch.from_numpy(np.ascontiguousarray(tokens_BT)).long()
            with torch.inference_mode():
                self._passing.lose(self._finish(x), tokens)
        return None

    def end(self) -> Handed:
        """Ends the pass.

        Returns:
            The records of these blocks; none where values were not finite.

        Raises:
            ValueError: where the pass was ended before all sequences had gone through.
        """
        self._watching.close()
        nonfinite = self._passing.nonfinite()
        if any(nonfinite.values()):
            return Handed({}, nonfinite)
        for layer in self.layers:
            self._passing.end_block(layer)
        self._passing.check_complete()
        return Handed(self._passing.records(), {})


def joined(parts: Sequence[Handed]) -> dict[str, list[Record]]:
    """The records of the whole model out of those of the links, in order.

    Args:
        parts: of all links, the first one first.

    Returns:
        Kind -> records, as of a resident model.

    Raises:
        ValueError: where any activations were not finite, as `forward.forward_records`.
    """
    counts: Counter[tuple[str, int]] = Counter()
    for part in parts:
        counts.update(part.nonfinite)
    check_finite(counts)
    records: dict[str, list[Record]] = {}
    for part in parts:
        for kind, found in part.records.items():
            records.setdefault(kind, []).extend(found)
    if stacks := records.get("depth_stack"):
        records["depth_stack"] = [_stacked(stacks)]
    return records


def _stacked(stacks: Sequence[Record]) -> Record:
    """One depth stack out of those of ranges of levels."""
    parts = [s for s in stacks if isinstance(s, DepthStack)]
    return replace(parts[0], x_LTD=np.concatenate([s.x_LTD for s in parts]))
