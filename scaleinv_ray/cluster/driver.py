"""The driver: submits captures and measurements within a window, and survives what is lost.

It keeps no state but the store: what is done is what has its measurement file there.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.actors import CaptureActor, measure_all
from scaleinv_ray.cluster.jobs import CaptureJob, MeasureJob, Work
from scaleinv_ray.cluster.measure import failed_rows, write_measurement
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store

LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskCancelledError,
)
"""Errors that say nothing about the work itself: it is submitted again, `TRIES` times in all."""
TRIES = 3
GROUP_S = 0.3
"""Seconds of work wanted in a task: Ray takes about a millisecond for each."""
WINDOW_PER_CPU = 4


@dataclass
class Flight:
    """A submitted job: what it is, since when, on which actor, and which try it is."""

    job: CaptureJob | tuple[MeasureJob, ...]
    since: float
    actor: Any = None
    tries: int = 1


@dataclass
class Settings:
    """How a run uses the cluster.

    Attributes:
        gpus_per_model: GPUs of one capture actor.
        deadline_s: seconds after which a job counts as lost.
        discard: delete a capture file when nothing needs it any more.
        actors: capture actors at a time, None for as many as fit beside the tasks.
        workers: measuring tasks submitted at a time, None for a few per CPU.
        memory: bytes that a measuring task asks for, None leaves it to Ray.
    """

    gpus_per_model: int = 0
    deadline_s: float = 1800.0
    discard: bool = False
    actors: int | None = None
    workers: int | None = None
    memory: int | None = None


@dataclass
class Driver:
    """Runs `work` on the connected cluster.

    Attributes:
        store: where tables go.
        work: what is to be done.
        settings: how.
        log: takes one mapping for each event.
    """

    store: Store
    work: Work
    settings: Settings
    log: Callable[..., None]
    _flights: dict[Any, Flight] = field(default_factory=dict)
    _ready: deque[MeasureJob] = field(default_factory=deque)
    _retries: deque[tuple[tuple[MeasureJob, ...], int]] = field(default_factory=deque)
    _captures: deque[tuple[CaptureJob, int]] = field(default_factory=deque)
    _actors: list[Any] = field(default_factory=list)
    _idle: list[Any] = field(default_factory=list)
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 0.05))
    _left_on: dict[str, int] = field(default_factory=dict)

    def execute(self) -> None:
        """Does all the work; returns when every measurement is written, good or failed."""
        self._captures.extend((job, 1) for job in self.work.captures)
        pending = {p for job in self.work.captures for t in job.targets for p in t.paths.values()}
        for path, jobs in self.work.measurements.items():
            if path is not None:
                self._left_on[path] = len(jobs)
            if path not in pending:
                self._ready.extend(jobs)
        tokens = ray.put(dict(self.work.tokens))
        cpus = int(ray.cluster_resources().get("CPU", 1))
        self._start_actors(cpus)
        try:
            while self._captures or self._ready or self._retries or self._flights:
                self._submit(tokens, window=self.settings.workers or WINDOW_PER_CPU * cpus)
                self._collect()
                if self._actors and not self._captures and not self._capturing():
                    self._stop_actors()
        finally:
            self._stop_actors()

    def _start_actors(self, cpus: int) -> None:
        gpus = self.settings.gpus_per_model
        room = cpus // 2 if not gpus else int(ray.cluster_resources().get("GPU", 0) // gpus)
        wanted = min(self.settings.actors or max(1, room), len(self._captures))
        for _ in range(wanted):
            self._new_actor(cpus)

    def _new_actor(self, cpus: int) -> None:
        gpus = self.settings.gpus_per_model
        # on a single core the actor must leave room for the tasks that read its captures
        share = 1 if cpus > 1 else 0
        actor = CaptureActor.options(num_cpus=share, num_gpus=gpus).remote(
            num_threads=1 if not gpus else 4, num_gpus=gpus
        )
        self._actors.append(actor)
        self._idle.append(actor)

    def _stop_actors(self) -> None:
        """Frees their CPUs for measuring tasks."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        self._idle.clear()

    def _capturing(self) -> bool:
        return any(flight.actor is not None for flight in self._flights.values())

    def _submit(self, tokens: Any, *, window: int) -> None:
        while self._idle and self._captures:
            job, tries = self._captures.popleft()
            actor = self._idle.pop()
            ref = actor.capture.remote(job, tokens)
            self._flights[ref] = Flight(job, time.monotonic(), actor, tries)
        while len(self._flights) < window and (self._ready or self._retries):
            group, tries = self._retries.popleft() if self._retries else (self._next_group(), 1)
            task = measure_all.options(memory=self.settings.memory)
            ref = task.remote(group, self.store.uri)
            self._flights[ref] = Flight(group, time.monotonic(), None, tries)

    def _next_group(self) -> tuple[MeasureJob, ...]:
        """Ready measurements that together take about GROUP_S, by what they took so far."""
        group: list[MeasureJob] = []
        seconds = 0.0
        while self._ready and seconds < GROUP_S:
            job = self._ready.popleft()
            group.append(job)
            seconds += self._seconds[job.invariant]
        return tuple(group)

    def _collect(self) -> None:
        ready, _ = ray.wait(list(self._flights), num_returns=1, timeout=5.0)
        for ref in ready:
            flight = self._flights.pop(ref)
            try:
                result = ray.get(ref)
            except LOST as error:
                self._lost(flight, f"{type(error).__name__}: {error}")
            except ray.exceptions.RayTaskError as error:
                self._broken(flight, _cause(error))
            else:
                self._finished(flight, result)
        self._enforce_deadlines()

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        limit = self.settings.deadline_s
        for ref, flight in list(self._flights.items()):
            if now - flight.since <= limit:
                continue
            del self._flights[ref]
            if flight.actor is None:
                ray.cancel(ref, force=True)
            self._lost(flight, f"deadline: got more than {limit:g} s")

    def _finished(self, flight: Flight, result: Any) -> None:
        if isinstance(flight.job, CaptureJob):
            self._idle.append(flight.actor)
            for target in flight.job.targets:
                for path in target.paths.values():
                    self._ready.extend(self.work.measurements.get(path, ()))
            size = sum(result.written.values())
            self.log("captured", content=flight.job.content, bytes=size, wall_s=result.wall_s)
            return
        for job, outcome in zip(flight.job, result, strict=True):
            known = self._seconds[outcome.invariant]
            self._seconds[outcome.invariant] = 0.7 * known + 0.3 * outcome.wall_s
            self.log(
                "measured", key=outcome.key, unit=job.labels["unit"], invariant=outcome.invariant,
                wall_s=outcome.wall_s, error=outcome.error, **outcome.counts,
            )  # fmt: skip
            self._release(job)

    def _release(self, job: MeasureJob) -> None:
        """Deletes a capture file when its last measurement is done."""
        if not isinstance(job.source, str):
            return
        self._left_on[job.source] -= 1
        if self.settings.discard and self._left_on[job.source] == 0:
            Path(job.source).unlink(missing_ok=True)

    def _lost(self, flight: Flight, error: str) -> None:
        """The worker is gone: the whole job again, on a new actor where it had one."""
        if flight.actor is not None:
            ray.kill(flight.actor)
            self._actors.remove(flight.actor)
            self._new_actor(int(ray.cluster_resources().get("CPU", 1)))
        self.log("lost", tries=flight.tries, error=error)
        if flight.tries >= TRIES:
            self._give_up(flight.job, error)
        elif isinstance(flight.job, CaptureJob):
            self._captures.append((flight.job, flight.tries + 1))
        else:
            # one by one, so that a job that kills its worker takes no other with it
            self._retries.extend(((job,), flight.tries + 1) for job in flight.job)

    def _broken(self, flight: Flight, error: str) -> None:
        """The work itself raised: its measurements become failed rows, the rest goes on."""
        if flight.actor is not None:
            self._idle.append(flight.actor)
        self._give_up(flight.job, error)

    def _give_up(self, job: CaptureJob | tuple[MeasureJob, ...], error: str) -> None:
        self.log("failed", error=error)
        for lost in self._dependents(job):
            write_measurement(self.store, lost.key, failed_rows(lost, error), [], [])
            self.log("measured", key=lost.key, unit=lost.labels["unit"], invariant=lost.invariant,
                     wall_s=0.0, error=error, ok=0, refused=0, failed=1)  # fmt: skip

    def _dependents(self, job: CaptureJob | tuple[MeasureJob, ...]) -> Iterable[MeasureJob]:
        if not isinstance(job, CaptureJob):
            return job
        paths = [p for target in job.targets for p in target.paths.values()]
        return [m for path in paths for m in self.work.measurements.get(path, ())]


def _cause(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
