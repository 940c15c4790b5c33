"""Where and when the answer is carried: the stream of B patched with A's, by layer and position.

Shape suffixes: L places in the depth, G groups of positions, S sequences, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scaleinv_ray.circuitry.effects.interventions import Experiment, Rows, patching_share
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.reruns import Surgery

GROUPS = 16
"""Positions, at most; longer sequences are cut into so many groups."""
SEQUENCES = 8


@dataclass(frozen=True)
class ByPosition:
    """Shares of m(A) - m(B) that the stream of A brings back.

    Attributes:
        starts: first position of each group.
        length: of the sequences.
        share_LG: before each block, and after the last one.
        stderr_LG: by delete-one jackknife over sequences.
        sequences: how many.
        asked: position whose logits are read, or the first of them.
        tokens: of the first sequence, as text; empty without a tokenizer.
        forwards: cost, in forward passes over these sequences.
    """

    starts: tuple[int, ...]
    length: int
    share_LG: np.ndarray
    stderr_LG: np.ndarray
    sequences: int
    asked: int
    tokens: tuple[str, ...]
    forwards: float

    def as_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        return {
            "starts": list(self.starts),
            "length": self.length,
            "share": self.share_LG.tolist(),
            "stderr": self.stderr_LG.tolist(),
            "sequences": self.sequences,
            "asked": self.asked,
            "tokens": list(self.tokens),
            "forwards": self.forwards,
        }

    def lines(self) -> list[str]:
        """Of every layer the positions that bring most back."""
        ends = [*self.starts[1:], self.length]
        rows = ["stream of A into B: share of the effect that comes back, at the best positions"]
        for layer, share_G in enumerate(self.share_LG):
            g = int(np.abs(share_G).argmax())
            at = f"{self.starts[g]}" + ("" if ends[g] - self.starts[g] == 1 else f"..{ends[g] - 1}")
            name = f"before block {layer}" if layer < len(self.share_LG) - 1 else "after the last"
            rows.append(
                f"{name:<16} position {at:<9}{share_G[g]:+.3f} +- {self.stderr_LG[layer, g]:.2g}"
            )
        return rows


def by_position(subject: Subject) -> ByPosition:
    """Patches the stream at each layer and each position, or group of positions.

    Raises:
        ValueError: where m(A) - m(B) is less than two standard errors.
    """
    surgery = Surgery(subject.anatomy)
    some = subject.pairs.some(slice(0, SEQUENCES))
    experiment = Experiment(surgery, some, subject.effects.metric)
    length = some.tokens_A_ST.shape[1]
    groups = np.array_split(np.arange(length), min(GROUPS, length))
    (rows,) = experiment.batches
    ends = [_metric(experiment, rows, s.stream[-1]) for s in (rows.clean, rows.corrupted)]
    clean_S, corrupted_S = (x[0] for x in ends)
    found = [
        patching_share(clean_S, corrupted_S, patched_GS)
        for patched_GS in _patched(experiment, rows, groups)
    ]
    spell = subject.spell
    return ByPosition(
        starts=tuple(int(g[0]) for g in groups),
        length=length,
        share_LG=np.array([share for share, _ in found]),
        stderr_LG=np.array([stderr for _, stderr in found]),
        sequences=experiment.sequences,
        asked=int(some.positions_SP.min()),
        tokens=() if spell is None else tuple(map(spell, some.tokens_A_ST[0].tolist())),
        forwards=surgery.forwards(experiment.sequences),
    )


def _patched(experiment: Experiment, rows: Rows, groups: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Of every place in the depth m [G, S] of B with A's stream in each group of positions."""
    surgery = experiment.surgery
    size = max(1, surgery.max_rows // experiment.sequences)
    length = rows.pairs.tokens_A_ST.shape[1]
    for layer in range(experiment.anatomy.graph.layers + 1):
        a, b = rows.clean.stream[layer], rows.corrupted.stream[layer]
        parts = []
        for first in range(0, len(groups), size):
            chunk = groups[first : first + size]
            x = torch.cat([_with(b, a, group) for group in chunk])
            with torch.no_grad(), surgery.hooked(length):
                *_, (_, x) = surgery.blocks_from(x, layer)
            parts.append(_metric(experiment, rows, x.unflatten(0, (len(chunk), -1))))
        yield np.concatenate(parts)


def _with(b_STD: torch.Tensor, a_STD: torch.Tensor, group: np.ndarray) -> torch.Tensor:
    x = b_STD.clone()
    x[:, group] = a_STD[:, group]
    return x


@torch.no_grad()
def _metric(experiment: Experiment, rows: Rows, stream: torch.Tensor) -> np.ndarray:
    stream = stream if stream.ndim == 4 else stream[None]
    found: np.ndarray = rows.metric(experiment.anatomy, stream).double().cpu().numpy()
    return found
