"""The driver: submits captures and measurements within a window, and survives what is lost.

It keeps no state but the store: what is done is what has its measurement file there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.cluster.actors import measure_all
from scaleinv_ray.cluster.driving.crew import Crew, number_of_actors
from scaleinv_ray.cluster.driving.memory_backoff import Shrinking, less_memory
from scaleinv_ray.cluster.driving.results import Results
from scaleinv_ray.cluster.driving.waiting import Waiting
from scaleinv_ray.cluster.nodes.checks import most_memory, nowhere
from scaleinv_ray.cluster.nodes.joining import Joining, Needs, Terms, Unfit
from scaleinv_ray.cluster.nodes.node_kinds import coming_kinds, present_kinds
from scaleinv_ray.cluster.pending import LOST, Flight, cause, mark_running, said
from scaleinv_ray.cluster.scratch.disk import Scratch
from scaleinv_ray.cluster.scratch.placement import TRIES, Files, Nodes
from scaleinv_ray.cluster.scratch.transfer import Keepers, Removals, Supply, pinned
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.ranges import largest_first, memory_of
from scaleinv_ray.plan.jobs import CaptureJob, CaptureOutcome, Fetch, Jobs, MeasureJob, Unfetched
from scaleinv_ray.store import Store
from scaleinv_ray.store.patience import refused

WINDOW_PER_CPU = 4
COUNT_S = 5.0
"""Seconds between two looks at the cluster's resources."""


