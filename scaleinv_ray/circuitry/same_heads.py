"""Which heads of two models do the same, beside untrained models of the same two sizes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.checkpoints import resolve
from scaleinv_ray.checkpoints.weights.nulls import materialise
from scaleinv_ray.circuitry.folders import Drawing, pairs_of
from scaleinv_ray.circuitry.heads import Signatures, signatures_of
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.circuits.matching import NEAR, Match, match

UNTRAINED_PAIRS = 19
"""The least that allow a p of .05."""
_SHOWN = 8


@dataclass(frozen=True)
class SameHeads:
    """Heads of two models, matched one to one.

    Attributes:
        at: places of the first and of the other in the list of models.
        models: their names.
        names: of their heads, in the order of the signatures.
        found: the matching, or why there is none.
    """

    at: tuple[int, int]
    models: tuple[str, str]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    found: Match | str

    def pairs(self) -> list[dict[str, Any]]:
        """{head, there, distance, near}, nearest first; near: as few untrained pairs are."""
        if isinstance(self.found, str):
            return []
        of_A, of_B = self.names
        near = round(self.found.fraction.value * len(self.found.pairs_M2))
        rows = zip(self.found.pairs_M2.tolist(), self.found.distance_M.tolist(), strict=True)
        return [
            {"head": of_A[a], "there": of_B[b], "distance": distance, "near": n < near}
            for n, ((a, b), distance) in enumerate(rows)
        ]

    def as_json(self) -> dict[str, Any]:
        """The pairs, their mean distance beside untrained ones and the share that is near."""
        told: dict[str, Any] = {"at": list(self.at), "models": list(self.models)}
        if isinstance(self.found, str):
            return told | {"refused": self.found}
        return told | {
            "pairs": self.pairs(),
            "cost_ratio": self.found.cost_ratio,
            "untrained": list(self.found.null_ratios),
            "p": self.found.p,
            "fraction": self.found.fraction.value,
            "trivial": NEAR,
            "says": self._verdict(self.found),
        }

    def lines(self) -> list[str]:
        """The nearest pairs and the verdict."""
        first, other = self.models
        title = f"heads of {first} and of {other}, matched by what they attend to and copy"
        if isinstance(self.found, str):
            return [title, f"refused: {self.found}"]
        pairs = self.pairs()
        rows = [
            f"{p['head']:<8}{p['there']:<8}{p['distance']:>9.3f}" + "   near" * p["near"]
            for p in pairs[:_SHOWN]
        ]
        left = len(pairs) - len(rows)
        rows += [f".. and {left} more pairs"] if left > 0 else []
        return [title, f"{'head':<8}{'there':<8}{'distance':>9}   over the mean of all pairs",
                *rows, *textwrap.wrap(self._verdict(self.found), 96)]  # fmt: skip

    def _verdict(self, found: Match) -> str:
        low, high = min(found.null_ratios), max(found.null_ratios)
        count = len(found.null_ratios)
        better = "nearer than" if found.p <= NEAR else "no nearer than"
        return (
            f"mean distance {found.cost_ratio:.2f}, {better} {count} untrained pairs of models of "
            f"these sizes ({low:.2f} to {high:.2f}; p = {found.p:.2f}, at least "
            f"{1 / (1 + count):.2f}); {found.fraction.value:.0%} of the matched heads are nearer "
            f"than {1 - NEAR:.0%} of untrained ones (trivial {NEAR:.0%})"
        )


def same_heads(
    folders: Sequence[Path], found: Sequence[Circuits], drawing: Drawing, *, untrained: bool
) -> list[SameHeads]:
    """Matches the heads of every further model to those of the first.

    Args:
        folders: of the models.
        found: of each, with signatures; those without are passed over.
        drawing: of the pairs whose clean sequences the signatures are of.
        untrained: whether untrained models may be measured: without them nothing can be said.
    """
    signed = [(n, s) for n, c in enumerate(found) if (s := _signed(c)) is not None]
    if len(signed) < 2:
        return []
    (at, first), *others = signed
    nulls_A = _untrained(folders[at], drawing, 0) if untrained else []
    matched = []
    for n, other in others:
        # other seeds: two models of one size and seed would be the same model
        nulls_B = _untrained(folders[n], drawing, n * UNTRAINED_PAIRS) if untrained else []
        judged = _judged(first, other, list(zip(nulls_A, nulls_B, strict=True)))
        models = found[at].name, found[n].name
        matched.append(SameHeads((at, n), models, (first.names, other.names), judged))
    return matched


def _judged(
    first: Signatures, other: Signatures, nulls: list[tuple[np.ndarray, np.ndarray]]
) -> Match | str:
    if not nulls:
        return "untrained models match too, and --no-null leaves them out"
    try:
        return match(first.rows_HF, other.rows_HF, nulls)
    except Refused as error:
        return str(error)


def _signed(circuits: Circuits) -> Signatures | None:
    found = [a.found for a in circuits.analyses if isinstance(a.found, Signatures)]
    return found[0] if found else None


def _untrained(folder: Path, drawing: Drawing, first_seed: int) -> list[np.ndarray]:
    """Signatures of initialisations from the config: a run's own step 0 is one alone."""
    checkpoint = resolve([{"path": str(folder)}])[-1]
    assert checkpoint.folder is not None, "a path is local"
    tokens_ST = pairs_of(checkpoint, drawing).tokens_A_ST
    found = []
    for seed in range(first_seed, first_seed + UNTRAINED_PAIRS):
        model = materialise(checkpoint.folder, "random_init", seed).model
        found.append(signatures_of(Anatomy.of(model), tokens_ST, seed=drawing.seed).rows_HF)
    return found
