"""What a driver knows of captures and nodes: which file is where, and where a task goes best.

Needs no Ray.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scaleinv_ray.cluster.scratch.disk import Scratch
from scaleinv_ray.measure.inventory import say
from scaleinv_ray.plan.jobs import CaptureJob, Held, Jobs, MeasureJob, Unfetched

TRIES = 3
"""Times in all that something is begun whose worker or node is lost."""
FETCH_S = 0.5
"""Seconds that a fetch takes at least."""
BANDWIDTH = 1e8
"""Bytes a second that a fetch moves."""


class Files:
    """The capture files of a run: which exist, which are being made, and what still needs them.

    Attributes:
        scratch: where they lie; None where a run makes none.
        pending: paths of files that are being made, or wait for it.
        failed: error by path of files that could not be made.
        sizes: bytes by path.
    """

    def __init__(self, work: Jobs, scratch: Scratch | None) -> None:
        """Takes the captures of `work`; those that were found count as made."""
        self.scratch = scratch
        self._maker = {path: job for job in work.captures for path in job.paths()}
        self._tries: Counter[str] = Counter()
        self._left = Counter(path for job in work.measurements for path in job.paths())
        self._on: dict[str, list[str]] = {path: [*held.nodes] for path, held in work.found.items()}
        self.sizes = {path: held.size for path, held in work.found.items()}
        self.pending = set(self._maker) - set(work.found)
        self.failed: dict[str, str] = {}

    @property
    def apart(self) -> bool:
        """Every node has files of its own."""
        return self.scratch is not None and not self.scratch.shared

    def to_make(self, paths: Collection[str]) -> list[tuple[CaptureJob, int]]:
        """Jobs for some files, each with the number of the try that it is; they become pending."""
        groups: dict[int, list[str]] = {}
        for path in (p for p in self._maker if p in paths):
            groups.setdefault(id(self._maker[path]), []).append(path)
        self.pending |= set(paths)
        made = []
        for group in groups.values():
            job = self._maker[group[0]].renamed({path: path for path in group})
            made.append((job, 1 + max(self._tries[path] for path in group)))
        return made

    def begun(self, job: CaptureJob, node: str) -> CaptureJob:
        """Counts a try of a capture; the job as the node is to do it."""
        self._tries.update(job.paths())
        if self.scratch is None or self.scratch.shared:
            return job
        return job.renamed(self._local_names(job.paths(), node))

    def names(self, job: CaptureJob, node: str) -> dict[str, str]:
        """How jobs name the files that a node wrote, by the path that it wrote."""
        return {local: path for path, local in self._local_names(job.paths(), node).items()}

    def _local_names(self, paths: Iterable[str], node: str) -> dict[str, str]:
        if self.scratch is None or self.scratch.shared:
            return {path: path for path in paths}
        return {path: str(self.scratch.on(node, Path(path).name)) for path in paths}

    def made(self, path: str, size: int, node: str) -> None:
        """A file is whole on a node."""
        self.pending.discard(path)
        self.sizes[path] = size
        self._on[path] = [node]

    def copied(self, path: str, node: str) -> None:
        """Another node has it too."""
        if node not in self._on.setdefault(path, []):
            self._on[path].append(node)

    def fail(self, path: str, error: str) -> None:
        """A file will not be made."""
        self.pending.discard(path)
        self.failed[path] = error

    def gone(self, nodes: Collection[str], paths: Iterable[str] | None = None) -> list[str]:
        """Files of nodes are no longer there.

        Args:
            paths: which files, None for all of these nodes.

        Returns:
            Those that no node has any more and that are still needed; they are to be made again.
        """
        lost = []
        for path in self._on if paths is None else paths:
            before = self._on.get(path, [])
            self._on[path] = [n for n in before if n not in nodes]
            if before and not self._on[path] and self._left[path] and path in self._maker:
                lost.append(path)
        return lost

    def without(self, got: Unfetched, remove: Callable[[str, tuple[str, ...]], None]) -> list[str]:
        """What a measurement could not have.

        Args:
            got: says which file, and of which nodes.
            remove: deletes a file on nodes, at once.

        Returns:
            The file, where it is to be made again. One that is damaged and not of this run is not:
            it has failed.
        """
        if not got.damaged:
            return self.gone(got.gone, [got.path])
        if got.path not in self._maker:
            self.fail(got.path, got.error)
        elif got.path not in self.pending:  # else another measurement has said so before
            say([f"{got.error}; deleted and made again"])
            remove(got.path, tuple(self._on.pop(got.path, ())))
            return [got.path]
        return []

    def exhausted(self, path: str) -> bool:
        """Whether a file was begun as often as it may be."""
        return self._tries[path] >= TRIES

    def blocking(self, job: MeasureJob) -> str | None:
        """A file that a job has to wait for."""
        return next((path for path in job.paths() if path in self.pending), None)

    def error_of(self, job: MeasureJob) -> str | None:
        """Why a job can never be done."""
        return next((self.failed[path] for path in job.paths() if path in self.failed), None)

    def available(self, job: MeasureJob) -> bool:
        """Whether all its files are there."""
        return self.error_of(job) is None and self.blocking(job) is None

    def held(self, jobs: Iterable[MeasureJob]) -> dict[str, Held]:
        """Where the files are that some jobs read."""
        paths = {path for job in jobs for path in job.paths() if path in self._on}
        return {path: Held(self.sizes[path], tuple(self._on[path])) for path in paths}

    def absent(self, job: MeasureJob, node: str) -> list[int]:
        """Sizes of the files of a job that a node would have to fetch."""
        paths = (p for p in job.paths() if p in self._on and node not in self._on[p])
        return [self.sizes[path] for path in paths]

    def release(self, job: MeasureJob) -> list[tuple[str, tuple[str, ...]]]:
        """A job is done; its files that nothing needs any more, and the nodes that have them."""
        free = []
        for path in job.paths():
            self._left[path] -= 1
            if self._left[path] == 0 and self.scratch is not None and self.scratch.holds(path):
                free.append((path, tuple(self._on.pop(path, ()))))
        return free


@dataclass
class Nodes:
    """The nodes that run measuring tasks, and what was sent there.

    Attributes:
        cpus: by id.
        busy: CPUs that capture actors have taken, by id.
        queued_s: seconds of work sent to a node and not yet done, by id.
        memory: bytes for tasks, by id.
    """

    cpus: Mapping[str, float] = field(default_factory=dict)
    busy: Counter[str] = field(default_factory=Counter)
    queued_s: dict[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)

    def fitting(self, node: str | None, memory: float) -> float:
        """How many tasks that ask for so much memory fit on a node, or on all of them."""
        if not memory:
            return math.inf
        return sum(self.memory.get(n, 0.0) // memory for n in ([node] if node else self.cpus))

    def free(self, node: str) -> float:
        """CPUs for tasks; a node without any still does one after the other, much later."""
        return max(self.cpus.get(node, 0) - self.busy[node], 1e-3)

    def best(self, job: MeasureJob, files: Files, *, settled: bool) -> str | None:
        """Where a job is done soonest: the work queued there, and the files still to be fetched.

        Args:
            settled: no fetch that can be avoided, however long it waits.

        Returns:
            Id of a node, None where Ray may choose.
        """
        if not files.apart or len(self.cpus) < 2:
            return None

        def cost(node: str) -> tuple[float, float]:
            fetch = sum(FETCH_S + size / BANDWIDTH for size in files.absent(job, node))
            wait = self.queued_s.get(node, 0.0) / self.free(node)
            # a node the CPUs of which are all taken by actors is no place to wait at
            wait += 1e6 * (self.cpus[node] - self.busy[node] < 1)
            return (fetch, wait) if settled else (fetch + wait, fetch)

        return min(self.cpus, key=cost)

    def queue(self, node: str | None, seconds: float) -> None:
        """Work was sent to a node, or is no longer there (negative)."""
        if node is not None:
            self.queued_s[node] = max(0.0, self.queued_s.get(node, 0.0) + seconds)
