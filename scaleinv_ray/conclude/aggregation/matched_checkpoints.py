"""Which checkpoints of a series are judged together, decided once for all its quantities.

A quantity that was refused at a checkpoint must not move the comparison to another one: what the
trained models have been measured at decides, whatever came of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

NO_STEP = -1
"""Stands for the step of a model that has none."""
NO_COMMON_STEP = "the trained models have no step in common: each at its last checkpoint"
COMPARISONS = ("equal_steps", "equal_tokens", "equal_loss", "final")


def step_or_none(step: int | None) -> int | None:
    """The step as rows have it: none instead of `NO_STEP`."""
    return None if step == NO_STEP else step


class Replicate(NamedTuple):
    """A model of one size and seed; models of one build have the same layers, roles and heads."""

    n_params: int
    model: str
    seed: int | None
    n_layers: int | None = None
    architecture: str | None = None

    @property
    def build(self) -> tuple[int, int | None, str | None]:
        """Size, number of layers, architecture."""
        return self.n_params, self.n_layers, self.architecture


class StepOfRun(NamedTuple):
    """A trained model at one step: tokens seen so far and held-out loss, None where unknown.

    Both count tokens of its tokenizer, None where that is not known.
    """

    train_tokens: int | None
    eval_loss: float | None
    tokenizer: str | None = None


Checkpoints = Mapping[Replicate, Mapping[int, StepOfRun]]
"""Replicate -> step -> checkpoint, of the trained models of one series."""
Pick = tuple[tuple[int, float], ...]
"""Steps of a replicate with their weights: one step, or two to interpolate between."""


@dataclass(frozen=True)
class Choice:
    """The checkpoints of one comparison.

    Attributes:
        name: one of COMPARISONS.
        step: the step where it is one for all, else None.
        note: what else has to be said of it.
        picks: the steps of every trained replicate; empty where the comparison cannot be made.
        answers_for: comparisons without a choice of their own: of the same checkpoints as this
            one, or that cannot be had.
    """

    name: str
    step: int | None
    note: str
    picks: Mapping[Replicate, Pick]
    answers_for: tuple[str, ...] = ()

    def step_of(self, replicate: Replicate) -> int | None:
        """The step of a replicate, None between two and where it has none here."""
        pick = self.picks.get(replicate, ())
        return pick[0][0] if len(pick) == 1 else self.step


def choices(checkpoints: Checkpoints) -> list[Choice]:
    """The trained models at equal steps or at their last ones, at equal tokens and at equal loss.

    equal_steps: the last step common to all. final: each model's last checkpoint, whatever its
    step; it stands in the place of equal_steps where no step is common to all, or the initial
    weights alone are. A choice of the same checkpoints as equal_steps is left out. equal_tokens:
    the last common number of training tokens. equal_loss: linear interpolation in held-out loss
    between the first two successive checkpoints that enclose the lowest level that all models
    reach; left out where a model has no such checkpoints (never extrapolated), and without picks,
    which it says, where the models have several tokenizers: nats a token are then no common
    measure.

    Args:
        checkpoints: of all trained models of a series.

    Returns:
        The choices; none without a trained model.

    >>> small, large = Replicate(10, "a", 0), Replicate(20, "b", 0)
    >>> unknown = StepOfRun(None, None)
    >>> longer = {3: unknown, 9: unknown}
    >>> at_steps, final = choices({small: {3: unknown, 5: unknown}, large: longer})
    >>> at_steps.name, at_steps.step, final.name, final.step_of(small), final.step_of(large)
    ('equal_steps', 3, 'final', 5, 9)
    >>> [final] = choices({small: {5: unknown}, large: {9: unknown}})
    >>> final.name, final.answers_for
    ('final', ('equal_steps',))
    """
    if not checkpoints:
        return []
    final, at_steps = _final(checkpoints), _at_equal_steps(checkpoints)
    if at_steps is None:
        main = replace(final, note=NO_COMMON_STEP, answers_for=("equal_steps",))
        others = [_at_equal_tokens(checkpoints), _at_equal_loss(checkpoints)]
        return [main, *(choice for choice in others if choice is not None)]
    others = [_at_equal_tokens(checkpoints), _at_equal_loss(checkpoints), final]
    found = [choice for choice in others if choice is not None]
    same = [c.name for c in found if c.name != "equal_loss" and c.picks == at_steps.picks]
    main = replace(at_steps, answers_for=tuple(same))
    return [main, *(choice for choice in found if choice.name not in same)]


def last_common_step(of_each: Collection[Collection[int]]) -> int | None:
    """The last step that all runs have.

    Args:
        of_each: the steps of every run.

    Returns:
        The step; None where there is none, or where it is 0 and the runs end elsewhere: initial
        weights alone say nothing of training.
    """
    step = max(set.intersection(*map(set, of_each)), default=None)
    ends = {max(steps) for steps in of_each}
    return None if step == 0 and len(ends) > 1 and min(ends) > 0 else step


def _at_equal_steps(checkpoints: Checkpoints) -> Choice | None:
    step = last_common_step(checkpoints.values())
    if step is None:
        return None
    return Choice("equal_steps", step, "", {r: ((step, 1.0),) for r in checkpoints})


def _final(checkpoints: Checkpoints) -> Choice:
    picks = {replicate: ((max(steps), 1.0),) for replicate, steps in checkpoints.items()}
    return Choice("final", None, "each model at its last checkpoint", picks)


def _at_equal_tokens(checkpoints: Checkpoints) -> Choice | None:
    step_at = {
        replicate: {c.train_tokens: s for s, c in sorted(steps.items())}
        for replicate, steps in checkpoints.items()
    }
    common = set.intersection(*(set(steps) for steps in step_at.values())) - {None, 0}
    tokens = max((t for t in common if t is not None), default=None)
    if tokens is None:
        return None
    steps = {found[tokens] for found in step_at.values()}
    picks = {replicate: ((found[tokens], 1.0),) for replicate, found in step_at.items()}
    step = steps.pop() if len(steps) == 1 else None
    several = _tokenizers(checkpoints)
    note = f"at {tokens} tokens" + (f" of {several} tokenizers" if several > 1 else "")
    return Choice("equal_tokens", step, note, picks)


def _at_equal_loss(checkpoints: Checkpoints) -> Choice | None:
    curves = {
        replicate: [(s, c.eval_loss) for s, c in sorted(steps.items()) if c.eval_loss is not None]
        for replicate, steps in checkpoints.items()
    }
    if not all(curves.values()):
        return None
    if (several := _tokenizers(checkpoints)) > 1:
        note = f"held-out losses are in nats a token of {several} tokenizers"
        return Choice("equal_loss", None, note, {})
    level = max(min(loss for _, loss in curve) for curve in curves.values())
    picks = {replicate: _enclosing(curve, level) for replicate, curve in curves.items()}
    reached = {replicate: pick for replicate, pick in picks.items() if pick is not None}
    if len(reached) < len(picks):
        return None
    return Choice("equal_loss", None, f"at held-out loss {level:.4g}", reached)


def _tokenizers(checkpoints: Checkpoints) -> int:
    """How many tokenizers are known of the models."""
    return len({c.tokenizer for steps in checkpoints.values() for c in steps.values()} - {None})


def _enclosing(curve: list[tuple[int, float]], level: float) -> Pick | None:
    for step, loss in curve:
        if loss == level:
            return ((step, 1.0),)
    for (before, above), (after, below) in zip(curve, curve[1:], strict=False):
        if above > level > below:
            share = (above - level) / (above - below)
            return ((before, 1 - share), (after, share))
    return None
