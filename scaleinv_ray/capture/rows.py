"""Rows of activations: the cloud, its stack over depth, and the stream.

Shape suffixes: T rows, D width, L levels; B sequences of a batch in x_BTD.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.records import Activations, DepthStack, Protocol, Record

STREAM_TOKENS_PER_UNIT = 50
"""T/N of a stream: with fewer tokens a unit's correlations are noise (DESIGN 4)."""


class CloudCollector:
    """The row at one position of each sequence, before block 0 and after each block."""

    sites: frozenset[str] = frozenset({"resid_pre", "resid_post"})

    def __init__(self, protocol: Protocol, kinds: frozenset[str], *, num_sequences: int) -> None:
        """For a probe of `num_sequences` sequences; kinds: cloud, depth_stack or both."""
        self._kinds, self._position, self._num_sequences = kinds, protocol.position, num_sequences
        self._rows: dict[int, list[np.ndarray]] = {}

    def visit(self, site: str, layer: int, x_BTD: torch.Tensor, first: int) -> None:
        """Keeps the rows of a batch; level 0 is before block 0, level l + 1 after block l."""
        if site in self.sites:
            level = layer + (site == "resid_post")
            self._rows.setdefault(level, []).append(to_numpy(x_BTD[:, self._position]))

    def complete(self, seen: int) -> bool:
        """Whether the first `seen` sequences are enough: all are wanted."""
        return seen >= self._num_sequences

    def records(self, labels: dict, *, removes_mean: bool) -> dict[str, list[Record]]:
        """A cloud a level; the stack of the same rows, [num_layers + 1, T, D]."""
        labels = labels | {"removes_mean": removes_mean}
        sequence_T = np.arange(self._num_sequences, dtype=np.int32)
        position_T = np.full_like(sequence_T, self._position)
        x_LTD = [np.concatenate(self._rows[level]) for level in sorted(self._rows)]
        found: dict[str, list[Record]] = {}
        if "cloud" in self._kinds:
            found["cloud"] = [
                Activations(
                    x_TD=x_TD,
                    sequence_T=sequence_T,
                    position_T=position_T,
                    sampling="cloud",
                    site="resid_post" if level else "resid_pre",
                    layer=max(level - 1, 0),
                    **labels,
                )
                for level, x_TD in zip(sorted(self._rows), x_LTD, strict=True)
            ]
        if "depth_stack" in self._kinds:
            stack = DepthStack(x_LTD=np.stack(x_LTD), sequence_T=sequence_T, **labels)
            found["depth_stack"] = [stack]
        return found


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
        self._needed = math.ceil(STREAM_TOKENS_PER_UNIT * self._units / length)
        if self._needed > num_sequences:
            raise ValueError(
                f"sequences: got {num_sequences}, a stream of {self._units} units needs "
                f"{self._needed} of length {length} ({STREAM_TOKENS_PER_UNIT} tokens a unit)"
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
