"""What is under way: submitted jobs, since when they run, and what it means that one is lost."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.plan.jobs import CaptureJob, MeasureJob

LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskCancelledError,
)
"""Errors that say nothing about the work itself: it is submitted again, `TRIES` times in all."""


@dataclass
class Flight:
    """A submitted job: what it is, since when it runs, where, and which try it is.

    Attributes:
        job: a capture, or a group of measurements.
        tries: this one included.
        actor: of a capture.
        since: when it was first seen where it must be running, by the monotonic clock.
        node: to which it was sent, None where Ray chose.
        seconds: that a group of measurements is expected to take.
        memory: bytes that it asked for, 0 for none.
    """

    job: CaptureJob | tuple[MeasureJob, ...]
    tries: int
    actor: Any = None
    since: float | None = None
    node: str | None = None
    seconds: float = 0.0
    memory: float = 0.0

    def waited(self, error: Exception, alive: Iterable[str]) -> bool:
        """Whether it was lost with a node on which it had not begun, which is no try of it."""
        died = isinstance(error, ray.exceptions.NodeDiedError)
        died |= self.node is not None and self.node not in alive
        return self.actor is None and self.since is None and died


def mark_running(flights: Iterable[Flight], slots: Callable[[str | None, float], int]) -> None:
    """Notes since when tasks run: on a node they start in order, so its oldest are running.

    Args:
        flights: in the order in which they were submitted.
        slots: how many tasks run on a node at a time that ask for so much memory each.
    """
    now = time.monotonic()
    seen: Counter[str | None] = Counter()
    asked: dict[str | None, float] = {}
    for flight in flights:
        if flight.actor is None:
            seen[flight.node] += 1
            # each as much as the largest before it: one that waits for memory is not at work
            asked[flight.node] = max(asked.get(flight.node, 0.0), flight.memory)
            if seen[flight.node] <= slots(flight.node, asked[flight.node]):
                flight.since = flight.since or now


TEXT_CHARS = 300
"""Of an error in a row, a line for people: Ray's own report of a full node takes 3,400."""


def cause(error: Exception) -> str:
    """Name and first line of what a task raised."""
    of = getattr(error, "cause", None) or error
    return _short(type(of).__name__, [*str(of).splitlines(), ""][0])


def said(error: Exception) -> str:
    """Name and text of what befell a task, in a line.

    Returns:
        First and last line of its text, which say what and why; of a node without memory, for
        which the last is advice, the first and what was taken.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        taken = re.findall(r"actual memory used=([\d.]+ ?\w+)", str(error))
        lines = lines[:1] + [f"It had taken {taken[0]}." for _ in taken[:1] if len(taken) == 1]
    ends = lines[:1] + lines[1:][-1:]
    return _short(
        type(error).__name__, *(line[: TEXT_CHARS // 2] for line in ends[:-1]), *ends[-1:]
    )


def _short(*texts: str) -> str:
    """Name and texts; too long a text loses its end."""
    name, *rest = texts
    text = f"{name}: {' '.join(rest)}"
    return text if len(text) <= TEXT_CHARS else f"{text[: TEXT_CHARS - 4]} ..."
