"""From rows to values per size and seed: means over layers, roles and heads; what to compare.

A place is one (series, probe, family, invariant, quantity, site, depth bin). A replicate is one
(model, seed). A replicate has a value at a place only where it has every row of that place: a mean
over other layers than those of its neighbours would be another quantity. Locations that are refused
in every model are no part of the place. All sums are exact, so that the order of rows changes
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scaleinv_ray.conservation.choice import (
    NO_STEP,
    Checkpoint,
    Choice,
    Pick,
    Replicate,
    choices,
)
from scaleinv_ray.conservation.whole import Cell, Found, Location, Whole, whole_of

THIRD = 1 / 3 + 1e-9
TWO_THIRDS = 2 / 3 + 1e-9
TRAINED = "trained"


class Place(NamedTuple):
    """What is judged: the key columns of a verdict before step and comparison."""

    series: str
    probe: str | None
    family: str
    invariant: str
    quantity: str
    site: str | None
    depth_bin: str


class Value(NamedTuple):
    """The quantity in one replicate, averaged over the rows of a place.

    Attributes:
        value: mean over rows.
        stderr: its error; None where one is unknown. Rows of a probe share their sequences: their
            errors are averaged, an upper bound. Those of weights are independent.
    """

    value: float
    stderr: float | None


Cells = dict[Replicate, dict[int, Cell]]
"""Replicate -> step -> rows."""


@dataclass
class Group:
    """Everything measured at one place.

    Attributes:
        place: the place.
        cells: variant -> replicate -> step -> rows.
        choices: the comparisons of its series.
    """

    place: Place
    cells: dict[str, Cells] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    def cell(self, variant: str, replicate: Replicate, step: int) -> Cell:
        """The rows of one unit, none at first."""
        steps = self.cells.setdefault(variant, {}).setdefault(replicate, {})
        return steps.setdefault(step, Cell())


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


def depth_bin_of(depth: float | None) -> str | None:
    """Third of the depth: early up to 1/3, middle up to 2/3, late; None without a depth.

    Args:
        depth: relative depth, 0 to 1.

    Returns:
        Name of the third.

    >>> [depth_bin_of(d) for d in (0.0, 1 / 3, 0.5, 2 / 3, 1.0, None)]
    ['early', 'early', 'middle', 'middle', 'late', None]
    """
    if depth is None:
        return None
    return "early" if depth <= THIRD else "middle" if depth <= TWO_THIRDS else "late"


def gather(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Rows of measurements to cells per place, variant, replicate and step, in one pass.

    Rows that compare two units are left out, and so are quantities that the configuration excludes
    (refused everywhere with '<quantity>: needs ..'). A row without a site (a weight) counts under
    its role as site, and, inside a block, under `all` with all roles together. Every row counts in
    depth bin `all`, and in the third in which its depth lies. A row without a place (a record that
    could not be made) counts against its unit at all places of that quantity.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`.

    Returns:
        The groups, sorted by place.

    Raises:
        ValueError: where one place mixes protocols, versions of the invariant or parameters: these
            numbers are not comparable.
    """
    groups: dict[Place, Group] = {}
    checkpoints: dict[str, dict[Replicate, dict[int, Checkpoint]]] = {}
    # rows differ in few combinations of the columns that decide where they count
    counted_in: dict[tuple[Any, ...], list[Group]] = {}
    basis: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        if row["unit_b"] is not None:
            continue
        _check_basis(basis, row)
        step = NO_STEP if row["step"] is None else row["step"]
        replicate = Replicate(*[row[name] for name in Replicate._fields])
        if row["variant"] == TRAINED:
            at = checkpoints.setdefault(row["series"], {}).setdefault(replicate, {})
            at[step] = _completed(at.get(step), row)
        where = tuple([row[name] for name in _WHERE])
        if where not in counted_in:
            counted_in[where] = [groups.setdefault(p, Group(p)) for p in places_of(row)]
        location, found = Location(*[row[name] for name in Location._fields]), _found(row)
        for group in counted_in[where]:
            group.cell(row["variant"], replicate, step).add(location, found)
    chosen = {series: choices(models) for series, models in checkpoints.items()}
    kept = _planned(_spread(list(groups.values())))
    for group in kept:
        group.choices = chosen.get(group.place.series, [])
    return sorted(kept, key=lambda group: _sortable(group.place))


