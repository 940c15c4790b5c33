"""The largest components over the steps of a run: when their effects set in.

Shape suffixes: N components, P steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.circuitry.effects.measuring import Asked, Watch, measure
from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.probes.corrupted import Pairs

TOP = 5
"""Components that are followed, the largest at the last step."""


@dataclass(frozen=True)
class Training:
    """Effects of a few components over training.

    Attributes:
        components: names, largest at the last step first.
        steps: of the run, ascending.
        tokens: seen in training by then; None where nothing says.
        effect_NP: means over sequences.
        stderr_NP: of these.
        accuracy_P: share of answers that are the model's first choice.
    """

    components: tuple[str, ...]
    steps: tuple[int, ...]
    tokens: tuple[int | None, ...]
    effect_NP: np.ndarray
    stderr_NP: np.ndarray
    accuracy_P: np.ndarray

    def onset(self) -> int:
        """Index of the first step at which the top component has half of its last effect."""
        last = self.effect_NP[0, -1]
        return int(np.flatnonzero(self.effect_NP[0] * np.sign(last) >= abs(last) / 2)[0])

    def as_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        at = self.onset()
        return {
            "steps": list(self.steps),
            "tokens": list(self.tokens),
            "accuracy": self.accuracy_P.tolist(),
            "components": [
                {"name": name, "effect": effect.tolist(), "stderr": stderr.tolist()}
                for name, effect, stderr in zip(
                    self.components, self.effect_NP, self.stderr_NP, strict=True
                )
            ],
            "onset": {
                "name": self.components[0], "step": self.steps[at], "tokens": self.tokens[at],
                "before": self.steps[at - 1] if at else None,
            },
        }  # fmt: skip

    def lines(self) -> list[str]:
        """A row a step, and the onset."""
        rows = [f"{'step':>8}{'accuracy':>10}" + "".join(f"{n:>11}" for n in self.components)]
        for p, step in enumerate(self.steps):
            effects = "".join(f"{x:>+11.3f}" for x in self.effect_NP[:, p])
            rows.append(f"{step:>8}{self.accuracy_P[p]:>10.3f}{effects}")
        at, tokens = self.onset(), self.tokens[self.onset()]
        after = f"after step {self.steps[at - 1]}, by step" if at else "by step"
        seen = "" if tokens is None else f" ({tokens:,} tokens)"
        return [*rows, f"{self.components[0]} reaches half of its effect {after} "
                f"{self.steps[at]}{seen}"]  # fmt: skip


def over_training(
    checkpoints: Sequence[Checkpoint],
    last: Effects,
    pairs: Pairs,
    asked: Asked,
    *,
    load: Callable[[Checkpoint], Any],
    watch: Watch,
) -> Training:
    """Follows the largest components of the last step over a run.

    Args:
        checkpoints: of one run, by step.
        last: effects at its last step.
        pairs: the same at every step.
        asked: as at the last step.
        load: a checkpoint into a live model.
        watch: takes what is done.

    Raises:
        ValueError: with fewer than two steps.
    """
    if len(checkpoints) < 2:
        raise ValueError(
            f"steps: got a run with {len(checkpoints)} step, allowed two or more for an onset"
        )
    order = np.argsort(-np.abs(last.best_NS.mean(axis=1)), kind="stable")[:TOP]
    names = tuple(str(last.components[n]) for n in order)
    few = replace(
        asked, components=names, edges=False, must_do=False, budget=None, draws=0, game=False
    )
    found = []
    for c in checkpoints:
        watch(f"step {c.step}", 0.0)
        found.append(measure(Anatomy.of(load(c)), pairs, few))
    effect_NPS = np.stack([e.best_NS for e in found], axis=1)
    count = effect_NPS.shape[-1]
    return Training(
        names,
        tuple(c.step or 0 for c in checkpoints),
        tuple(c.train_tokens for c in checkpoints),
        effect_NPS.mean(axis=-1),
        effect_NPS.std(axis=-1, ddof=1) / np.sqrt(count),
        np.array([e.accuracy for e in found]),
    )


def spread(checkpoints: Sequence[Checkpoint], most: int) -> list[Checkpoint]:
    """So many checkpoints of a run, evenly in their order, first and last among them."""
    at = np.unique(np.linspace(0, len(checkpoints) - 1, most).round().astype(int))
    return [checkpoints[i] for i in at]
