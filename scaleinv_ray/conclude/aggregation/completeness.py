"""Which rows make a place whole, the same in all models."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.matched_checkpoints import Replicate

CHOICES = re.compile(r"needs max_dimension|^probe: got|[:;] probe: got")
"""Reasons that say what the config did not ask for: no refusal of a number that was asked for."""
FAILURES = re.compile(r"^[A-Z]\w*(Error|Exception): ")
"""Reasons that are an error's: the number may be had when it is measured anew."""
Build = tuple[int, int | None, str | None]
"""Size, number of layers, architecture: models that agree in them have the same locations."""


class Location(NamedTuple):
    """Where in a model a row was measured; depth is relative, 0 to 1."""

    layer: int | None
    depth: float | None
    role: str | None
    head: int | None


class Found(NamedTuple):
    """What a row says: a value and its error, or no value and the reason."""

    value: float | None
    stderr: float | None
    error: str


@dataclass
class Sorted:
    """Rows by cell, and by location within a cell; a row counts at several places.

    Attributes:
        locations: all there are.
        location_E: of each entry its place among them.
        row_E: of each entry the row.
        value_R: value of each row, NaN where there is none.
        stderr_R: its standard error, NaN where it is unknown.
        has_value_R: whether a row has a value.
        has_stderr_R: whether its error is known.
        reason_of: says why a row has no value.
        samples_of: the replicates of a row, None where none are kept.
    """

    locations: list[Location]
    location_E: np.ndarray
    row_E: np.ndarray
    value_R: np.ndarray
    stderr_R: np.ndarray
    has_value_R: np.ndarray
    has_stderr_R: np.ndarray
    reason_of: Callable[[int], str]
    samples_of: Callable[[int], np.ndarray | None]
    _layouts: dict[bytes, bytes] = field(default_factory=dict)
    _counts: dict[bytes, dict[Location, int]] = field(default_factory=dict)

    def cell(self, start: int, stop: int) -> Cell:
        """The cell of some entries."""
        layout = self.location_E[start:stop].tobytes()
        return Cell(
            source=self,
            start=start,
            stop=stop,
            layout=self._layouts.setdefault(layout, layout),
            complete=bool(self.has_value_R[self.row_E[start:stop]].all()),
        )

    def found(self, row: int) -> Found:
        """What a row says."""
        if not self.has_value_R[row]:
            return Found(None, None, self.reason_of(row))
        stderr = float(self.stderr_R[row]) if self.has_stderr_R[row] else None
        return Found(float(self.value_R[row]), stderr, "")

    def counts(self, layout: bytes) -> dict[Location, int]:
        """Location -> rows there, of the locations of a cell."""
        if layout not in self._counts:
            at = np.frombuffer(layout, dtype=self.location_E.dtype).tolist()
            self._counts[layout] = Counter(self.locations[i] for i in at)
        return self._counts[layout]


@dataclass(slots=True)
class Cell:
    """The rows of one unit at one place.

    Attributes:
        source: where they stand.
        start: the first of them.
        stop: after the last.
        layout: the locations of the rows, as bytes: units of equal layout have equal locations.
        complete: whether every row has a value.
        lost: why the unit has no rows at all, where it has none.
    """

    source: Sorted
    start: int = 0
    stop: int = 0
    layout: bytes = b""
    complete: bool = True
    lost: str | None = None

    @property
    def row_E(self) -> np.ndarray:
        """Its rows."""
        return self.source.row_E[self.start : self.stop]

    @property
    def rows(self) -> dict[Location, list[Found]]:
        """Location -> what its rows say (a layer may have several matrices of a role)."""
        rows: dict[Location, list[Found]] = {}
        at = self.source.location_E[self.start : self.stop].tolist()
        for location, row in zip(at, self.row_E.tolist(), strict=True):
            rows.setdefault(self.source.locations[location], []).append(self.source.found(row))
        return rows

    def living(self) -> set[Location]:
        """Locations where a row has a value."""
        ok_E = self.source.has_value_R[self.row_E]
        at = self.source.location_E[self.start : self.stop][ok_E]
        return {self.source.locations[i] for i in at.tolist()}

    def has_values(self) -> bool:
        """Whether any row has a value."""
        return bool(self.source.has_value_R[self.row_E].any())

    def errors(self) -> list[str]:
        """Reasons of all rows without a value, sorted."""
        lost = [] if self.lost is None else [self.lost]
        without = self.row_E[~self.source.has_value_R[self.row_E]].tolist()
        return sorted(lost + [self.source.reason_of(row) for row in without])


