"""What becomes of measurements: made, tried again, or given up with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import replace
from functools import cached_property

from scaleinv_ray.cluster.driving.waiting import Waiting
from scaleinv_ray.cluster.pending import cause
from scaleinv_ray.cluster.scratch.placement import TRIES, Files, Nodes
from scaleinv_ray.cluster.scratch.transfer import Removals
from scaleinv_ray.measure.inventory import whole_ranges
from scaleinv_ray.measure.measuring import unmade, write_failed
from scaleinv_ray.measure.ranges import ranges_of
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
            removals: of captures that nothing needs any more; None keeps them.
            log: as of the driver.
            captures: those that wait to be submitted.
        """
        self._store, self._files, self._log, self._captures = store, files, log, captures
        self._left: dict[str, dict[str, Outcome | None]] = {}
        self._removals = removals
        self.waiting = Waiting(files, nodes, self._divided, self.give_up)

    @cached_property
    def _made(self) -> set[str]:
        """Ranges that an earlier run has left."""
        return whole_ranges(self._store)

    def _divided(self, job: MeasureJob) -> list[MeasureJob]:
        """The ranges of a measurement that no earlier run has left, or the job itself."""
        ranges = ranges_of(job)
        if ranges == [job]:
            return ranges
        # where all are there nothing is missing, but the measurement has to end: with any of them
        missing = [j for j in ranges if j.stem not in self._made] or ranges[:1]
        self._left[job.key] = dict.fromkeys(j.stem for j in missing)
        return missing

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
        """Logs what was made; a measurement ends with the last of its ranges, good or failed.

        Args:
            job: that has ended.
        """
        if job.only is None:
            self._end(job, outcome)
            return
        self._log("range", tensor=job.only.tensor, **self._about(job, outcome))
        ranges = self._left[job.key]
        is_last = ranges[job.stem] is None
        ranges[job.stem] = outcome
        ended = [of for of in ranges.values() if of is not None]
        if is_last and len(ended) == len(ranges):
            self._end(replace(job, only=None), together(ended))

    def _end(self, job: MeasureJob, outcome: Outcome) -> None:
        read = sum(self._files.sizes.get(path, 0) for path in job.paths()) if outcome.wall_s else 0
        self._log("measured", bytes_read=read, **self._about(job, outcome), **outcome.counts)
        self._release(job)

    def _about(self, job: MeasureJob, outcome: Outcome) -> dict[str, object]:
        return {
            "key": job.key, "unit": job.labels["unit"], "invariant": job.invariant,
            "wall_s": outcome.wall_s, "error": outcome.error, "queue": self.queue(),
        }  # fmt: skip

    def _release(self, job: MeasureJob) -> None:
        """Deletes a capture file, on every node that has it, when its last measurement is done."""
        for path, nodes in self._files.release(job):
            if self._removals is not None:
                self._removals(path, nodes)

    def finish(self) -> None:
        """Waits for deletions that are under way."""
        if self._removals is not None:
            self._removals.finish()


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """What is reported of a measurement, of its ranges that this run has made."""
    first = outcomes[0]
    return Outcome(
        first.key,
        first.invariant,
        {status: sum(of.counts[status] for of in outcomes) for status in first.counts},
        sum(of.wall_s for of in outcomes),
        next((of.error for of in outcomes if of.error), None),
    )
