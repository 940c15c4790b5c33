"""What changes between two checkpoints of a run, in units of the scatter of its seeds.

Shape suffixes: E events, Q quantities, C cells (a size and an interval).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.conclude.aggregation.cells import TRAINED, Place, gather
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP, Replicate
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.training.transitions import run_values, scaled
from scaleinv_ray.contract import Quantity

BEHAVIOUR = "behaviour"
LOSS = "held-out loss"
MOST_LACKING = 0.1
"""Share of the events without a quantity above which it is left out, rather than the events."""


class Event(NamedTuple):
    """A run between two of its checkpoints."""

    run: Replicate
    step_low: int
    step_high: int


@dataclass(frozen=True)
class Changes:
    """Changes of many quantities in the events of a series.

    Attributes:
        events: E of them.
        names: of Q quantities of the inside of models.
        change_EQ: their changes over the scatter of seeds within size and interval.
        probes: names of what models do: losses and gains.
        probe_EQ: the same of those; NaN where one is not known.
        loss_E: held-out loss where each event begins; NaN where it is not known.
        left_out: quantities and events that are not among them, in words.
    """

    events: list[Event]
    names: list[str]
    change_EQ: np.ndarray
    probes: list[str]
    probe_EQ: np.ndarray
    loss_E: np.ndarray
    left_out: str

    @property
    def cell_E(self) -> np.ndarray:
        """Size and interval of each event, as an integer."""
        return cells_of(self.events)

    @property
    def seed_E(self) -> np.ndarray:
        """Seed of each event's run; -1 where it has none."""
        return np.array([-1 if e.run.seed is None else e.run.seed for e in self.events])


def changes_of(
    rows: Rows, *, quantities: Mapping[tuple[str, str], Quantity]
) -> dict[str, Changes | str]:
    """Changes between consecutive checkpoints of all trained runs, series by series.

    Values are those of transitions: means over the layers of a site, ln|I| where a run has one
    sign and no unit is declared. The scale of a quantity is the root mean square scatter of the
    seeds round the mean of their size and interval, pooled over all of these: of a cell's own three
    seeds it would be known to a factor of two, and that factor would be the cell's. Controls and
    what no seed changes are left out; a quantity that more than a tenth of the events lack too, and
    then the events that lack any.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`, with bands as quantities.
        quantities: (invariant, quantity) -> what is claimed of it, for the unit.

    Returns:
        Series -> changes, or why there are none.
    """
    curves: dict[str, dict[tuple[bool, str], dict[Event, float]]] = defaultdict(dict)
    for group in gather(rows):
        place = group.place
        claim = quantities.get((place.invariant, place.quantity), Quantity(law="none"))
        if place.depth_bin != "all" or place.site == "all" or claim.control:
            continue  # `all` sites repeat the roles of weights
        found: dict[Event, float] = {}
        for run, curve in run_values(group).items():
            steps = [step for step in curve if step != NO_STEP]
            found |= _changes(run, steps, scaled([curve[s] for s in steps], claim.unit))
        curves[place.series][place.family == BEHAVIOUR, _name(place)] = found
    losses = _losses(rows)
    return {series: _series(of, losses.get(series, {})) for series, of in curves.items()}


def cells_of(events: Iterable[Event]) -> np.ndarray:
    """Size and interval of each event, as an integer."""
    known: dict[tuple[int, int, int], int] = {}
    return np.array([
        known.setdefault((e.run.n_params, e.step_low, e.step_high), len(known)) for e in events
    ])


def _changes(run: Replicate, steps: Iterable[int], values: Iterable[float]) -> dict[Event, float]:
    pairs = pairwise(zip(steps, values, strict=True))
    return {Event(run, low, high): after - before for (low, before), (high, after) in pairs}


def _name(place: Place) -> str:
    where = ", ".join(part for part in (place.probe, place.site) if part is not None)
    return f"{place.invariant} {place.quantity}" + (f" ({where})" if where else "")