@dataclass(frozen=True)
class Whole:
    """The locations that a place consists of.

    Attributes:
        rows: build -> location -> rows that a whole unit has there.
        left_out: in words, locations that are refused in every model; empty without any.
        layouts: build -> those that have exactly these rows.
    """

    rows: dict[Build, dict[Location, int]]
    left_out: str
    layouts: dict[Build, set[bytes]]

    def lacking(self, build: Build, cell: Cell) -> list[str]:
        """Why a unit has no value at the place, a reason for every location it lacks.

        Returns:
            The reasons, sorted; empty where the unit is whole.
        """
        if cell.complete and cell.layout in self.layouts.get(build, ()):
            return []
        wanted = self.rows.get(build)
        if not wanted:
            return cell.errors() or ["no row of this place"]
        said, rows = [], cell.rows
        for location, count in wanted.items():
            found = rows.get(location, [])
            said += [f.error for f in found if f.value is None]
            if len(found) < count:
                said.append(cell.lost or "a row of this place is missing")
        return sorted(said)

    def mean(self, build: Build, cell: Cell, *, independent: bool) -> tuple[float, float | None]:
        """Mean over the rows of a unit that lacks none, and its standard error.

        Args:
            independent: whether the errors of the rows are: sqrt(sum e^2) / n, else the mean of
                the errors, which bounds that of rows measured on the same sequences.

        Returns:
            Mean and standard error, None where one is unknown.
        """
        source, rows = cell.source, self._rows(build, cell)
        mean = math.fsum(source.value_R[rows].tolist()) / len(rows)
        if not source.has_stderr_R[rows].all():
            return mean, None
        errors = source.stderr_R[rows].tolist()
        total = math.sqrt(math.fsum(e * e for e in errors)) if independent else math.fsum(errors)
        return mean, total / len(rows)

    def deviations(self, build: Build, cell: Cell) -> np.ndarray | None:
        """What each block of sequences adds to the error of the mean over the rows of a unit.

        Args:
            cell: rows of a unit that lacks none.

        Returns:
            The samples about their mean, scaled so that their squares sum to that of the standard
            error, [blocks]; None where a row has no samples, or another number of them.
        """
        source, found = cell.source, []
        for row in self._rows(build, cell).tolist():
            samples = source.samples_of(row)
            if samples is None or not source.has_stderr_R[row]:
                return None
            away = samples - samples.mean()
            norm = float(np.linalg.norm(away))
            found.append(away * (float(source.stderr_R[row]) / norm) if norm > 0 else away)
        if len({len(away) for away in found}) != 1:
            return None
        deviations: np.ndarray = np.mean(found, axis=0)
        return deviations

    def _rows(self, build: Build, cell: Cell) -> np.ndarray:
        """Rows of a cell at the locations that count."""
        source, rows = cell.source, cell.row_E
        if cell.layout in self.layouts.get(build, ()):
            return rows
        kept = [at in self.rows[build] for at in source.locations]
        chosen: np.ndarray = rows[np.array(kept)[source.location_E[cell.start : cell.stop]]]
        return chosen


def whole_of(cells: Iterable[tuple[Build, Cell]]) -> Whole:
    """What the units of a comparison have to have in common.

    A location is left out where no unit has a value there, and at every other size none has one at
    the nearest depth of the same role (sizes differ in depth, and heads have no counterparts).

    Args:
        cells: build and rows of every trained unit compared.

    Returns:
        The locations.
    """
    layouts: dict[Build, dict[bytes, Sorted]] = {}
    alive: dict[Build, set[Location]] = {}
    whole: dict[Build, set[bytes]] = {}
    for build, cell in cells:
        layouts.setdefault(build, {})[cell.layout] = cell.source
        living = alive.setdefault(build, set())
        if cell.complete:
            whole.setdefault(build, set()).add(cell.layout)
        else:
            living |= cell.living()
    wanted: dict[Build, dict[Location, int]] = {}
    for build, of in layouts.items():
        wanted[build] = {}
        for layout, source in of.items():
            counts = source.counts(layout)
            for location, count in counts.items():
                wanted[build][location] = max(wanted[build].get(location, 0), count)
            if layout in whole.get(build, ()):
                alive[build] |= set(counts)
    dead = {build: set(counts) - alive[build] for build, counts in wanted.items()}
    nothing = dead == {build: set(counts) for build, counts in wanted.items()}
    left_out = (
        dead
        if nothing
        else {
            build: {
                location
                for location in locations
                if all(_dead_near(location, wanted[b], dead[b]) for b in wanted if b != build)
            }
            for build, locations in dead.items()
        }
    )
    kept = {
        build: {at: n for at, n in counts.items() if at not in left_out[build]}
        for build, counts in wanted.items()
    }
    same = {
        build: {at for at, source in of.items() if kept[build] == source.counts(at) != {}}
        for build, of in layouts.items()
    }
    return Whole(kept, _in_words(left_out), same)


def whole_replicates(found: Mapping[Replicate, Collection[Location]]) -> list[Replicate]:
    """Those that have every location that any of their build has: curves are there or not.

    Args:
        found: replicate -> its locations.
    """
    wanted: dict[Build, set[Location]] = defaultdict(set)
    for replicate, locations in found.items():
        wanted[replicate.build] |= set(locations)
    return [r for r, locations in found.items() if locations and set(locations) == wanted[r.build]]


def _dead_near(location: Location, there: Iterable[Location], dead: set[Location]) -> bool:
    same = [other for other in there if other.role == location.role]
    if not same:
        return True
    nearest = min(_apart(location, other) for other in same)
    # rounding: relative depths of equal layers may differ in the last digit
    return all(o in dead for o in same if _apart(location, o) <= nearest + 1e-9)


def _apart(one: Location, other: Location) -> float:
    if one.depth is None or other.depth is None:
        return 0.0 if one.layer == other.layer else 1.0
    return abs(one.depth - other.depth)


def _in_words(left_out: dict[Build, set[Location]]) -> str:
    depths = {at.depth for locations in left_out.values() for at in locations}
    if not depths:
        return ""
    known = sorted(depth for depth in depths if depth is not None)
    where = f"depth {', '.join(f'{depth:.2g}' for depth in known)}" if known else "some locations"
    return f"{where}, refused in every model"
