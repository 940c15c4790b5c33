"""Stages of a run: when, what moved in the spectrum, what moved in behaviour, and by chance.

Intervals are in x = ln(1 + step). Shape suffix K: checkpoints.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import Place, gather
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP
from scaleinv_ray.conclude.aggregation.places import place_of
from scaleinv_ray.conclude.training.transitions import (
    ProgressKind,
    TransitionRow,
    run_values,
    scaled,
)
from scaleinv_ray.contract import Quantity

Quantities = Mapping[tuple[str, str], Quantity]
SPECTRAL = frozenset({"curvature", "bands", "degeneracy", "weights", "representation"})
"""Families whose quantities say how a spectrum moves."""
BEHAVIOUR = frozenset({"behaviour", "capabilities"})
"""Families whose quantities say how behaviour moves."""


class StageRow(TypedDict):
    """When, what moved in the spectrum, what moved in behaviour; changes as transitions are judged.

    A row is a stage of a run.
    """

    series: str
    model: str
    seed: int | None
    step_low: Annotated[float, "last checkpoint before the stage"]
    step_high: Annotated[float, "first checkpoint after it"]
    spectrum: Annotated[list[str], "what moved in the spectrum"]
    spectrum_change: Annotated[list[float], "by how much, of ln |value| or of the value"]
    behaviour: Annotated[list[str], "what moved in behaviour"]
    behaviour_change: Annotated[list[float], "by how much"]
    n_events: Annotated[int, "events of behaviour in the run"]
    n_coincident: Annotated[int, "of these, how many meet a change of the spectrum"]
    expected: Annotated[float, "how many would at random times"]
    p: Annotated[float | None, "of as many coincidences at random times"]
    p_series: Annotated[float | None, "the same over all runs of the series"]
    reason: str


class _Run(NamedTuple):
    series: str
    model: str
    seed: int | None


class Interval(NamedTuple):
    """Open interval of x = ln(1 + step)."""

    low: float
    high: float


class Chance(NamedTuple):
    """How many events would coincide with random times.

    Attributes:
        coincident: events that overlap an interval.
        expected: of those, at random times.
        p: probability of as many or more.
        share: probability of each event.
    """

    coincident: int
    expected: float
    p: float
    share: tuple[float, ...]


@dataclass(frozen=True)
class _Move:
    """A transition of one quantity in one run."""

    family: str
    name: str
    at: Interval
    step_low: float
    step_high: float
    change: float


def stages_table(
    transitions: Iterable[TransitionRow],
    rows: Iterable[Mapping[str, Any]],
    *,
    quantities: Quantities,
) -> list[StageRow]:
    """When what moved: transitions of spectra and of behaviour whose intervals overlap.

    A stage of a run is a maximal set of transitions whose 95 % intervals (last checkpoint before,
    first after) all overlap; it lasts where all do. The change of a quantity is that between the
    two checkpoints that enclose its transition, as the transitions are judged (of ln|value|, or in
    units). Behaviour transitions that overlap are one event, as they are not independent; an event
    coincides where it overlaps a transition of a spectrum. p: of as many coincidences or more if
    the times of the events were uniform in ln(1 + step) (`chance_of`); p_series the same over all
    runs of the series. Everything moves early in training: a small p says that they move at the
    same time, not that one moves the other (`emergence` compares runs for that).

    Args:
        transitions: of all runs; those of depth bin `all` are read.
        rows: with the columns of `tables.MEASUREMENTS`, from which they were found.
        quantities: what is claimed of every quantity, for the unit.

    Returns:
        Rows by run and time; stages in which one of the two is silent are kept.
    """
    claimed = [row for row in transitions if _is_read(row)]
    values = _values(rows, {place_of(row) for row in claimed}, quantities)
    moves: dict[_Run, list[_Move]] = defaultdict(list)
    spans: dict[_Run, set[float]] = defaultdict(set)
    for row in claimed:
        run = _Run(row["series"], row["model"], row["seed"])
        curve = values[place_of(row), run]
        moves[run].append(_move(row, curve))
        spans[run] |= set(curve)
    chances = {run: _chance(found, spans[run]) for run, found in moves.items()}
    out: list[StageRow] = []
    for run in sorted(moves, key=lambda run: str(tuple(run))):
        series = [chances[other] for other in moves if other.series == run.series]
        share = [p for one in series for p in one.share]
        p_series = tail_of(share, sum(one.coincident for one in series)) if share else None
        out += [_stage(run, stage, chances[run], p_series) for stage in cliques(moves[run])]
    return out


def chance_of(events: Sequence[Interval], intervals: Sequence[Interval], span: Interval) -> Chance:
    """How many events overlap the intervals, and how many would at random times.

    The start of an event of length l is uniform on the span less l; with the union of the
    intervals fixed, it overlaps with probability p_i, and the number of coincidences is
    Poisson-binomial, its tail exact.

    Args:
        events: intervals whose times are random under the null.

    Returns:
        The chance; p is 1 without events.

    >>> found = chance_of([Interval(2, 3)], [Interval(2.5, 4)], Interval(0, 10))
    >>> found.coincident, round(found.p, 9)  # starts 1.5 .. 4 of 0 .. 9
    (1, 0.277777778)
    """
    seen = sum(any(_overlap(event, other) for other in intervals) for event in events)
    share = tuple(_share(event.high - event.low, intervals, span) for event in events)
    return Chance(seen, float(sum(share)), tail_of(share, seen), share)


def tail_of(share: Sequence[float], count: int) -> float:
    """P(N >= count) of a sum of independent trials.

    Args:
        share: probability of each.

    Returns:
        The tail, exact.

    >>> tail_of([0.5, 0.5], 1)
    0.75
    """
    mass = np.ones(1)
    for p in share:
        mass = np.convolve(mass, [1.0 - p, p])
    return min(float(mass[count:].sum()), 1.0)


def cliques(moves: Sequence[_Move]) -> list[list[_Move]]:
    """Maximal sets of moves whose intervals all overlap, in order of time."""
    ends = sorted(
        [(move.at.low, 1, i) for i, move in enumerate(moves)]
        + [(move.at.high, 0, i) for i, move in enumerate(moves)]
    )
    active: dict[int, None] = {}
    grown, found = False, []
    for _, opens, i in ends:
        if opens:
            active[i], grown = None, True
            continue
        if grown:
            found.append([moves[j] for j in sorted(active)])
        del active[i]
        grown = False
    return found


def _is_read(row: TransitionRow) -> bool:
    moved = row["kind"] in {ProgressKind.BREAK.value, ProgressKind.JUMP.value}
    # `all` sites repeat the roles of weights
    whole = row["depth_bin"] == "all" and row["site"] != "all"
    return moved and whole and row["family"] in SPECTRAL | BEHAVIOUR


def _values(
    rows: Iterable[Mapping[str, Any]], places: set[Place], quantities: Quantities
) -> dict[tuple[Place, _Run], dict[float, float]]:
    """Step -> value as it is judged, of every run at every place."""
    found: dict[tuple[Place, _Run], dict[float, float]] = {}
    for group in gather(rows) if places else ():
        if group.place not in places:
            continue
        claim = quantities.get((group.place.invariant, group.place.quantity))
        for replicate, curve in run_values(group).items():
            steps = [step for step in curve if step != NO_STEP]
            y = scaled([curve[step] for step in steps], claim.unit if claim else None)
            run = _Run(group.place.series, replicate.model, replicate.seed)
            found[group.place, run] = dict(zip(map(float, steps), y, strict=True))
    return found


def _move(row: TransitionRow, curve: Mapping[float, float]) -> _Move:
    low, high = row["step_low"], row["step_high"]
    assert low is not None and high is not None  # it is a transition
    if low == high:  # a break at a checkpoint: it lies in the gap before or after
        low = max((s for s in curve if s < low), default=low)
        high = min((s for s in curve if s > high), default=high)
    place = ", ".join(part for part in (row["probe"], row["site"]) if part is not None)
    name = f"{row['invariant']} {row['quantity']}" + (f" ({place})" if place else "")
    at = Interval(math.log1p(low), math.log1p(high))
    return _Move(row["family"], name, at, low, high, curve[high] - curve[low])


def _chance(moves: Sequence[_Move], steps: Iterable[float]) -> Chance:
    spectral = [move.at for move in moves if move.family in SPECTRAL]
    events = _joined([move.at for move in moves if move.family in BEHAVIOUR])
    x_K = np.log1p(sorted(steps))
    # a transition has two checkpoints on either side
    return chance_of(events, spectral, Interval(float(x_K[1]), float(x_K[-2])))


def _joined(intervals: Sequence[Interval]) -> list[Interval]:
    """Hulls of overlapping intervals, ascending."""
    found: list[Interval] = []
    for interval in sorted(intervals):
        if found and interval.low < found[-1].high:
            found[-1] = Interval(found[-1].low, max(found[-1].high, interval.high))
        else:
            found.append(interval)
    return found


def _overlap(one: Interval, other: Interval) -> bool:
    return max(one.low, other.low) < min(one.high, other.high)


def _share(length: float, intervals: Sequence[Interval], span: Interval) -> float:
    room = span.high - span.low - length
    if room <= 0:
        return 1.0 if intervals else 0.0
    starts = _joined([Interval(i.low - length, i.high) for i in intervals])
    last = span.high - length
    inside = [max(0.0, min(s.high, last) - max(s.low, span.low)) for s in starts]
    return min(sum(inside) / room, 1.0)


def _stage(run: _Run, moves: Sequence[_Move], chance: Chance, p_series: float | None) -> StageRow:
    spectrum = sorted((m for m in moves if m.family in SPECTRAL), key=lambda m: m.name)
    behaviour = sorted((m for m in moves if m.family in BEHAVIOUR), key=lambda m: m.name)
    return {
        "series": run.series,
        "model": run.model,
        "seed": run.seed,
        "step_low": max(move.step_low for move in moves),
        "step_high": min(move.step_high for move in moves),
        "spectrum": [_told(move) for move in spectrum],
        "spectrum_change": [move.change for move in spectrum],
        "behaviour": [_told(move) for move in behaviour],
        "behaviour_change": [move.change for move in behaviour],
        "n_events": len(chance.share),
        "n_coincident": chance.coincident,
        "expected": chance.expected,
        "p": chance.p if chance.share else None,
        "p_series": p_series,
        "reason": _reason(chance),
    }


def _told(move: _Move) -> str:
    return f"{move.name}: {move.change:+.3g}"


def _reason(chance: Chance) -> str:
    if not chance.share:
        return "no transition of behaviour"
    return (
        f"{chance.coincident} of {len(chance.share)} events of behaviour coincide with the "
        f"spectrum's, {chance.expected:.2g} would at random times"
    )
