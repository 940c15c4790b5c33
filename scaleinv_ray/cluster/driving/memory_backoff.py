"""Fewer tasks at a time on a node whose memory was too small for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.measure.ranges import memory_of
from scaleinv_ray.plan.jobs import CaptureJob, MeasureJob


class Shrinking:
    """What measurements ask for that Ray killed because their node ran out of memory.

    Ray grants a request by counting, and kills by what is used. A measurement that was killed asks
    for twice as much as before, so that less runs beside it, until it has a node to itself.
    """

    def __init__(self, asked: int | None) -> None:
        """Begins with what every measuring task asks for, None for nothing."""
        self._all = asked
        self._one: dict[str, int] = {}

    def killed(self, job: CaptureJob | Sequence[MeasureJob], error: Exception) -> None:
        """Learns why work was lost; only want of memory counts, and only of measurements."""
        if isinstance(error, ray.exceptions.OutOfMemoryError) and not isinstance(job, CaptureJob):
            nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            for one in job:
                asked = memory_of([one], asked=self.of([one]), largest=math.inf)
                self._one[one.name] = doubled(asked, nodes)

    def of(self, group: Sequence[MeasureJob]) -> int | None:
        """Bytes that a task asks for which makes these one after the other."""
        return max((self._one[j.name] for j in group if j.name in self._one), default=self._all)


def doubled(asked: int | None, nodes: Sequence[Mapping[str, Any]]) -> int:
    """Twice what was asked for.

    Args:
        asked: bytes; None counts as a CPU's share of the memory of the node with the smallest.
        nodes: resources of those that are there.

    Returns:
        Bytes; no more than the largest node has, for a larger request would wait for ever.
    """
    working = [n for n in nodes if n.get("CPU", 0) >= 1 and "memory" in n]
    share = min((n["memory"] / n["CPU"] for n in working), default=0)
    largest = max((n["memory"] for n in working), default=0)
    return int(min(2 * (asked or share), largest))


SPARED = "its actor was killed for memory, so the model is streamed"


def less_memory(job: CaptureJob, error: str) -> tuple[CaptureJob, str]:
    """A capture whose actor was killed for memory.

    Args:
        error: what Ray said of it.

    Returns:
        The job as it is tried again, streamed unless the config asks for another way; and why it
        failed, where this was its last try.
    """
    if job.load == "auto":
        return replace(job, spared=SPARED), error
    if job.load == "streamed":
        return job, error
    return job, f"cluster.load: got {job.load!r}, allowed with this memory 'streamed': {error}"
