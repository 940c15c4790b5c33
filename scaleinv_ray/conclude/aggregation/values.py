"""From cells to values per size and seed: means over layers, roles and heads; what to compare.

A replicate has a value at a place only where it has every row of that place: a mean
over other layers than those of its neighbours would be another quantity. Locations that are refused
in every model are no part of the place. All sums are exact, so that the order of rows changes
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Cells, Group, in_order
from scaleinv_ray.conclude.aggregation.completeness import Cell, Whole, whole_of
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, Choice, Pick, Replicate


class Value(NamedTuple):
    """The quantity in one replicate, averaged over the rows of a place.

    Attributes:
        value: mean over rows.
        stderr: its error; None where one is unknown. Rows of a probe share their sequences: their
            errors are averaged, an upper bound. Those of weights are independent.
    """

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Comparison:
    """Values to be judged together.

    Attributes:
        name: equal_steps, equal_tokens or equal_loss.
        step: the step where it is one for all, else None.
        impossible: why it cannot be made, empty where it can.
        notes: what else has to be said of it.
        trained: values of the trained models.
        refused: trained replicates that lack a row of the place, with the reason.
        nulls: variant -> values of that null.
        null_notes: what has to be said of the nulls.
    """

    name: str
    step: int | None
    impossible: str
    notes: list[str]
    trained: dict[Replicate, Value]
    refused: dict[Replicate, str]
    nulls: dict[str, dict[Replicate, Value]]
    null_notes: list[str]


def comparisons(group: Group) -> list[Comparison]:
    """The values at one place under the choices of its series.

    Nulls are those of the judged step where they were measured there, else the latest, and cover
    the same locations as the trained models.

    Args:
        group: what was measured at one place.

    Returns:
        The comparisons, those without values included; none without a trained model.
    """
    trained = group.cells.get(TRAINED)
    return [_compare(group, trained, choice) for choice in group.choices] if trained else []


def _compare(group: Group, trained: Cells, choice: Choice) -> Comparison:
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
    nulls, null_notes = _nulls(group, values, choice, whole)
    missing = in_order(r for r in choice.picks if r not in picked)
    return Comparison(
        name=choice.name,
        step=None if choice.step == NO_STEP else choice.step,
        impossible="" if choice.picks else choice.note,
        notes=_notes(choice, refused, missing, whole),
        trained=values,
        refused=refused,
        nulls=nulls,
        null_notes=null_notes,
    )


def _notes(
    choice: Choice, refused: Mapping[Replicate, str], missing: list[Replicate], whole: Whole
) -> list[str]:
    said = [choice.note] if choice.picks and choice.note else []
    if refused:
        commonest = Counter(sorted(refused.values())).most_common(1)[0][0]
        said.append(f"{len(refused)} of {len(choice.picks)} models dropped: {commonest}")
    if missing:
        said.append(f"not measured here: {', '.join(_named(r) for r in missing)}")
    if whole.left_out and len(refused) < len(choice.picks):
        said.append(f"without {whole.left_out}")
    return said


def _named(replicate: Replicate) -> str:
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
    return Value(value, stderr)


def _nulls(
    group: Group, trained: Mapping[Replicate, Value], choice: Choice, whole: Whole
) -> tuple[dict[str, dict[Replicate, Value]], list[str]]:
    """Of every null the values at the trained sizes, and what is not as it should be."""
    sizes = {replicate.n_params for replicate in trained}
    independent = group.place.probe is None
    nulls: dict[str, dict[Replicate, Value]] = {}
    said: list[str] = []
    elsewhere: set[int] = set()
    for variant in sorted(set(group.cells) - {TRAINED}) if trained else ():
        values: dict[Replicate, Value] = {}
        for replicate, steps in group.cells[variant].items():
            step = choice.step if choice.step in steps else max(steps)
            if replicate.n_params in sizes and not whole.lacking(replicate.build, steps[step]):
                pick = ((step, 1.0),)
                values[replicate] = _value(whole, replicate, [steps[step]], pick, independent)
                elsewhere |= {step} - {choice.step}
        nulls[variant] = values
        absent = sorted(sizes - {replicate.n_params for replicate in values})
        if absent:
            said.append(f"{variant}: missing at sizes {', '.join(f'{n:,}' for n in absent)}")
    if elsewhere:
        steps_text = ", ".join("none" if s == NO_STEP else str(s) for s in sorted(elsewhere))
        said.insert(0, f"nulls at step {steps_text}")
    return nulls, said
