"""From cells to values per size and seed: means over layers, roles and heads; what to compare.

A replicate has a value at a place only where it has every row of that place: a mean
over other layers than those of its neighbours would be another quantity. Locations that are refused
in every model are no part of the place. All sums are exact, so that the order of rows changes
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Group, in_order
from scaleinv_ray.conclude.aggregation.completeness import Cell, Whole, whole_of
from scaleinv_ray.conclude.aggregation.matched_checkpoints import (
    NO_STEP,
    Choice,
    Pick,
    Replicate,
    step_or_none,
)


class Value(NamedTuple):
    """The quantity in one replicate, averaged over the rows of a place.

    Attributes:
        value: mean over rows.
        stderr: its error; None where one is unknown. Rows of a probe share their sequences: their
            errors are averaged, an upper bound. Those of weights are independent.
        deviations: what each block of sequences adds to the error (`Whole.deviations`), None where
            that is not known.
    """

    value: float
    stderr: float | None
    deviations: np.ndarray | None = None


class Null(NamedTuple):
    """A null model beside the trained ones: where it was measured, its value or why it has none."""

    step: int
    value: Value | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Values to be judged together.

    Attributes:
        name: equal_steps, equal_tokens, equal_loss or final.
        answers_for: comparisons that this one stands for, having no choice of their own.
        step: the step where it is one for all, else None.
        impossible: why it cannot be made, empty where it can.
        notes: what else has to be said of it.
        trained: values of the trained models.
        refused: trained replicates that lack a row of the place, with the reason.
        beside: variant -> the null models of every size.
        nulls: variant -> values of that null at the trained sizes.
        null_notes: what has to be said of the nulls.
    """

    name: str
    answers_for: tuple[str, ...]
    step: int | None
    impossible: str
    notes: list[str]
    trained: dict[Replicate, Value]
    refused: dict[Replicate, str]
    beside: dict[str, dict[Replicate, Null]]
    nulls: dict[str, dict[Replicate, Value]]
    null_notes: list[str]

    @property
    def is_main(self) -> bool:
        """Whether it compares at equal steps, or at the last ones where no step is common."""
        return "equal_steps" in (self.name, *self.answers_for)

    def is_among(self, wanted: Collection[str]) -> bool:
        """Whether one of the comparisons wanted is this one, or is answered by it."""
        return not {self.name, *self.answers_for}.isdisjoint(wanted)


def comparisons(group: Group) -> list[Comparison]:
    """The values at one place under the choices of its series.

    Nulls are those of the step judged of their model where they were measured there, else the
    latest, and cover the same locations as the trained models.

    Args:
        group: what was measured at one place.

    Returns:
        The comparisons, those without values included; none without a trained model.
    """
    if group.compared is None:
        has_trained = TRAINED in group.cells
        group.compared = [_compare(group, of) for of in group.choices] if has_trained else []
    found: list[Comparison] = group.compared
    return found


def at_every_step(group: Group) -> Iterator[tuple[Choice, Comparison]]:
    """The comparisons of the series, and beside the judged step the models at every other one.

    Args:
        group: what was measured at one place.

    Yields:
        Choice and comparison. Each null model stands in one of those at equal steps: that of its
        own step, or the judged one where it has none there.
    """
    judged = comparisons(group)
    yield from zip(group.choices, judged, strict=False)
    taken = {
        (variant, replicate, null.step)
        for comparison in judged
        if comparison.name == "equal_steps"
        for variant, nulls in comparison.beside.items()
        for replicate, null in nulls.items()
    }
    done = {c.step for c in group.choices if judged and c.name == "equal_steps"}
    every = {step for cells in group.cells.values() for of in cells.values() for step in of}
    trained = group.cells.get(TRAINED, {})
    for step in sorted(every - done):
        picks: dict[Replicate, Pick] = {
            r: ((step, 1.0),) for r, of in trained.items() if step in of
        }
        choice = Choice("equal_steps", step, "", picks)
        yield choice, _compare(group, choice, without=taken)


def whole_over_training(group: Group) -> Whole:
    """What every checkpoint of every trained run has to have, to be set beside the others."""
    trained = group.cells.get(TRAINED, {})
    return whole_of((r.build, cell) for r, steps in trained.items() for cell in steps.values())


def _compare(
    group: Group, choice: Choice, *, without: Collection[tuple[str, Replicate, int]] | None = None
) -> Comparison:
    trained = group.cells.get(TRAINED, {})
    picked = {
        replicate: [trained[replicate][step] for step, _ in pick]
        for replicate, pick in choice.picks.items()
        if all(step in trained.get(replicate, {}) for step, _ in pick)
    }
    whole = whole_of((r.build, cell) for r, cells in picked.items() for cell in cells)
    independent = group.place.probe is None
    values: dict[Replicate, Value] = {}
    refused: dict[Replicate, str] = {}
    for replicate in in_order(picked):
        cells = picked[replicate]
        errors = [error for cell in cells for error in whole.lacking(replicate.build, cell)]
        if errors:
            refused[replicate] = Counter(errors).most_common(1)[0][0]
        else:
            values[replicate] = _value(
                whole, replicate, cells, choice.picks[replicate], independent
            )
    beside = _beside(group, choice, whole, without)
    nulls, null_notes = _nulls(beside, values, choice)
    missing = in_order(r for r in choice.picks if r not in picked)
    return Comparison(
        name=choice.name,
        answers_for=choice.answers_for,
        step=step_or_none(choice.step),
        impossible="" if choice.picks else choice.note,
        notes=_notes(choice, refused, missing, whole),
        trained=values,
        refused=refused,
        beside=beside,
        nulls=nulls,
        null_notes=null_notes,
    )


