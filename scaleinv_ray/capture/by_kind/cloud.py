"""Rows of activations at one position: the cloud, and its stack over depth.

Shape suffixes: T rows, D width, L levels; B sequences of a batch in x_BTD.
"""

from __future__ import annotations

import numpy as np
import torch

from scaleinv_ray.capture.makers import PassRequest, collects
from scaleinv_ray.capture.sites import to_numpy
from scaleinv_ray.records import Activations, DepthStack, Protocol, Record


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


@collects("cloud", "depth_stack")
def cloud_collector(asked: PassRequest, kinds: frozenset[str]) -> CloudCollector:
    """One for both: they have the same rows."""
    return CloudCollector(asked.protocol, kinds, num_sequences=len(asked.tokens_ST))