_WHERE = ("series", "probe", "family", "invariant", "quantity", "site", "layer", "role", "depth")


def _completed(known: Checkpoint | None, row: Mapping[str, Any]) -> Checkpoint:
    tokens, loss, tokenizer = (None, None, None) if known is None else known
    return Checkpoint(
        row["train_tokens"] if tokens is None else tokens,
        row["eval_loss"] if loss is None else loss,
        row.get("tokenizer") if tokenizer is None else tokenizer,
    )


def _found(row: Mapping[str, Any]) -> Found:
    ok = row["status"] == "ok" and row["value"] is not None
    return Found(row["value"] if ok else None, row["stderr"], row["error"] or row["status"])


def _check_basis(basis: dict[tuple[Any, ...], tuple[Any, ...]], row: Mapping[str, Any]) -> None:
    what = (row["series"], row["probe"], row["invariant"], row["quantity"])
    have = (row["protocol"], row["version"], row["params"])
    first = basis.setdefault(what, have)
    if first != have:
        names = ("protocol", "version", "params")
        at = next(i for i in range(3) if first[i] != have[i])
        raise ValueError(
            f"{names[at]}: got {have[at]!r} beside {first[at]!r} for {row['invariant']} "
            f"{row['quantity']}, allowed one throughout"
        )


def places_of(row: Mapping[str, Any]) -> Iterator[Place]:
    """The places at which a row counts: under its site or role, at all depths and in its third."""
    site, role = row["site"], row["role"]
    sites = [site]
    if site is None and role is not None:
        # an embedding is not one of the roles of a block
        sites = [role] if row["layer"] is None else [role, "all"]
    third = depth_bin_of(row["depth"])
    bins = ["all"] if third is None else ["all", third]
    what = (row["series"], row["probe"], row["family"], row["invariant"], row["quantity"])
    for name in sites:
        for depth_bin in bins:
            yield Place(*what, name, depth_bin)


def _spread(groups: list[Group]) -> list[Group]:
    """Counts failures without a place at all places of their quantity."""
    by_quantity: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        by_quantity.setdefault(group.place[:5], []).append(group)
    kept = []
    for mine in by_quantity.values():
        placed = [g for g in mine if g.place.site is not None or _has_values(g)]
        kept += placed or mine
        for group in mine:
            if not placed or group in placed:
                continue
            for variant, replicate, step, cell in _all_cells(group):
                for other in placed:
                    other.cell(variant, replicate, step).lost = cell.errors()[0]
    return kept


def _planned(groups: list[Group]) -> list[Group]:
    """Without the quantities that no variant can have under this configuration."""
    measured = {g.place[:5] for g in groups if _has_values(g)}
    excluded = {
        g.place[:5]
        for g in groups
        for *_, cell in _all_cells(g)
        if g.place[:5] not in measured
        and any(error.startswith(f"{g.place.quantity}: needs") for error in cell.errors())
    }
    return [g for g in groups if g.place[:5] not in excluded]


def _all_cells(group: Group) -> Iterator[tuple[str, Replicate, int, Cell]]:
    for variant, cells in group.cells.items():
        for replicate, steps in cells.items():
            for step, cell in steps.items():
                yield variant, replicate, step, cell


def _has_values(group: Group) -> bool:
    return any(cell.has_values() for *_, cell in _all_cells(group))


def _sortable(parts: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    return tuple((part is not None, "" if part is None else part) for part in parts)


def in_order(values: Iterable[Replicate]) -> list[Replicate]:
    """Replicates by size, model and seed."""
    return sorted(values, key=_sortable)


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
