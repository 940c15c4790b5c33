"""Measurements that are not under way: waiting for a capture, for another try, or for a turn."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from scaleinv_ray.cluster.scratch.placement import Files, Nodes
from scaleinv_ray.plan.jobs import MeasureJob

GROUP_S = 0.3
"""Seconds of work wanted in a task: Ray takes about a millisecond for each."""


class Waiting:
    """Gives measurements in groups, once the captures that they read are there."""

    def __init__(
        self,
        files: Files,
        nodes: Nodes,
        divide: Callable[[MeasureJob], list[MeasureJob]],
        give_up: Callable[[Sequence[MeasureJob], str], None],
    ) -> None:
        """Starts empty.

        Args:
            divide: gives the ranges by which a measurement is made, or itself.
            give_up: takes measurements that can never be made, and why.
        """
        self._files, self._nodes, self._give_up = files, nodes, give_up
        self._divide = divide
        self._ready: deque[MeasureJob] = deque()
        self._again: deque[tuple[MeasureJob, int]] = deque()
        self._for: dict[str, list[tuple[MeasureJob, int]]] = defaultdict(list)
        self._seconds: dict[str, float] = defaultdict(lambda: 0.05)

    def __len__(self) -> int:
        """Those that wait for nothing but a turn."""
        return len(self._ready) + len(self._again)

    def put(self, job: MeasureJob, tries: int = 1, *, alone: bool = False) -> None:
        """Takes a measurement.

        Args:
            tries: the number of its next try.
            alone: in no group; so is what is tried again.
        """
        if (error := self._files.error_of(job)) is not None:
            self._give_up([job], error)
        elif (path := self._files.blocking(job)) is not None:
            self._for[path].append((job, tries))
        elif alone or tries > 1:
            self._again.append((job, tries))
        else:
            self._ready.append(job)

    def wake(self, path: str) -> None:
        """A capture is there, or will never be."""
        for job, tries in self._for.pop(path, ()):
            self.put(job, tries)

    def take(self) -> tuple[tuple[MeasureJob, ...], int] | None:
        """The next measurements for one task.

        Those of which a capture was lost since they were ready go back to wait for it.

        Returns:
            The group and the number of its try; None where nothing can go.
        """
        while self._ready or self._again:
            if self._again:
                job, tries = self._again.popleft()
                group: tuple[MeasureJob, ...] = (job,)
            else:
                group, tries = self._group(), 1
            if all(self._files.available(job) for job in group):
                return group, tries
            for job in group:
                self.put(job, tries)
        return None

    def _group(self) -> tuple[MeasureJob, ...]:
        """Ready measurements for one node that take about GROUP_S, by what they took so far."""
        group = [self._next()]
        node = self._nodes.best(group[0], self._files, settled=False)
        while self._ready and self.seconds(group) < GROUP_S:
            if self._nodes.best(self._ready[0], self._files, settled=False) != node:
                break
            group.append(self._next())
        return tuple(group)

    def _next(self) -> MeasureJob:
        """The first that is ready; one that is made by ranges gives its place to them."""
        first, *others = self._divide(self._ready.popleft())
        self._ready.extendleft(reversed(others))
        return first

    def took(self, job: MeasureJob, seconds: float) -> None:
        """Learns how long an invariant takes, of what is made in one piece."""
        if job.only:
            return
        self._seconds[job.invariant] = 0.7 * self._seconds[job.invariant] + 0.3 * seconds

    def seconds(self, jobs: Sequence[MeasureJob]) -> float:
        """What some measurements are expected to take."""
        return sum(j.only.seconds if j.only else self._seconds[j.invariant] for j in jobs)