@dataclass
class Driver:
    """Runs `work` on the connected cluster.

    Attributes:
        store: where tables go.
        work: what is to be done.
        options: how.
        log: takes the name of an event and its values.
        terms: what every node has to have; None asks nothing.
        needs: what nodes have to have beside them that come later.
        scratch: where the captures of this run lie; others are never deleted.
        discard: delete a capture file when nothing needs it any more.
        paid: takes what a trained model pays a token, by probe, as its captures come.
    """

    store: Store
    work: Jobs
    options: ClusterOptions
    log: Callable[..., None]
    terms: Terms | None = None
    needs: Needs = Needs()
    scratch: Scratch | None = None
    discard: bool = False
    paid: Callable[[Checkpoint, Mapping[str, float]], None] = lambda *_: None
    _files: Files = field(init=False)
    _waiting: Waiting = field(init=False)
    _results: Results = field(init=False)
    _asking: Shrinking = field(init=False)
    _joining: Joining = field(init=False)
    _crew: Crew = field(init=False)
    _keepers: Keepers = field(init=False)
    _nodes: Nodes = field(default_factory=Nodes)
    _flights: dict[Any, Flight] = field(default_factory=dict)
    _captures: deque[tuple[CaptureJob, int]] = field(default_factory=deque)
    _alive: set[str] = field(default_factory=set)
    _largest: float = 0.0
    _cpus: int = 1
    _gpus: float = 0.0
    _counted: float = 0.0
    _bare_since: float | None = None

    def __post_init__(self) -> None:
        """Knows the captures that exist and those to be made."""
        self._files = Files(self.work, self.scratch)
        self._keepers = Keepers(self.scratch)
        removals = Removals(self._keepers) if self.discard else None
        self._results = Results(
            self.store, self._files, self._nodes, removals, self.log, self._captures
        )
        self._waiting = self._results.waiting
        self._asking = Shrinking(self.options.memory)
        self._joining = Joining(self.terms, self.needs, self.log)
        self._crew = Crew(self.options, self._joining, self.terms)

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
                if len(self._crew) and not self._captures and not self._capturing():
                    self._crew.stop()
            self._results.finish()
        finally:
            self._crew.stop()
            self._keepers.stop()

    def _count_cpus(self) -> None:
        """Nodes come and go: actors are added as there is room for them."""
        now = time.monotonic()
        if self._counted and now - self._counted < COUNT_S:
            return
        self._counted = now
        self._look_at_nodes()
        for _ in range(self._num_actors() - len(self._crew)):
            self._new_actor()

    def _look_at_nodes(self) -> None:
        """What lay on a node that is gone is lost; where one goes, an idle actor makes way."""
        alive = [n for n in ray.nodes() if n["Alive"]]
        self._joining.look(alive)
        barred, closed = self._joining.barred, self._joining.closed
        nodes = {n["NodeID"]: n["Resources"] for n in alive if n["NodeID"] not in barred}
        cpus, gpus, self._nodes.memory = (
            {n: of.get(what, 0.0) for n, of in nodes.items()} for what in ("CPU", "GPU", "memory")
        )
        self._cpus, self._gpus = max(1, int(sum(cpus.values()))), sum(gpus.values())
        self._largest = most_memory(present_kinds())
        there = {n["NodeID"] for n in alive}
        gone, self._alive = self._alive - there, there
        leaving = gone | ray._private.state.state.get_draining_nodes().keys()  # has notice
        leaving |= closed
        self._nodes.cpus = {n: c for n, c in cpus.items() if c >= 1 and n not in leaving}
        now = time.monotonic()
        self._bare_since = None if self._nodes.cpus else self._bare_since or now
        self._crew.leave(leaving)
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
        waiting = len(self._captures)
        return number_of_actors(waiting, self.options, cpus=self._cpus, gpus=self._gpus)

    def _sharing(self) -> int:
        """Actors that may come to lie on one node, one more than there are included."""
        actors = max(self._num_actors(), len(self._crew) + 1)
        return -(-actors // max(1, len(self._nodes.cpus)))

    def _new_actor(self) -> None:
        self._crew.add(cpus=self._cpus, sharing=self._sharing())

    def _capturing(self) -> bool:
        return any(flight.actor is not None for flight in self._flights.values())

    def _submit(self, tokens: Any) -> None:
        while self._crew.idle and self._captures:
            job, tries = self._captures.popleft()
            actor = self._crew.idle.pop()
            node = self._crew.place_of(actor).node
            ref = actor.capture.remote(self._files.begun(job, node), tokens)
            self._flights[ref] = Flight(job, tries, actor, time.monotonic(), node)
        self._nodes.busy = self._crew.busy()
        window = self.options.workers or max(16, WINDOW_PER_CPU * self._cpus)
        submitted = sum(flight.actor is None for flight in self._flights.values())
        while submitted < window and (found := self._waiting.take()) is not None:
            self._send(*found)
            submitted += 1

    def _send(self, group: tuple[MeasureJob, ...], tries: int) -> None:
        """Submits measurements to the node where they are done soonest."""
        node = self._nodes.best(group[0], self._files, settled=tries > 1)
        seconds = self._waiting.seconds(group)
        supply = self._supply(group)
        where = pinned(node, soft=True) if node else None
        memory = memory_of(group, asked=self._asking.of(group), largest=self._largest)
        options = {"memory": memory, "scheduling_strategy": where, **self._joining.elsewhere()}
        ref = measure_all.options(**options).remote(group, self.store.uri, supply, self.terms)
        self._nodes.queue(node, seconds)
        self._flights[ref] = Flight(group, tries, None, None, node, seconds, memory or 0.0)

    def _supply(self, group: tuple[MeasureJob, ...]) -> Supply | None:
        """Where the captures of measurements are, if not everywhere."""
        if self.scratch is None or self.scratch.shared:
            return None
        held = self._files.held(group)
        keepers = self._keepers.of(node for file in held.values() for node in file.nodes)
        return Supply(self.scratch, held, keepers)

    def _collect(self) -> None:
        mark_running(self._flights.values(), self._slots)
        patience = min(5.0, max(0.1, self.options.deadline), self.options.node_wait)
        waited_for = [*self._flights, *self._crew.questions, *self._joining.questions]
        if not waited_for:
            time.sleep(0.1)  # nothing is under way: a turn of the loop must not be for nothing
        ready, _ = ray.wait(waited_for, num_returns=1, timeout=patience)
        for ref in ready:
            if ref in self._flights:
                self._landed(ref)
            elif not self._joining.answered(ref):
                self._started(ref)
        self._enforce_deadlines()
        self._enforce_places()

    def _landed(self, ref: Any) -> None:
        flight = self._flights.pop(ref)
        self._nodes.queue(flight.node, -flight.seconds)
        try:
            result = ray.get(ref)
        except LOST as error:
            self._asking.killed(flight.job, error)
            spared = self._crew.killed_for_memory(flight.actor, error)
            waited = flight.waited(error, self._alive)
            self._lost(flight, said(error), waited=waited, spared=spared)
        except ray.exceptions.RayError as error:
            self._broken(flight, error)
        else:
            self._finished(flight, result)

    def _started(self, ref: Any) -> None:
        """An actor has a place, or has none, or is on a node that does not fit."""
        found = self._crew.started(ref)
        if isinstance(found, Unfit):
            self._joining.bar(found.node, found.reason)
            self._counted = 0.0  # another one is started elsewhere
        elif isinstance(found, str):
            self.log("lost", tries=self._crew.failures, error=found)
            if self._crew.failures < TRIES:
                self._new_actor()
            elif not len(self._crew):  # it is always so
                self._fail_captures(found)
        elif found is not None:
            self.log("actor", pid=found.pid, node=found.node, address=found.address)

    def _fail_captures(self, error: str) -> None:
        while self._captures:
            self._fail(self._captures.popleft()[0].paths(), error)

    def _slots(self, node: str | None, memory: float) -> int:
        """Measuring tasks of so much memory that a node, or the cluster, runs at a time."""
        free = self._nodes.free(node) if node else self._cpus - len(self._crew)
        return max(1, int(min(free, self._nodes.fitting(node, memory))))

    def _enforce_deadlines(self) -> None:
        """Gives up what runs too long."""
        now = time.monotonic()
        for ref, flight in list(self._flights.items()):
            if flight.since is None:
                continue
            jobs = 1 if isinstance(flight.job, CaptureJob) else len(flight.job)
            limit = self.options.deadline * jobs
            if now - flight.since <= limit:
                continue
            del self._flights[ref]
            self._nodes.queue(flight.node, -flight.seconds)
            if flight.actor is None:
                ray.cancel(ref, force=True)
            self._lost(flight, f"deadline: got more than {limit:g} s")

    def _enforce_places(self) -> None:
        """Gives up what no node has room for, though it has waited long for one to come."""
        limit = self.options.node_wait
        if self._crew.unplaced():
            asked = self._crew.asks(self._cpus)
            self._fail_captures(nowhere(asked, limit, present_kinds(), coming_kinds()))
            self._crew.stop()
        if self._bare_since is None or time.monotonic() - self._bare_since <= limit:
            return
        error = nowhere({"CPU": 1}, limit, present_kinds(), coming_kinds())
        for ref, flight in list(self._flights.items()):
            if not isinstance(flight.job, CaptureJob):
                del self._flights[ref]
                ray.cancel(ref, force=True)
                self._results.give_up(flight.job, error)
        while (found := self._waiting.take()) is not None:
            self._results.give_up(found[0], error)

    def _finished(self, flight: Flight, result: Any) -> None:
        if isinstance(result, CaptureOutcome):
            self._captured(flight, result)
            return
        if isinstance(result, Unfit):
            assert not isinstance(flight.job, CaptureJob)
            self._joining.bar(result.node, result.reason)
            self._results.again(flight.job, flight.tries, None)
            return
        assert not isinstance(flight.job, CaptureJob)
        for job, outcome in zip(flight.job, result, strict=True):
            self._fetched(outcome.fetches)
            if isinstance(outcome, Unfetched):
                self._unfetched(flight, job, outcome)
                continue
            self._waiting.took(job, outcome.wall_s)
            self._results.done(job, outcome)

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
        if got.gone or got.damaged:
            self._remake(self._files.without(got, Removals(self._keepers).now), got.error)
            self._waiting.put(job, flight.tries)
        elif flight.tries >= TRIES:
            self._results.give_up([job], got.error)
        else:
            self._waiting.put(job, flight.tries + 1)

    def _captured(self, flight: Flight, outcome: CaptureOutcome) -> None:
        self._crew.idle.append(flight.actor)
        assert isinstance(flight.job, CaptureJob) and flight.node is not None
        self.log(
            "captured", unit=flight.job.facts.get("unit"), files=len(outcome.written),
            bytes=sum(outcome.written.values()), wall_s=outcome.wall_s, failed=len(outcome.failed),
            load=outcome.load, reason=outcome.reason, tokens=outcome.tokens, node=flight.node,
            queue=self._results.queue(),
        )  # fmt: skip
        if outcome.losses:
            self.paid(flight.job.weights.checkpoint, outcome.losses)
        names = self._files.names(flight.job, flight.node)
        for written, num_bytes in outcome.written.items():
            self._files.made(names[written], num_bytes, flight.node)
        for written in outcome.written:
            self._waiting.wake(names[written])
        for path, error in outcome.failed.items():
            self._fail([names[path]], error)

    def _lost(
        self, flight: Flight, error: str, *, waited: bool = False, spared: bool = False
    ) -> None:
        """The worker is gone: what is not done yet again, on a new actor where it had one.

        What was `spared` had too little memory, and is done with less.
        """
        self.log("lost", tries=flight.tries, error=error)
        if flight.actor is not None:
            self._crew.drop(flight.actor)
            self._new_actor()
        if not isinstance(flight.job, CaptureJob):
            self._results.again(flight.job, flight.tries, None if waited else error)
            return
        job, why = less_memory(flight.job, error) if spared else (flight.job, error)
        if job.spared and not flight.job.spared:
            self.log("notice", text=f"{job.facts.get('unit')}: {job.spared}")
        if flight.tries >= TRIES:
            self._fail(job.paths(), why)
        else:
            self._captures.append((job, flight.tries + 1))

    def _broken(self, flight: Flight, error: Exception) -> None:
        """The work itself raised: it becomes failed rows, unless the store had a bad moment."""
        if isinstance(flight.job, CaptureJob):
            self._crew.idle.append(flight.actor)
            self._fail(flight.job.paths(), cause(error))
        elif len(flight.job) > 1 or (isinstance(error, OSError) and not refused(error)):
            self.log("lost", tries=flight.tries, error=cause(error))
            self._results.again(flight.job, flight.tries, cause(error))
        else:
            self._results.give_up(flight.job, cause(error))
