"""The values at every place as rows, made column by column.

Shape suffix: R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Group, gather
from scaleinv_ray.conclude.aggregation.matched_checkpoints import Choice, Replicate, step_or_none
from scaleinv_ray.conclude.aggregation.places import AtPlace, Place
from scaleinv_ray.conclude.aggregation.rows import Column, Rows
from scaleinv_ray.conclude.aggregation.values import (
    Comparison,
    Value,
    at_every_step,
    whole_over_training,
)


class ValueRow(AtPlace):
    """What is judged: each replicate at a place, its value or the reason why it does not count.

    A role is the site of weights.
    """

    law: Annotated[str, "what was claimed in advance"]
    comparison: Annotated[str, "beside which others it may be set (equal steps: all of its step)"]
    variant: str
    n_params: int | None
    model: str
    seed: int | None
    n_layers: Annotated[int | None, "layers of the model"]
    architecture: Annotated[str | None, "architecture of the model"]
    step: Annotated[int | None, "training step; none between two checkpoints"]
    value: float | None
    stderr: float | None
    counted: Annotated[bool, "whether it counts"]
    over_training: Annotated[bool | None, "whether it counts beside the other steps of its run"]
    reason: Annotated[str | None, "why it does not count"]


class _Unit(NamedTuple):
    """A replicate in a comparison, trained or a null."""

    comparison: str
    variant: str
    replicate: Replicate


class _Standing(NamedTuple):
    """Where a replicate stands at a place: its value, or why it does not count."""

    unit: _Unit
    step: int | None
    value: Value | None
    over_training: bool | None
    reason: str | None


def value_rows(measurements: Iterable[Mapping[str, Any]]) -> Rows:
    """The value of every replicate at every place, or the reason why it does not count there.

    What is judged are these values. Those of one comparison are over the same layers, roles and
    heads, so that they may be set beside each other: at equal steps all models of a step (the
    judged one is one of them), at equal tokens and equal loss, and at the last checkpoints, those
    that the verdict compares.

    Args:
        measurements: with the columns of `tables.MEASUREMENTS`.

    Returns:
        Rows with the columns of `ValueRow`.
    """
    table = Rows.of(measurements)
    laws = {of[:2]: of[2] for of in table.distinct(("invariant", "quantity", "law"))[1]}
    groups = gather(table)
    units: dict[_Unit, int] = {}
    lists: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
    place_R, unit_R, steps, values, stderrs, followed, reasons = lists
    for at, group in enumerate(groups):
        for of in _standings(group):
            place_R.append(at)
            unit_R.append(units.setdefault(of.unit, len(units)))
            steps.append(of.step)
            values.append(None if of.value is None else of.value.value)
            stderrs.append(None if of.value is None else of.value.stderr)
            followed.append(of.over_training)
            reasons.append(of.reason)
    law = [laws[group.place.invariant, group.place.quantity] for group in groups]
    every = np.arange(len(values))
    return Rows(
        _taken(place_R, Place._fields, [group.place for group in groups])
        | _taken(place_R, ("law",), [(of,) for of in law])
        | _taken(unit_R, _Unit._fields[:2], list(units))
        | _taken(unit_R, Replicate._fields, [unit.replicate for unit in units])
        | {
            "step": Column.of(steps),
            "value": Column(every, values),
            "stderr": Column(every, stderrs),
            "counted": Column.of([value is not None for value in values]),
            "over_training": Column.of(followed),
            "reason": Column.of(reasons),
        }
    )


def _taken(
    at_R: Sequence[int], names: Sequence[str], of: Sequence[tuple[Any, ...]]
) -> dict[str, Column]:
    """Columns of what rows share, by its place."""
    at = np.array(at_R, dtype=np.int64)
    columns = [Column.of([shared[i] for shared in of]) for i in range(len(names))]
    return {
        name: Column(column.place_R[at], column.values)
        for name, column in zip(names, columns, strict=True)
    }


def _standings(group: Group) -> Iterator[_Standing]:
    whole = whole_over_training(group)
    trained = group.cells.get(TRAINED, {})
    for choice, comparison in at_every_step(group):
        at_steps = comparison.name == "equal_steps"
        for replicate, value in comparison.trained.items():
            step = choice.step_of(replicate)
            followed = None
            if at_steps and step is not None:
                followed = not whole.lacking(replicate.build, trained[replicate][step])
            unit = _Unit(comparison.name, TRAINED, replicate)
            yield _Standing(unit, step_or_none(step), value, followed, None)
        yield from _lost(choice, comparison)
        for variant, nulls in comparison.beside.items():
            for replicate, null in nulls.items():
                unit = _Unit(comparison.name, variant, replicate)
                yield _Standing(
                    unit, step_or_none(null.step), null.value, None, null.reason or None
                )


def _lost(choice: Choice, comparison: Comparison) -> Iterator[_Standing]:
    at_steps = comparison.name == "equal_steps"
    for replicate, reason in comparison.refused.items():
        unit = _Unit(comparison.name, TRAINED, replicate)
        step = step_or_none(choice.step_of(replicate))
        yield _Standing(unit, step, None, False if at_steps else None, reason)
