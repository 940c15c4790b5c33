"""The driver: submits captures and measurements within a window, and survives what is lost.

It keeps no state but the store: what is done is what has its measurement file there.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.actors import CaptureActor, measure_all
from scaleinv_ray.cluster.checks import most_memory, node_kinds
from scaleinv_ray.cluster.flights import LOST, Flight, cause, mark_running, said
from scaleinv_ray.cluster.jobs import (
    CaptureJob,
    CaptureOutcome,
    Fetch,
    MeasureJob,
    Outcome,
    Place,
    Unfetched,
    Work,
)
from scaleinv_ray.cluster.measure import unmade
from scaleinv_ray.cluster.parts import Parts, largest_first, memory_of, write_failed
from scaleinv_ray.cluster.placement import TRIES, Files, Nodes
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.cluster.settings import Settings
from scaleinv_ray.cluster.shrinking import Shrinking
from scaleinv_ray.cluster.transfer import Removals, Supply, pinned
from scaleinv_ray.cluster.waiting import Waiting
from scaleinv_ray.store import Store

WINDOW_PER_CPU = 4
COUNT_S = 5.0
"""Seconds between two looks at the cluster's resources."""


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
    _files: Files = field(init=False)
    _waiting: Waiting = field(init=False)
    _parts: Parts = field(init=False)
    _removals: Removals = field(init=False)
    _asking: Shrinking = field(init=False)
    _nodes: Nodes = field(default_factory=Nodes)
    _flights: dict[Any, Flight] = field(default_factory=dict)
    _captures: deque[tuple[CaptureJob, int]] = field(default_factory=deque)
    _starting: dict[Any, Any] = field(default_factory=dict)
    _actors: list[Any] = field(default_factory=list)
    _idle: list[Any] = field(default_factory=list)
    _places: dict[Any, Place] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)
    _largest: float = 0.0
    _not_started: int = 0
    _cpus: int = 1
    _counted: float = 0.0

    def __post_init__(self) -> None:
        """Knows the captures that exist and those to be made."""
        self._files = Files(self.work, self.settings.scratch)
        self._parts = Parts(self.store)
        self._waiting = Waiting(self._files, self._nodes, self._parts, self._give_up)
        self._removals = Removals(self.settings.scratch)
        self._asking = Shrinking(self.settings.memory)

    def execute(self) -> None:
        """Does all the work; returns when every measurement is written, good or failed."""
        self._captures.extend(self._files.to_make(self._files.pending))
        for job in largest_first(self.work.measurements):
            self._waiting.put(job)
        tokens = ray.put(dict(self.work.tokens))
        try:
            while self._captures or self._waiting or self._flights:
                self._count_cpus()
                self._submit(tokens)
                self._collect()
                if self._actors and not self._captures and not self._capturing():
                    self._stop_actors()
        finally:
            self._stop_actors()
            self._removals.finish()

    def _count_cpus(self) -> None:
        """Nodes come and go: actors are added as there is room for them."""
        now = time.monotonic()
        if self._counted and now - self._counted < COUNT_S:
            return
        self._counted = now
        self._cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._look_at_nodes()
        for _ in range(self._num_actors() - len(self._actors)):
            self._new_actor()

    def _look_at_nodes(self) -> None:
        """What lay on a node that is gone is lost; where one goes, an idle actor makes way."""
        nodes = {n["NodeID"]: n["Resources"] for n in ray.nodes() if n["Alive"]}
        cpus, self._nodes.memory = (
            {n: of.get(what, 0.0) for n, of in nodes.items()} for what in ("CPU", "memory")
        )
        self._largest = most_memory(node_kinds())
        gone, self._alive = self._alive - cpus.keys(), set(cpus)
        leaving = gone | ray._private.state.state.get_draining_nodes().keys()  # has notice
        self._nodes.cpus = {n: c for n, c in cpus.items() if c >= 1 and n not in leaving}
        for actor in [a for a in self._idle if self._places[a].node in leaving]:
            self._idle.remove(actor)
            self._drop(actor)
        if gone and self._files.apart:
            names = ", ".join(sorted(node[:8] for node in gone))
            self._remake(self._files.gone(gone), f"NodeDiedError: {names} had the capture")

    def _remake(self, paths: Iterable[str], error: str) -> None:
        """Captures that were lost with their node, unless they were made often enough."""
        lost = set(paths)
        done = {path for path in lost if self._files.exhausted(path)}
        self._fail(done, error)
        for job, tries in self._files.to_make(lost - done):
            self.log("remake", unit=job.facts.get("unit"), files=len(job.paths()), tries=tries,
                     error=error)  # fmt: skip
            self._captures.append((job, tries))
            self._counted = 0.0  # so that they have actors at once

    def _fail(self, paths: Iterable[str], error: str) -> None:
        """These captures will not be made, nor what waits for them."""
        for path in paths:
            self._files.fail(path, error)
            self._waiting.wake(path)

    def _num_actors(self) -> int:
        """As many as fit while a CPU is left for the tasks that read their captures."""
        gpus = self.settings.gpus_per_model
        room = int(ray.cluster_resources().get("GPU", 0) // gpus) if gpus else self._cpus // 2
        if gpus and any(job.load == "chained" for job, _ in self._captures):
            room = 1  # the other GPUs are for the members of its chain
        wanted = min(self.settings.actors or room, self._cpus - 1, len(self._captures))
        return max(1, wanted) if self._captures else 0

    def _sharing(self) -> int:
        """Actors that may come to lie on one node, one more than there are included."""
        actors = max(self._num_actors(), len(self._actors) + 1)
        return -(-actors // max(1, len(self._nodes.cpus)))

    def _new_actor(self) -> None:
        """Starts an actor; it gets work when it has answered, not while it waits for a place."""
        gpus = self.settings.gpus_per_model
        # on a single core the actor must leave room for the tasks that read its captures
        share = 1 if self._cpus > 1 else 0
        actor = CaptureActor.options(num_cpus=share, num_gpus=gpus).remote(
            num_threads=1 if not gpus else 4, num_gpus=gpus, sharing=self._sharing()
        )
        self._actors.append(actor)
        self._starting[actor.place.remote()] = actor

    def _drop(self, actor: Any) -> None:
        ray.kill(actor)
        self._actors.remove(actor)
        self._places.pop(actor, None)

    def _stop_actors(self) -> None:
        """Frees their CPUs for measuring tasks."""
        for actor in [*self._actors]:
            self._drop(actor)
        self._idle.clear()
        self._starting.clear()

    def _capturing(self) -> bool:
        return any(flight.actor is not None for flight in self._flights.values())

    def _submit(self, tokens: Any) -> None:
        while self._idle and self._captures:
            job, tries = self._captures.popleft()
            actor = self._idle.pop()
            node = self._places[actor].node
            ref = actor.capture.remote(self._files.begun(job, node), tokens)
            self._flights[ref] = Flight(job, tries, actor, time.monotonic(), node)
        self._nodes.busy = Counter(place.node for place in self._places.values())
        window = self.settings.workers or max(16, WINDOW_PER_CPU * self._cpus)
        submitted = sum(flight.actor is None for flight in self._flights.values())
        while submitted < window and (found := self._waiting.take()) is not None:
            self._send(*found)
            submitted += 1

    def _send(self, group: tuple[MeasureJob, ...], tries: int) -> None:
        """Submits measurements to the node where they are done soonest."""
        node = self._nodes.best(group[0], self._files, settled=tries > 1)
        seconds = self._waiting.seconds(group)
        scratch = self.settings.scratch if self._files.apart else None
        supply = Supply(scratch, self._files.held(group)) if scratch else None
        where = pinned(node, soft=True) if node else None
        memory = memory_of(group, asked=self._asking.of(group), largest=self._largest)
        task = measure_all.options(memory=memory, scheduling_strategy=where)
        ref = task.remote(group, self.store.uri, supply)
        self._nodes.queue(node, seconds)
        self._flights[ref] = Flight(group, tries, None, None, node, seconds, memory or 0.0)

    def _collect(self) -> None:
        mark_running(self._flights.values(), self._slots)
        patience = min(5.0, max(0.1, self.settings.deadline_s))
        ready, _ = ray.wait([*self._flights, *self._starting], num_returns=1, timeout=patience)
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
                continue
            flight = self._flights.pop(ref)
            self._nodes.queue(flight.node, -flight.seconds)
            try:
                result = ray.get(ref)
            except LOST as error:
                self._asking.killed(flight.job, error)
                self._lost(flight, said(error), waited=flight.waited(error, self._alive))
            except ray.exceptions.RayError as error:
                self._broken(flight, error)
            else:
                self._finished(flight, result)
        self._enforce_deadlines()

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            place = self._places[actor] = ray.get(ref)
        except LOST as error:
            self._actors.remove(actor)
            self._not_started += 1
            self.log("lost", tries=self._not_started, error=said(error))
            if self._not_started < TRIES:
                self._new_actor()
            while self._captures and not self._actors:  # it is always so
                self._fail(self._captures.popleft()[0].paths(), said(error))
        else:
            self._not_started = 0
            self._idle.append(actor)
            self.log("actor", pid=place.pid, node=place.node, address=place.address)

    def _slots(self, node: str | None, memory: float) -> int:
        """Measuring tasks of so much memory that a node, or the cluster, runs at a time."""
        free = self._nodes.free(node) if node else self._cpus - len(self._actors)
        return max(1, int(min(free, self._nodes.fitting(node, memory))))

    def _enforce_deadlines(self) -> None:
        """Gives up what runs too long."""
        now = time.monotonic()
        for ref, flight in list(self._flights.items()):
            if flight.since is None:
                continue
            jobs = 1 if isinstance(flight.job, CaptureJob) else len(flight.job)
            limit = self.settings.deadline_s * jobs
            if now - flight.since <= limit:
                continue
            del self._flights[ref]
            self._nodes.queue(flight.node, -flight.seconds)
            if flight.actor is None:
                ray.cancel(ref, force=True)
            self._lost(flight, f"deadline: got more than {limit:g} s")

    def _finished(self, flight: Flight, result: Any) -> None:
        if isinstance(result, CaptureOutcome):
            self._captured(flight, result)
            return
        assert not isinstance(flight.job, CaptureJob)
        for job, outcome in zip(flight.job, result, strict=True):
            self._fetched(outcome.fetches)
            if isinstance(outcome, Unfetched):
                self._unfetched(flight, job, outcome)
                continue
            self._waiting.took(job, outcome.wall_s)
            self._done(job, outcome)

    def _fetched(self, fetches: Iterable[Fetch]) -> None:
        for fetch in fetches:
            self._files.copied(fetch.path, fetch.node)
            self.log(
                "fetched", file=Path(fetch.path).name, source=fetch.source, node=fetch.node,
                bytes_fetched=fetch.size, wall_s=fetch.wall_s,
            )  # fmt: skip

    def _unfetched(self, flight: Flight, job: MeasureJob, got: Unfetched) -> None:
        """A measurement waits for a capture that is lost; a full disk of its own is a try of it."""
        self.log("unfetched", key=job.key, error=got.error)
        if got.gone:
            self._remake(self._files.gone(got.gone, [got.path]), got.error)
            self._waiting.put(job, flight.tries)
        elif flight.tries >= TRIES:
            self._give_up([job], got.error)
        else:
            self._waiting.put(job, flight.tries + 1)

    def _captured(self, flight: Flight, outcome: CaptureOutcome) -> None:
        self._idle.append(flight.actor)
        assert isinstance(flight.job, CaptureJob) and flight.node is not None
        self.log(
            "captured", unit=flight.job.facts.get("unit"), files=len(outcome.written),
            bytes=sum(outcome.written.values()), wall_s=outcome.wall_s, failed=len(outcome.failed),
            load=outcome.load, reason=outcome.reason, tokens=outcome.tokens, node=flight.node,
            queue=self._queue(),
        )  # fmt: skip
        names = self._files.names(flight.job, flight.node)
        for written, num_bytes in outcome.written.items():
            self._files.made(names[written], num_bytes, flight.node)
        for written in outcome.written:
            self._waiting.wake(names[written])
        for path, error in outcome.failed.items():
            self._fail([names[path]], error)

    def _queue(self) -> int:
        """Jobs that wait to be submitted."""
        return len(self._waiting) + len(self._captures)

    def _release(self, job: MeasureJob) -> None:
        """Deletes a capture file, on every node that has it, when its last measurement is done."""
        for path, nodes in self._files.release(job):
            if self.settings.discard:
                self._removals(path, nodes)

    def _lost(self, flight: Flight, error: str, *, waited: bool = False) -> None:
        """The worker is gone: what is not done yet again, on a new actor where it had one."""
        self.log("lost", tries=flight.tries, error=error)
        if flight.actor is not None:
            self._drop(flight.actor)
            self._new_actor()
        if not isinstance(flight.job, CaptureJob):
            self._again(flight.job, flight.tries, None if waited else error)
        elif flight.tries >= TRIES:
            self._fail(flight.job.paths(), error)
        else:
            self._captures.append((flight.job, flight.tries + 1))

    def _broken(self, flight: Flight, error: Exception) -> None:
        """The work itself raised: it becomes failed rows, unless the store had a bad moment."""
        if isinstance(flight.job, CaptureJob):
            self._idle.append(flight.actor)
            self._fail(flight.job.paths(), cause(error))
        elif len(flight.job) > 1 or isinstance(error, OSError):
            self.log("lost", tries=flight.tries, error=cause(error))
            self._again(flight.job, flight.tries, cause(error))
        else:
            self._give_up(flight.job, cause(error))

    def _again(self, jobs: Iterable[MeasureJob], tries: int, error: str | None) -> None:
        """One by one, so that a job that kills its worker takes no other with it.

        Of a group, the first that is not done was at work, and this was a try of it; those after it
        waited, and so did all of them without an `error`.
        """
        for job in jobs:
            if self._is_written(job):
                self._note(job, error=None)
            elif error is None:
                self._waiting.put(job, tries, alone=True)
            elif tries >= TRIES:
                self._give_up([job], error)
            else:
                self._waiting.put(job, tries + 1)
                error = None

    def _give_up(self, jobs: Iterable[MeasureJob], error: str) -> None:
        for job in jobs:
            if self._is_written(job):
                self._note(job, error=None)
            else:
                write_failed(self.store, job, error)
                self._note(job, error=error)

    def _is_written(self, job: MeasureJob) -> bool:
        """A worker may be lost after it has written and before it could say so."""
        return self.store.exists(f"{job.name}.parquet")

    def _note(self, job: MeasureJob, *, error: str | None) -> None:
        self._done(job, unmade(job, error))

    def _done(self, job: MeasureJob, outcome: Outcome) -> None:
        """Logs what was made; after its last part, good or failed, a measurement is assembled."""
        about = {
            "key": job.key, "unit": job.labels["unit"], "invariant": job.invariant,
            "wall_s": outcome.wall_s, "error": outcome.error, "queue": self._queue(),
        }  # fmt: skip
        if job.part is not None:
            self.log("part", tensor=job.part.tensor, **about)
            if whole := self._parts.done(job):
                self._waiting.put(whole)
            return
        read = sum(self._files.sizes.get(path, 0) for path in job.paths()) if outcome.wall_s else 0
        self.log("measured", bytes_read=read, **about, **outcome.counts)
        self._release(job)
