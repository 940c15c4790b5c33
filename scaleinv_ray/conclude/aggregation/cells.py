"""From rows to cells: everything measured at one place, by variant, replicate and step.

A replicate is one (model, seed).

Shape suffixes: R rows, E entries (a row counts at several places).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from scaleinv_ray.conclude.aggregation.completeness import Cell, Location, Sorted
from scaleinv_ray.conclude.aggregation.matched_checkpoints import (
    NO_STEP,
    Choice,
    Replicate,
    StepOfRun,
    choices,
)
from scaleinv_ray.conclude.aggregation.places import Place, places_of
from scaleinv_ray.conclude.aggregation.rows import Rows

TRAINED = "trained"
T = TypeVar("T")


Cells = dict[Replicate, dict[int, Cell]]
"""Replicate -> step -> rows."""


@dataclass
class Group:
    """Everything measured at one place.

    Attributes:
        place: the place.
        cells: variant -> replicate -> step -> rows.
        choices: the comparisons of its series.
        compared: what `values.comparisons` made of them: several tables ask for it.
    """

    place: Place
    cells: dict[str, Cells] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    compared: Any = None

    def lose(self, variant: str, replicate: Replicate, step: int, lost: Cell) -> None:
        """Notes that a unit has no rows here because of a failure without a place."""
        steps = self.cells.setdefault(variant, {}).setdefault(replicate, {})
        steps.setdefault(step, Cell(lost.source)).lost = lost.errors()[0]


def gather(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Rows of measurements to cells per place, variant, replicate and step.

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
    table = Rows.of(rows)
    if table.gathered is None:
        table.gathered = _gathered(table)
    found: list[Group] = table.gathered
    return found


def _gathered(rows: Rows) -> list[Group]:
    table = rows.where(~rows.known("unit_b"))
    if not len(table):
        return []
    _check_basis(table)
    placed = _placed(table)
    chosen = {series: choices(models) for series, models in _checkpoints(table).items()}
    kept = _planned(_spread(placed))
    for group in kept:
        group.choices = chosen.get(group.place.series, [])
    return sorted(kept, key=lambda group: _sortable(group.place))


_WHERE = ("series", "probe", "family", "invariant", "quantity", "site", "layer", "role", "depth")
_UNIT = ("variant", *Replicate._fields, "step")


def _placed(table: Rows) -> list[Group]:
    """The groups with their cells: entries (a row at a place) sorted by place, unit, location."""
    where_R, wheres = table.distinct(_WHERE)
    unit_R, units = table.distinct(_UNIT)
    location_R, locations = table.distinct(Location._fields)
    groups: dict[Place, int] = {}
    # rows differ in few combinations of the columns that decide where they count
    places = [
        (at, groups.setdefault(place, len(groups)))
        for at, where in enumerate(wheres)
        for place in places_of(dict(zip(_WHERE, where, strict=True)))
    ]
    rows = pd.DataFrame({"where": where_R, "unit": unit_R, "location": location_R})
    entries = rows.reset_index(names="row").merge(pd.DataFrame(places, columns=["where", "place"]))
    entries = entries.sort_values(["place", "unit", "location", "row"])
    source = _source(table, locations, entries["location"].to_numpy(), entries["row"].to_numpy())
    made = [Group(place) for place in groups]
    named = [(u[0], Replicate(*u[1:-1]), NO_STEP if u[-1] is None else u[-1]) for u in units]
    start = 0
    for (place, unit), size in entries.groupby(["place", "unit"]).size().items():
        variant, replicate, step = named[unit]
        steps = made[place].cells.setdefault(variant, {}).setdefault(replicate, {})
        steps[step] = source.cell(start, start + size)
        start += size
    return made


def _source(
    table: Rows, locations: list[tuple[Any, ...]], location_E: np.ndarray, row_E: np.ndarray
) -> Sorted:
    columns = table.columns
    value, stderr, error, status = (columns[n] for n in ("value", "stderr", "error", "status"))

    def reason_of(row: int) -> str:
        said: str = error.values[error.place_R[row]] or status.values[status.place_R[row]]
        return said

    samples = columns.get("samples")

    def samples_of(row: int) -> np.ndarray | None:
        found = samples and samples.values[samples.place_R[row]]
        return None if found is None else np.asarray(found, dtype=np.float64)

    return Sorted(
        locations=[Location(*at) for at in locations],
        location_E=location_E,
        row_E=row_E,
        value_R=value.float_R,
        stderr_R=stderr.float_R,
        has_value_R=table.known("value") & table.equal(status="ok"),
        has_stderr_R=table.known("stderr"),
        reason_of=reason_of,
        samples_of=samples_of,
    )


def _checkpoints(table: Rows) -> dict[str, dict[Replicate, dict[int, StepOfRun]]]:
    """Series -> trained replicate -> step -> the first facts of it that its rows give."""
    trained = table.where(table.equal(variant=TRAINED))
    of_unit = ("series", *Replicate._fields, "step")
    facts = [name for name in StepOfRun._fields if name in table.columns]
    found: dict[str, dict[Replicate, dict[int, StepOfRun]]] = {}
    for combination in trained.distinct((*of_unit, *facts))[1]:
        series, *replicate, step = combination[: len(of_unit)]
        steps = found.setdefault(series, {}).setdefault(Replicate(*replicate), {})
        at = NO_STEP if step is None else step
        known = steps.get(at, StepOfRun(None, None))
        said = dict(zip(facts, combination[len(of_unit) :], strict=True))
        steps[at] = known._replace(**{n: v for n, v in said.items() if getattr(known, n) is None})
    return found


def _check_basis(table: Rows) -> None:
    what, have = ("series", "probe", "invariant", "quantity"), ("protocol", "version", "params")
    basis: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for found in table.distinct((*what, *have))[1]:
        first, mine = basis.setdefault(found[:4], found[4:]), found[4:]
        if first != mine:
            at = next(i for i in range(3) if first[i] != mine[i])
            raise ValueError(
                f"{have[at]}: got {mine[at]!r} beside {first[at]!r} for {found[2]} "
                f"{found[3]}, allowed one throughout"
            )


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
                    other.lose(variant, replicate, step, cell)
    return kept


def _planned(groups: list[Group]) -> list[Group]:
    """Without the quantities that no variant can have under this configuration."""
    measured = {g.place[:5] for g in groups if _has_values(g)}
    excluded = {
        g.place[:5]
        for g in groups
        if g.place[:5] not in measured
        for *_, cell in _all_cells(g)
        if any(error.startswith(f"{g.place.quantity}: needs") for error in cell.errors())
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


def by_size(values: Mapping[Replicate, T]) -> dict[int, list[T]]:
    """What replicates have, size by size, in order."""
    found: dict[int, list[T]] = {}
    for replicate in in_order(values):
        found.setdefault(replicate.n_params, []).append(values[replicate])
    return found
