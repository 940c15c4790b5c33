"""What is under way: submitted jobs, since when they run, and what it means that one is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scaleinv_ray.cluster.jobs import CaptureJob, MeasureJob
from scaleinv_ray.cluster.session import ray

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


TEXT_CHARS = 800
"""Of an error in a row: what Ray says of a node without memory lists its processes, several KB."""


def cause(error: Exception) -> str:
    """Name and first line of what a task raised."""
    of = getattr(error, "cause", None) or error
    return f"{type(of).__name__}: {str(of).splitlines()[0] if str(of) else ''}"


def said(error: Exception) -> str:
    """Name and text of what befell a task; of a long text beginning and end, which say why."""
    text = str(error)
    if len(text) > TEXT_CHARS:
        end = TEXT_CHARS // 4
        text = f"{text[: TEXT_CHARS - end]} ... {text[-end:]}"
    return f"{type(error).__name__}: {text}"