def _notes(
    choice: Choice, refused: Mapping[Replicate, str], missing: list[Replicate], whole: Whole
) -> list[str]:
    said = [choice.note] if choice.picks and choice.note else []
    if refused:
        lost = f"{len(refused)} of {len(choice.picks)} models dropped"
        said.append(f"{lost}: {_commonest(refused.values())}")
    if missing:
        said.append(f"not measured here: {', '.join(_with_seed(r) for r in missing)}")
    if whole.left_out and len(refused) < len(choice.picks):
        said.append(f"without {whole.left_out}")
    return said


def _with_seed(replicate: Replicate) -> str:
    seed = "" if replicate.seed is None else f" (seed {replicate.seed})"
    return f"{replicate.model}{seed}"


def _value(
    whole: Whole, replicate: Replicate, cells: list[Cell], pick: Pick, independent: bool
) -> Value:
    found = [whole.mean(replicate.build, cell, independent=independent) for cell in cells]
    shares = [share for _, share in pick]
    errors = [s * e for s, (_, e) in zip(shares, found, strict=True) if e is not None]
    stderr = None
    if len(errors) == len(found):
        stderr = math.hypot(*errors) if independent else math.fsum(errors)
    value = math.fsum(s * v for s, (v, _) in zip(shares, found, strict=True))
    away = [whole.deviations(replicate.build, cell) for cell in cells]
    known = [s * d for s, d in zip(shares, away, strict=True) if d is not None]
    alike = len(known) == len(cells) and len({len(d) for d in known}) == 1
    deviations: np.ndarray | None = np.sum(known, axis=0) if alike else None
    return Value(value, stderr, deviations)


def _beside(
    group: Group,
    choice: Choice,
    whole: Whole,
    without: Collection[tuple[str, Replicate, int]] | None,
) -> dict[str, dict[Replicate, Null]]:
    """Of every null its models at the step, or at their last one where that is not left out."""
    found: dict[str, dict[Replicate, Null]] = {}
    for variant in sorted(set(group.cells) - {TRAINED}):
        cells: dict[Replicate, tuple[int, Cell]] = {}
        for replicate, steps in group.cells[variant].items():
            step = choice.step_of(replicate)
            if step is None or step not in steps:
                step = max(steps) if without is None else None
            if step is not None and (variant, replicate, step) not in (without or ()):
                cells[replicate] = step, steps[step]
        # of sizes that no trained model has here, the nulls alone say what is whole
        alone = whole_of((r.build, c) for r, (_, c) in cells.items() if not whole.rows.get(r.build))
        found[variant] = {
            replicate: _null(
                whole if whole.rows.get(replicate.build) else alone,
                replicate,
                *at,
                independent=group.place.probe is None,
            )
            for replicate, at in cells.items()
        }
    return found


def _null(whole: Whole, replicate: Replicate, step: int, cell: Cell, *, independent: bool) -> Null:
    if lacking := whole.lacking(replicate.build, cell):
        return Null(step, None, _commonest(lacking))
    return Null(step, Value(*whole.mean(replicate.build, cell, independent=independent)), "")


def _nulls(
    beside: Mapping[str, Mapping[Replicate, Null]],
    trained: Mapping[Replicate, Value],
    choice: Choice,
) -> tuple[dict[str, dict[Replicate, Value]], list[str]]:
    """Of every null the values at the trained sizes, and what is not as it should be."""
    sizes = {replicate.n_params for replicate in trained}
    nulls: dict[str, dict[Replicate, Value]] = {}
    said: list[str] = []
    elsewhere: set[int] = set()
    for variant, models in beside.items() if trained else ():
        values: dict[Replicate, Value] = {}
        for replicate, null in models.items():
            if replicate.n_params in sizes and null.value is not None:
                values[replicate] = null.value
                elsewhere |= {null.step} - {choice.step_of(replicate)}
        nulls[variant] = values
        absent = sorted(sizes - {replicate.n_params for replicate in values})
        if absent:
            said.append(f"{variant}: missing at sizes {', '.join(f'{n:,}' for n in absent)}")
    if elsewhere:
        steps_text = ", ".join("none" if s == NO_STEP else str(s) for s in sorted(elsewhere))
        said.insert(0, f"nulls at step {steps_text}")
    return nulls, said


def _commonest(reasons: Iterable[str]) -> str:
    return Counter(sorted(reasons)).most_common(1)[0][0]
