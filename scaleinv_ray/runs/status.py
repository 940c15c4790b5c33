"""How far a run is, from its store alone: no Ray, and nothing of the run has to be alive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scaleinv_ray import tables
from scaleinv_ray.cluster.telemetry import read_events
from scaleinv_ray.conclude.conclusions import concluded_files
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.runs.starting.run_lock import is_locked
from scaleinv_ray.store import Store


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        by_kind: (kind of capture, 'done' | 'failed' | 'missing') -> measurements.
        reasons: error of failed measurements -> how many.
        state: 'never started', 'running' (in an object store maybe killed: it cannot tell),
            'stopped' before its end (killed, or its machine is gone), or 'ended'.
        rate: measurements a second in the last start, None before the second one.
        seconds_left: at this rate, None where it is unknown or the run has ended.
        idle_s: seconds between the last event and `now`, None without events.
        notices: what a person should know of the last start, in order.
        notes: lines that name what is damaged, gone, or no file of a run.
    """

    by_kind: Counter[tuple[str, str]]
    reasons: Counter[str]
    state: str
    rate: float | None
    seconds_left: float | None
    idle_s: float | None
    notices: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def to_json(self) -> str:
        """The same as JSON."""
        states: dict[str, dict[str, int]] = {}
        for (kind, state), count in sorted(self.by_kind.items()):
            states.setdefault(kind, {})[state] = count
        rest = {k: v for k, v in vars(self).items() if k != "by_kind"}
        return json.dumps({"captures": states, **rest}, indent=1)

    def lines(self) -> list[str]:
        """As text: a table by kind, the reasons, the rate."""
        states = ("done", "failed", "missing")
        text = [f"{'capture':<14}" + "".join(f"{s:>9}" for s in states)]
        for kind in sorted({kind for kind, _ in self.by_kind}):
            text.append(f"{kind:<14}" + "".join(f"{self.by_kind[kind, s]:>9}" for s in states))
        totals = [sum(n for (_, of), n in self.by_kind.items() if of == s) for s in states]
        text.append(f"{'in all':<14}" + "".join(f"{n:>9}" for n in totals))
        text += [f"failed x{n}: {reason}" for reason, n in self.reasons.most_common()]
        text += [f"notice: {notice}" for notice in self.notices]
        if self.rate is not None:
            text.append(f"rate: {self.rate:.3g} measurements/s")
        if self.seconds_left is not None:
            text.append(f"time left: {self.seconds_left / 60:.1f} min")
        seen = "" if self.idle_s is None else f", last event {self.idle_s:.0f} s ago"
        return [*text, *(f"note: {note}" for note in self.notes), f"state: {self.state}{seen}"]


def status(store: Store, *, now: float) -> Status:
    """Reads plan, measurements and log of a run folder.

    Args:
        now: seconds since 1970.

    Returns:
        How far it is.

    Raises:
        ValueError: where the folder holds no plan, or a damaged one.
    """
    if not store.exists("plan.parquet"):
        raise ValueError(
            f"run_folder: got {store.shown!r} without plan.parquet; "
            "allowed: the folder of a run, as `scaleinv run` makes it"
        )
    held = take_inventory(store)
    done, failed = held.done, held.failed
    by_kind: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    plan = store.read_table("plan.parquet", ["key", "kind"])
    for row in tables.decode(plan):
        key = row["key"]
        state = "done" if key in done else "failed" if key in failed else "missing"
        by_kind[row["kind"], state] += 1
        if state == "failed":
            reasons[_reason(store, failed[key])] += 1
    missing = sum(n for (_, state), n in by_kind.items() if state == "missing")
    notices: list[str] = []
    pace = _pace(_noting(read_events(store), notices), missing, now, alive=is_locked(store))
    return Status(by_kind, reasons, *pace, tuple(notices), held.notes(concluded_files()))


def _noting(events: Iterable[dict[str, Any]], notices: list[str]) -> Iterator[dict[str, Any]]:
    """Passes events on and leaves the notices of the last start in a list."""
    for event in events:
        if event["event"] == "started":
            notices.clear()
        elif event["event"] == "notice":
            notices.append(str(event.get("text")))
        yield event


def _reason(store: Store, name: str) -> str:
    errors = store.read_table(f"measurements/{name}", ["error"])["error"].to_pylist()
    return next((e for e in errors if e), "no reason given")


def _pace(
    events: Iterable[dict[str, Any]], missing: int, now: float, *, alive: bool | None
) -> tuple[str, float | None, float | None, float | None]:
    """State, rate, seconds left and seconds since the last event, of the last start."""
    state, began, last, made = "never started", 0.0, None, 0
    for event in events:
        last = event["time"]
        if event["event"] == "started":
            state, began, made = "running", last, 0
        elif event["event"] == "ended":
            state = "ended"
        elif event["event"] == "measured":
            made += 1
    if state == "running" and alive is False:
        state = "stopped"
    rate = made / (last - began) if last is not None and made > 1 and last > began else None
    left = missing / rate if rate and state == "running" else None
    return state, rate, left, None if last is None else max(0.0, now - last)
