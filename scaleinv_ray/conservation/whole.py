"""Which rows make a place whole, the same in all models."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

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


@dataclass(slots=True)
class Cell:
    """The rows of one unit at one place.

    Attributes:
        rows: location -> rows (a layer may have several matrices of a role).
        lost: why the unit has no rows at all, where it has none.
    """

    rows: dict[Location, list[Found]] = field(default_factory=dict)
    lost: str | None = None

    def add(self, location: Location, found: Found) -> None:
        """Adds a row."""
        self.rows.setdefault(location, []).append(found)

    def has_values(self) -> bool:
        """Whether any row has a value."""
        return any(f.value is not None for found in self.rows.values() for f in found)

    def errors(self) -> list[str]:
        """Reasons of all rows without a value, sorted."""
        rows = [f for found in self.rows.values() for f in found]
        lost = [] if self.lost is None else [self.lost]
        return sorted(lost + [f.error for f in rows if f.value is None])


@dataclass(frozen=True)
class Whole:
    """The locations that a place consists of.

    Attributes:
        rows: build -> location -> rows that a whole unit has there.
        left_out: in words, locations that are refused in every model; empty without any.
    """

    rows: dict[Build, dict[Location, int]]
    left_out: str

    def lacking(self, build: Build, cell: Cell) -> list[str]:
        """Why a unit has no value at the place, a reason for every location it lacks.

        Args:
            build: of the unit.
            cell: its rows.

        Returns:
            The reasons, sorted; empty where the unit is whole.
        """
        wanted = self.rows.get(build)
        if not wanted:
            return cell.errors() or ["no row of this place"]
        said = []
        for location, count in wanted.items():
            found = cell.rows.get(location, [])
            said += [f.error for f in found if f.value is None]
            if len(found) < count:
                said.append(cell.lost or "a row of this place is missing")
        return sorted(said)

    def mean(self, build: Build, cell: Cell, *, independent: bool) -> tuple[float, float | None]:
        """Mean over the rows of a unit that lacks none, and its standard error.

        Args:
            build: of the unit.
            cell: its rows.
            independent: whether the errors of the rows are: sqrt(sum e^2) / n, else the mean of
                the errors, which bounds that of rows measured on the same sequences.

        Returns:
            Mean and standard error, None where one is unknown.
        """
        found = [f for location in self.rows[build] for f in cell.rows[location]]
        mean = math.fsum(f.value for f in found if f.value is not None) / len(found)
        errors = [f.stderr for f in found if f.stderr is not None]
        if len(errors) < len(found):
            return mean, None
        total = math.sqrt(math.fsum(e * e for e in errors)) if independent else math.fsum(errors)
        return mean, total / len(found)


def whole_of(cells: Iterable[tuple[Build, Cell]]) -> Whole:
    """What the units of a comparison have to have in common.

    A location is left out where no unit has a value there, and at every other size none has one at
    the nearest depth of the same role (sizes differ in depth, and heads have no counterparts).

    Args:
        cells: build and rows of every trained unit compared.

    Returns:
        The locations.
    """
    wanted: dict[Build, dict[Location, int]] = {}
    alive: dict[Build, set[Location]] = {}
    for build, cell in cells:
        counts = wanted.setdefault(build, {})
        living = alive.setdefault(build, set())
        for location, found in cell.rows.items():
            counts[location] = max(counts.get(location, 0), len(found))
            if any(f.value is not None for f in found):
                living.add(location)
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
    return Whole(kept, _in_words(left_out))


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
