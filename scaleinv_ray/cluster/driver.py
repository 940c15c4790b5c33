"""The driver: submits captures and measurements within a window, and survives what is lost.

It keeps no state but the store: what is done is what has its measurement file there.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.actors import CaptureActor, measure_all
from scaleinv_ray.cluster.jobs import CaptureJob, CaptureOutcome, MeasureJob, Work
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
COUNT_S = 5.0
"""Seconds between two looks at the cluster's resources."""


@dataclass
class Flight:
    """A submitted job: what it is, since when it runs, on which actor, and which try it is.

    Attributes:
        job: a capture, or a group of measurements.
        tries: this one included.
        actor: of a capture.
        since: when it was first seen where it must be running, by the monotonic clock.
    """

    job: CaptureJob | tuple[MeasureJob, ...]
    tries: int
    actor: Any = None
    since: float | None = None


@dataclass
class Settings:
    """How a run uses the cluster.

    Attributes:
        gpus_per_model: GPUs of one capture actor.
        deadline_s: seconds that one capture job or measurement may run before it counts as lost.
        discard: delete a capture file when nothing needs it any more.
        scratch: folder of the captures that this run makes; others are never deleted.
        actors: capture actors at a time, None for as many as fit beside the tasks.
        workers: measuring tasks submitted at a time, None for a few per CPU.
        memory: bytes that a measuring task asks for, None leaves it to Ray.
    """

    gpus_per_model: int = 0
    deadline_s: float = 1800.0
    discard: bool = False
    scratch: Path | None = None
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
        log: takes the name of an event and its values.
    """

    store: Store
    work: Work
    settings: Settings
    log: Callable[..., None]
    _flights: dict[Any, Flight] = field(default_factory=dict)
    _ready: deque[MeasureJob] = field(default_factory=deque)
    _retries: deque[tuple[tuple[MeasureJob, ...], int]] = field(default_factory=deque)
    _captures: deque[tuple[CaptureJob, int]] = field(default_factory=deque)
    _starting: dict[Any, Any] = field(default_factory=dict)
    _actors: list[Any] = field(default_factory=list)
    _idle: list[Any] = field(default_factory=list)
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 0.05))
    _left_on: Counter[str] = field(default_factory=Counter)
    _pending: set[str] = field(default_factory=set)
    _waiting: dict[str, list[MeasureJob]] = field(default_factory=lambda: defaultdict(list))
    _abandoned: set[str] = field(default_factory=set)
    _sizes: dict[str, int] = field(default_factory=dict)
    _cpus: int = 1
    _counted: float = 0.0

    def execute(self) -> None:
        """Does all the work; returns when every measurement is written, good or failed."""
        self._captures.extend((job, 1) for job in self.work.captures)
        self._pending = {path for job in self.work.captures for path in job.paths()}
        for job in self.work.measurements:
            self._left_on.update(job.paths())
            for path in self._pending.intersection(job.paths()):
                self._waiting[path].append(job)
            if self._pending.isdisjoint(job.paths()):
                self._ready.append(job)
        tokens = ray.put(dict(self.work.tokens))
        try:
            while self._captures or self._ready or self._retries or self._flights:
                self._count_cpus()
                self._submit(tokens)
                self._collect()
                if self._actors and not self._captures and not self._capturing():
                    self._stop_actors()
        finally:
            self._stop_actors()

    def _count_cpus(self) -> None:
        """Nodes come and go: actors are added as there is room for them."""
        now = time.monotonic()
        if self._counted and now - self._counted < COUNT_S:
            return
        self._counted = now
        self._cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        for _ in range(self._num_actors() - len(self._actors)):
            self._new_actor()

    def _num_actors(self) -> int:
        """As many as fit while a CPU is left for the tasks that read their captures."""
        gpus = self.settings.gpus_per_model
        room = int(ray.cluster_resources().get("GPU", 0) // gpus) if gpus else self._cpus // 2
        wanted = min(self.settings.actors or room, self._cpus - 1, len(self._captures))
        return max(1, wanted) if self._captures else 0

    def _sharing(self) -> int:
        """Actors that may come to lie on one node."""
        nodes = sum(node["Alive"] for node in ray.nodes())
        return max(1, math.ceil(self._num_actors() / max(1, nodes)))

    def _new_actor(self) -> None:
        """Starts an actor; it gets work when it has answered, not while it waits for a place."""
        gpus = self.settings.gpus_per_model
        # on a single core the actor must leave room for the tasks that read its captures
        share = 1 if self._cpus > 1 else 0
        actor = CaptureActor.options(num_cpus=share, num_gpus=gpus).remote(
            num_threads=1 if not gpus else 4, num_gpus=gpus, sharing=self._sharing()
        )
        self._actors.append(actor)
        self._starting[actor.pid.remote()] = actor

    def _stop_actors(self) -> None:
        """Frees their CPUs for measuring tasks."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        self._idle.clear()
        self._starting.clear()

    def _capturing(self) -> bool:
        return any(flight.actor is not None for flight in self._flights.values())

    def _submit(self, tokens: Any) -> None:
        while self._idle and self._captures:
            job, tries = self._captures.popleft()
            actor = self._idle.pop()
            ref = actor.capture.remote(job, tokens)
            self._flights[ref] = Flight(job, tries, actor, time.monotonic())
        window = self.settings.workers or max(16, WINDOW_PER_CPU * self._cpus)
        submitted = sum(flight.actor is None for flight in self._flights.values())
        while submitted < window and (self._ready or self._retries):
            group, tries = self._retries.popleft() if self._retries else (self._next_group(), 1)
            task = measure_all.options(memory=self.settings.memory)
            self._flights[task.remote(group, self.store.uri)] = Flight(group, tries)
            submitted += 1

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
        patience = min(5.0, max(0.1, self.settings.deadline_s))
        ready, _ = ray.wait([*self._flights, *self._starting], num_returns=1, timeout=patience)
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
                continue
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

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            pid = ray.get(ref)
        except LOST as error:
            self._actors.remove(actor)
            self.log("lost", tries=1, error=f"{type(error).__name__}: {error}")
            self._new_actor()
        else:
            self._idle.append(actor)
            self.log("actor", pid=pid)

    def _enforce_deadlines(self) -> None:
        """Gives up what runs too long; tasks start in order, so only the oldest can be running."""
        now = time.monotonic()
        running = [ref for ref, f in self._flights.items() if f.actor is None][: self._cpus]
        for ref, flight in list(self._flights.items()):
            if flight.actor is None and ref not in running:
                continue
            flight.since = flight.since or now
            jobs = 1 if isinstance(flight.job, CaptureJob) else len(flight.job)
            limit = self.settings.deadline_s * jobs
            if now - flight.since <= limit:
                continue
            del self._flights[ref]
            if flight.actor is None:
                ray.cancel(ref, force=True)
            self._lost(flight, f"deadline: got more than {limit:g} s")

    def _finished(self, flight: Flight, result: Any) -> None:
        if isinstance(result, CaptureOutcome):
            self._captured(flight, result)
            return
        assert not isinstance(flight.job, CaptureJob)
        for job, outcome in zip(flight.job, result, strict=True):
            known = self._seconds[outcome.invariant]
            self._seconds[outcome.invariant] = 0.7 * known + 0.3 * outcome.wall_s
            read = sum(self._sizes.get(path, 0) for path in job.paths())
            self.log(
                "measured", key=outcome.key, unit=job.labels["unit"], invariant=outcome.invariant,
                wall_s=outcome.wall_s, error=outcome.error, bytes_read=read, queue=self._queue(),
                **outcome.counts,
            )  # fmt: skip
            self._release(job)

    def _captured(self, flight: Flight, outcome: CaptureOutcome) -> None:
        self._idle.append(flight.actor)
        size = sum(outcome.written.values())
        assert isinstance(flight.job, CaptureJob)
        unit = flight.job.facts.get("unit")
        self.log(
            "captured", unit=unit, files=len(outcome.written), bytes=size, wall_s=outcome.wall_s,
            failed=len(outcome.failed), load=outcome.load, reason=outcome.reason,
            tokens=outcome.tokens, queue=self._queue(),
        )  # fmt: skip
        self._sizes |= outcome.written
        self._pending.difference_update(outcome.written)
        for path in outcome.written:
            for job in self._waiting.pop(path, ()):
                if self._pending.isdisjoint(job.paths()):
                    self._ready.append(job)
        for path, error in outcome.failed.items():
            self._give_up(self._waiting.pop(path, ()), error)

    def _queue(self) -> int:
        """Jobs that wait to be submitted."""
        return len(self._ready) + len(self._retries) + len(self._captures)

    def _release(self, job: MeasureJob) -> None:
        """Deletes a capture file when its last measurement is done."""
        for path in job.paths():
            self._left_on[path] -= 1
            made_here = Path(path).parent == self.settings.scratch
            if self.settings.discard and made_here and self._left_on[path] == 0:
                Path(path).unlink(missing_ok=True)

    def _lost(self, flight: Flight, error: str) -> None:
        """The worker is gone: what is not done yet again, on a new actor where it had one."""
        self.log("lost", tries=flight.tries, error=error)
        if flight.actor is not None:
            ray.kill(flight.actor)
            self._actors.remove(flight.actor)
            self._new_actor()
        if flight.tries >= TRIES:
            self._give_up(self._dependents(flight.job), error)
        elif isinstance(flight.job, CaptureJob):
            self._captures.append((flight.job, flight.tries + 1))
        else:
            self._again(flight.job, flight.tries + 1)

    def _broken(self, flight: Flight, error: str) -> None:
        """The work itself raised: what it was becomes failed rows, the rest goes on."""
        jobs = tuple(self._dependents(flight.job))
        if flight.actor is not None:
            self._idle.append(flight.actor)
            self._give_up(jobs, error)
        elif len(jobs) > 1:
            self._again(jobs, flight.tries + 1)
        else:
            self._give_up(jobs, error)

    def _again(self, jobs: Iterable[MeasureJob], tries: int) -> None:
        """One by one, so that a job that kills its worker takes no other with it."""
        for job in jobs:
            if self._is_written(job):
                self._note(job, error=None)
            else:
                self._retries.append(((job,), tries))

    def _give_up(self, jobs: Iterable[MeasureJob], error: str) -> None:
        for job in jobs:
            if job.key in self._abandoned:  # a pair, both captures of which failed
                continue
            self._abandoned.add(job.key)
            if self._is_written(job):
                self._note(job, error=None)
            else:
                write_measurement(self.store, job.key, failed_rows(job, error), [], [])
                self._note(job, error=error)

    def _is_written(self, job: MeasureJob) -> bool:
        """A worker may be lost after it has written and before it could say so."""
        return self.store.exists(f"measurements/{job.key}.parquet")

    def _note(self, job: MeasureJob, *, error: str | None) -> None:
        self.log(
            "measured", key=job.key, unit=job.labels["unit"], invariant=job.invariant,
            wall_s=0.0, error=error, ok=0, refused=0, failed=int(error is not None),
        )  # fmt: skip
        self._release(job)

    def _dependents(self, job: CaptureJob | tuple[MeasureJob, ...]) -> Iterable[MeasureJob]:
        if not isinstance(job, CaptureJob):
            return job
        return [m for path in job.paths() for m in self._waiting.pop(path, ())]


def _cause(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
