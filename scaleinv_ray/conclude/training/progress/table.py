"""Kinds of progress as rows: what moves in one, in which runs, when, and whether it is a calendar.

Shape suffixes: E events, Q quantities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypedDict

import numpy as np
from scipy.stats import entropy

from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.training.progress.events import Changes, Event, changes_of
from scaleinv_ray.conclude.training.progress.number import Kinds, number_of_kinds
from scaleinv_ray.conclude.training.progress.surrogates import Calendar, calendar_of
from scaleinv_ray.contract import Quantity

ALPHA = 0.05
LEADING = 8
"""Quantities named of a kind."""


class KindRow(TypedDict):
    """Kinds of progress: in which directions runs move between two checkpoints.

    A row is a kind of a series, or the reason why none was looked for.
    """

    series: str
    progress: Annotated[int | None, "number of the kind, in the order in which they come"]
    n_kinds: Annotated[int | None, "kinds that can be claimed"]
    p: Annotated[float | None, "p of a single kind, the least being 1 / 20"]
    strength: Annotated[float | None, "share of pairs that held-out seeds keep together"]
    n_events: Annotated[int, "intervals of single runs that are of this kind"]
    n_runs: Annotated[int, "runs that have it"]
    intervals: Annotated[list[str], "steps between which it comes, and in how many runs"]
    runs: Annotated[list[str], "run of every one of its intervals"]
    step_low: Annotated[list[float], "checkpoint at which each begins"]
    step_high: Annotated[list[float], "checkpoint at which each ends"]
    moves: Annotated[list[str], "what moves most"]
    moves_z: Annotated[list[float], "by how much in the mean, over the scatter of seeds"]
    behaviour: Annotated[list[str], "losses and gains"]
    behaviour_z: Annotated[
        list[float], "by how much they move meanwhile, over the scatter of seeds"
    ]
    by_interval: Annotated[float | None, "share of its information that the interval gives"]
    by_loss: Annotated[float | None, "share that the held-out loss at the beginning gives"]
    p_calendar: Annotated[float | None, "p of its being an interval of the calendar"]
    calendar: Annotated[bool | None, "whether it is no more than that"]
    reason: str


def kinds_table(
    rows: Rows,
    *,
    quantities: Mapping[tuple[str, str], Quantity],
    rng: np.random.Generator,
) -> list[KindRow]:
    """Kinds of progress of every series (`changes_of`, `number_of_kinds`), and the second null.

    A kind that all runs have between the same checkpoints is a stage of the calendar, whatever
    moves in it. `p_calendar` (of `calendar_of`) is the chance that as many events lie off the rule
    'in an interval all or none' where that rule is true, times the number of kinds, and the kind is
    `calendar` where it is .05 or more. Shares of information are I(kind; interval) / H(kind), and
    the same of as many bins of the held-out loss.

    Args:
        rows: with the columns of `tables.MEASUREMENTS`, with bands as quantities.
        quantities: (invariant, quantity) -> what is claimed of it, for the unit.

    Returns:
        One row a kind; one with the reason where a series has none.
    """
    out: list[KindRow] = []
    for series, changes in changes_of(rows, quantities=quantities).items():
        if isinstance(changes, str):
            out.append(_refused(series, changes))
            continue
        try:
            found = number_of_kinds(changes.change_EQ, changes.seed_E, changes.cell_E, rng=rng)
        except ValueError as error:
            out.append(_refused(series, str(error)))
            continue
        found = found._replace(label_E=_in_time(found.label_E, changes))
        out += [_row(series, changes, found, kind, rng) for kind in range(found.number)]
    return out


def share_of_information(in_kind_E: np.ndarray, bin_E: np.ndarray) -> float | None:
    """I(kind; bin) / H(kind); None where all are of the kind, or none.

    >>> share_of_information(np.array([True, True, False, False]), np.array([0, 0, 1, 1]))
    1.0
    """
    whole = _entropy(in_kind_E.mean())
    if whole == 0:
        return None
    left = sum(
        (bin_E == at).mean() * _entropy(in_kind_E[bin_E == at].mean()) for at in np.unique(bin_E)
    )
    return float(1 - left / whole)


def _entropy(share: float) -> float:
    return float(entropy([share, 1 - share]))


def _in_time(label_E: np.ndarray, changes: Changes) -> np.ndarray:
    """The same kinds, in the order in which they come."""
    begin_E = np.log1p([e.step_low for e in changes.events])
    mean_K = np.bincount(label_E, weights=begin_E) / np.bincount(label_E)
    return np.argsort(np.argsort(mean_K))[label_E]


def _row(
    series: str, changes: Changes, found: Kinds, kind: int, rng: np.random.Generator
) -> KindRow:
    in_kind_E = found.label_E == kind
    intervals = [(e.step_low, e.step_high) for e in changes.events]
    known = {at: i for i, at in enumerate(sorted(set(intervals)))}
    interval_E = np.array([known[at] for at in intervals])
    calendar = None
    if found.number > 1:
        at = (changes.change_EQ, found.label_E, changes.cell_E)
        calendar = calendar_of(*at, kind=kind, interval_E=interval_E, rng=rng)
        # of every kind it is asked
        calendar = calendar._replace(p=min(1.0, calendar.p * found.number))
    members = [e for e, inside in zip(changes.events, in_kind_E.tolist(), strict=True) if inside]
    moves, behaviour = (
        _leading(changes.names, changes.change_EQ[in_kind_E]),
        _leading(changes.probes, changes.probe_EQ[in_kind_E]),
    )
    return {
        "series": series,
        "progress": kind + 1,
        "n_kinds": found.number,
        "p": found.p,
        "strength": found.strength,
        "n_events": len(members),
        "n_runs": len({e.run for e in members}),
        "intervals": _when(members),
        "runs": [_with_seed(e) for e in members],
        "step_low": [float(e.step_low) for e in members],
        "step_high": [float(e.step_high) for e in members],
        "moves": [name for name, _ in moves],
        "moves_z": [z for _, z in moves],
        "behaviour": [name for name, _ in behaviour],
        "behaviour_z": [z for _, z in behaviour],
        "by_interval": share_of_information(in_kind_E, interval_E),
        "by_loss": _by_loss(in_kind_E, changes.loss_E, len(known)),
        "p_calendar": calendar.p if calendar else None,
        "calendar": calendar.p >= ALPHA if calendar else None,
        "reason": "; ".join(
            part for part in (_why(calendar, len(in_kind_E)), changes.left_out) if part
        ),
    }


def _why(calendar: Calendar | None, num_events: int) -> str:
    if calendar is None:
        return "one kind alone can be claimed: surrogates that have one fall apart as well"
    off = f"{calendar.off} of {num_events} intervals lie off the rule 'all runs or none'"
    if calendar.p >= ALPHA:
        return f"{off}, no more than by chance"
    return f"{off}: it comes between other checkpoints in other runs"


def _leading(names: Sequence[str], change_EQ: np.ndarray) -> list[tuple[str, float]]:
    """Names and mean changes, the largest first."""
    known_Q = np.isfinite(change_EQ).all(axis=0)
    mean_Q = np.where(known_Q, np.where(known_Q, change_EQ, 0.0).mean(axis=0), 0.0)
    order = np.argsort(-np.abs(mean_Q), kind="stable")[:LEADING]
    return [(names[q], float(mean_Q[q])) for q in order.tolist() if known_Q[q]]


def _by_loss(in_kind_E: np.ndarray, loss_E: np.ndarray, num_bins: int) -> float | None:
    if not np.isfinite(loss_E).all():
        return None
    rank_E = np.argsort(np.argsort(loss_E, kind="stable"), kind="stable")
    return share_of_information(in_kind_E, rank_E * num_bins // len(rank_E))


def _when(members: Sequence[Event]) -> list[str]:
    spans = sorted({(e.step_low, e.step_high) for e in members})
    return [
        f"{low}-{high} ({sum((e.step_low, e.step_high) == (low, high) for e in members)})"
        for low, high in spans
    ]


def _with_seed(event: Event) -> str:
    seed = "" if event.run.seed is None else f", seed {event.run.seed}"
    return f"{event.run.model}{seed}"


def _refused(series: str, reason: str) -> KindRow:
    return {
        "series": series,
        "progress": None,
        "n_kinds": None,
        "p": None,
        "strength": None,
        "n_events": 0,
        "n_runs": 0,
        "intervals": [],
        "runs": [],
        "step_low": [],
        "step_high": [],
        "moves": [],
        "moves_z": [],
        "behaviour": [],
        "behaviour_z": [],
        "by_interval": None,
        "by_loss": None,
        "p_calendar": None,
        "calendar": None,
        "reason": reason,
    }
