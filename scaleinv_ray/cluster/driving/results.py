"""What becomes of measurements: made, tried again, or given up with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized

from scaleinv_ray.cluster.driving.waiting import Waiting
from scaleinv_ray.cluster.pending import cause
from scaleinv_ray.cluster.scratch.placement import TRIES, Files, Nodes
from scaleinv_ray.cluster.scratch.transfer import Removals
from scaleinv_ray.measure.measuring import unmade
from scaleinv_ray.measure.tensor_tasks import Parts, write_failed
from scaleinv_ray.plan.jobs import MeasureJob, Outcome
from scaleinv_ray.store import Store


class Results:
    """Ends each measurement once: with rows, or with failed rows that say why.

    Attributes:
        waiting: measurements that are not under way.
    """

    def __init__(
        self,
        store: Store,
        files: Files,
        nodes: Nodes,
        removals: Removals | None,
        log: Callable[..., None],
        captures: Sized,
    ) -> None:
        """Begins with nothing.

        Args:
            store: where rows go.
            nodes: where tasks may go.
            removals: of captures that nothing needs any more; None keeps them.
            log: as of the driver.
            captures: those that wait to be submitted.
        """
        self._store, self._files, self._log, self._captures = store, files, log, captures
        self._parts = Parts(store)
        self._removals = removals
        self.waiting = Waiting(files, nodes, self._parts, self.give_up)

    def queue(self) -> int:
        """Jobs that wait to be submitted."""
        return len(self.waiting) + len(self._captures)

    def again(self, jobs: Iterable[MeasureJob], tries: int, error: str | None) -> None:
        """One by one, so that a job that kills its worker takes no other with it.

        Of a group, the first that is not done was at work, and this was a try of it; those after it
        waited, and so did all of them without an `error`.

        Args:
            jobs: of a task that did not end well.
            tries: this one included.
        """
        for job in jobs:
            if self._is_written(job):
                self.done(job, unmade(job, None))
            elif error is None:
                self.waiting.put(job, tries, alone=True)
            elif tries >= TRIES:
                self.give_up([job], error)
            else:
                self.waiting.put(job, tries + 1)
                error = None

    def give_up(self, jobs: Iterable[MeasureJob], error: str) -> None:
        """Writes failed rows.

        Args:
            jobs: that will not be made by this run.
        """
        for job in jobs:
            if self._is_written(job):
                self.done(job, unmade(job, None))
                continue
            said = error
            try:
                write_failed(self._store, job, error)
            except OSError as unwritten:  # the next run finds it missing, and makes it
                said = f"{error}; nor could its rows be written: {cause(unwritten)}"
            self.done(job, unmade(job, said))

    def _is_written(self, job: MeasureJob) -> bool:
        """A worker may be lost after it has written and before it could say so."""
        try:
            return self._store.exists(f"{job.name}.parquet")
        except OSError:  # of a store that does not answer: made again, the rows are the same
            return False

    def done(self, job: MeasureJob, outcome: Outcome) -> None:
        """Logs what was made; after its last part, good or failed, a measurement is assembled.

        Args:
            job: that has ended.
        """
        about = {
            "key": job.key, "unit": job.labels["unit"], "invariant": job.invariant,
            "wall_s": outcome.wall_s, "error": outcome.error, "queue": self.queue(),
        }  # fmt: skip
        if job.part is not None:
            self._log("part", tensor=job.part.tensor, **about)
            if whole := self._parts.done(job):
                self.waiting.put(whole)
            return
        read = sum(self._files.sizes.get(path, 0) for path in job.paths()) if outcome.wall_s else 0
        self._log("measured", bytes_read=read, **about, **outcome.counts)
        self._release(job)

    def _release(self, job: MeasureJob) -> None:
        """Deletes a capture file, on every node that has it, when its last measurement is done."""
        for path, nodes in self._files.release(job):
            if self._removals is not None:
                self._removals(path, nodes)

    def finish(self) -> None:
        """Waits for deletions that are under way."""
        if self._removals is not None:
            self._removals.finish()
