"""The stream: consecutive tokens of whole sequences on sampled hidden units.

Shape suffixes: T rows, D width; B sequences of a batch in x_BTD.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from scaleinv_ray.capture.makers import PassRequest, collects
from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.protocols import TOKENS_PER_UNIT
from scaleinv_ray.records import Activations, Protocol, Record


class StreamCollector:
    """Consecutive tokens of whole sequences on sampled hidden units of each MLP."""

    sites: frozenset[str] = frozenset({"mlp_hidden"})

    def __init__(
        self, protocol: Protocol, *, num_sequences: int, length: int, seed_units: int
    ) -> None:
        """For a probe of `num_sequences` sequences of `length` tokens.

        Raises:
            ValueError: where the probe has fewer than 50 tokens a unit.
        """
        self._units, self._length, self._seed = protocol.stream_units, length, seed_units
        self._needed = math.ceil(TOKENS_PER_UNIT * self._units / length)
        if self._needed > num_sequences:
            raise ValueError(
                f"sequences: got {num_sequences}, a stream of {self._units} units needs "
                f"{self._needed} of length {length} ({TOKENS_PER_UNIT} tokens a unit)"
            )
        self._rows: dict[int, list[np.ndarray]] = {}

    def _sample(self, width: int) -> np.ndarray:
        if width < self._units:
            raise ValueError(f"stream_units: got {self._units}, allowed <= {width} hidden units")
        rng = np.random.default_rng(self._seed)
        return np.sort(rng.choice(width, self._units, replace=False))

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Keeps the sampled units of a batch."""
        if site in self.sites and first < self._needed:
            units = torch.from_numpy(self._sample(x_BTD.shape[-1])).to(x_BTD.device)
            part = x_BTD[: self._needed - first].index_select(-1, units)
            self._rows.setdefault(layer, []).append(to_numpy(part.reshape(-1, self._units)))

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough."""
        return seen >= self._needed

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """One record a layer; no LayerNorm reads the hidden units, so `removes_mean` is unused."""
        del removes_mean
        sequence_T = np.repeat(np.arange(self._needed, dtype=np.int32), self._length)
        position_T = np.tile(np.arange(self._length, dtype=np.int32), self._needed)
        found: list[Record] = [
            Activations(
                x_TD=np.concatenate(rows),
                sequence_T=sequence_T,
                position_T=position_T,
                sampling="stream",
                site="mlp_hidden",
                layer=layer,
                **labels,
            )
            for layer, rows in self._rows.items()
        ]
        return {"stream": found}


@collects("stream")
def stream_collector(asked: PassRequest, _: frozenset[str]) -> StreamCollector:
    """Of the units that the seed draws."""
    num_sequences, length = asked.text_ST.shape
    return StreamCollector(
        asked.protocol, num_sequences=num_sequences, length=length, seed_units=asked.seed
    )