def _losses(rows: Rows) -> dict[str, dict[Replicate, dict[int, float]]]:
    """Series -> run -> step -> held-out loss."""
    found: dict[str, dict[Replicate, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    if "eval_loss" not in rows.columns:
        return found
    known = rows.equal(variant=TRAINED) & ~rows.known("unit_b") & rows.known("eval_loss")
    names = ("series", *Replicate._fields, "step", "eval_loss")
    for series, *run, step, loss in rows.where(known & rows.known("step")).distinct(names)[1]:
        found[series][Replicate(*run)][step] = float(loss)
    return found


def _series(
    of: Mapping[tuple[bool, str], Mapping[Event, float]],
    losses: Mapping[Replicate, Mapping[int, float]],
) -> Changes | str:
    # runs that lack a quantity still have the event; its name sorts None before numbers
    all_events = sorted(set().union(*of.values()), key=_order)
    inner = {name: found for (behaves, name), found in of.items() if not behaves}
    whole = {n: f for n, f in inner.items() if len(f) >= (1 - MOST_LACKING) * len(all_events) > 0}
    events = [e for e in all_events if all(e in found for found in whole.values())]
    if not whole or not events:
        return "no quantity is known of nine tenths of the intervals"
    change_EQ = np.array([[found[e] for found in whole.values()] for e in events])
    scale_Q = _scatter(change_EQ, cells_of(events))
    if scale_Q is None:
        return "one seed a size: the scatter of seeds, in which changes are counted, is not known"
    moved_Q = np.isfinite(scale_Q) & (scale_Q > 0)
    probes = {name: found for (behaves, name), found in of.items() if behaves}
    falls = (_changes(run, sorted(of), [of[s] for s in sorted(of)]) for run, of in losses.items())
    probes |= {LOSS: {event: change for fall in falls for event, change in fall.items()}}
    probe_EQ = np.array([[found.get(e, np.nan) for found in probes.values()] for e in events])
    probe_scale_Q = _scatter(probe_EQ, cells_of(events))
    assert probe_scale_Q is not None  # events are the same
    known_Q = np.isfinite(probe_scale_Q) & (probe_scale_Q > 0)
    names = np.array(list(whole))
    lacking = len(inner) - int(moved_Q.sum()), len(all_events) - len(events)
    return Changes(
        events,
        names[moved_Q].tolist(),
        change_EQ[:, moved_Q] / scale_Q[moved_Q],
        np.array(list(probes))[known_Q].tolist(),
        probe_EQ[:, known_Q] / probe_scale_Q[known_Q],
        np.array([losses.get(e.run, {}).get(e.step_low, np.nan) for e in events]),
        _left_out(*lacking),
    )


def _left_out(num_quantities: int, num_intervals: int) -> str:
    parts = [
        f"{num_quantities} quantities that no seed changes or that are not known everywhere",
        f"{num_intervals} intervals without all others",
    ]
    lost = [part for part, n in zip(parts, (num_quantities, num_intervals), strict=True) if n]
    return f"left out: {', '.join(lost)}" if lost else ""


def _order(event: Event) -> tuple[Any, ...]:
    run = event.run
    return run.n_params, run.model, -1 if run.seed is None else run.seed, event.step_low


def _scatter(value_EQ: np.ndarray, cell_E: np.ndarray) -> np.ndarray | None:
    """Root mean square round the means of cells, of df of the seeds; None without seeds.

    A quantity that an event lacks is NaN.
    """
    count_C = np.bincount(cell_E)
    free = len(cell_E) - len(count_C)
    if free < 1:
        return None
    mean_CQ = np.zeros((len(count_C), value_EQ.shape[1]))
    np.add.at(mean_CQ, cell_E, value_EQ)
    mean_CQ /= count_C[:, None]
    scatter: np.ndarray = np.sqrt(((value_EQ - mean_CQ[cell_E]) ** 2).sum(axis=0) / free)
    # what rounding leaves of a quantity that no seed changes is no scatter
    rounding_Q = 1e-9 * np.abs(value_EQ).max(axis=0, initial=0.0)
    return np.where(scatter > rounding_Q, scatter, 0.0)
