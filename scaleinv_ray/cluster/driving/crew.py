"""The capture actors of a run: those that wait for a place, and where each of the others is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from scaleinv_ray.cluster.actors import CaptureActor
from scaleinv_ray.cluster.nodes.joining import Joining, Terms, Unfit
from scaleinv_ray.cluster.pending import LOST, said
from scaleinv_ray.cluster.scratch.transfer import pinned
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.plan.costs import oom_kills
from scaleinv_ray.plan.jobs import ActorPlace

ASKED_S = 10.0
"""Time for a node to say why an actor was lost there."""


def number_of_actors(waiting: int, options: ClusterOptions, *, cpus: int, gpus: float = 0.0) -> int:
    """As many as fit while a CPU is left for the tasks that read their captures.

    Args:
        waiting: captures that are to be made.

    Returns:
        One at least, where anything waits.
    """
    if not waiting:
        return 0
    each = options.gpus_per_model
    room = int(gpus // each) if each else cpus // 2
    return max(1, min(options.actors or room, cpus - 1, waiting))


@ray.remote(num_cpus=0, max_retries=0)
def _kills() -> int:
    return oom_kills()


@dataclass
class _Starting:
    """An actor that has no place yet, and since when."""

    actor: Any
    since: float


class Crew:
    """The capture actors of a run.

    Attributes:
        idle: those that wait for work.
        failures: that were lost before they had answered, one after the other.
    """

    def __init__(self, options: ClusterOptions, joining: Joining, terms: Terms | None) -> None:
        """Starts without any.

        Args:
            joining: knows where none may go.
            terms: what their nodes have to have.
        """
        self._options, self._joining, self._terms = options, joining, terms
        self._all: list[Any] = []
        self._starting: dict[Any, _Starting] = {}
        self._places: dict[Any, ActorPlace] = {}
        self.failures = 0
        self.idle: list[Any] = []

    def __len__(self) -> int:
        """All of them, those included that have no place yet."""
        return len(self._all)

    @property
    def questions(self) -> list[Any]:
        """What is to be waited for, with other things."""
        return [*self._starting]

    def asks(self, cpus: int) -> dict[str, float]:
        """What one asks for: on a single core it leaves room for the tasks of its captures."""
        asked = {"CPU": float(cpus > 1), "GPU": float(self._options.gpus_per_model)}
        return {name: number for name, number in asked.items() if number}

    def add(self, *, cpus: int, sharing: int) -> None:
        """Starts one; it gets work when it has answered, not while it waits for a place.

        Args:
            sharing: actors that may come to lie on one node.
        """
        gpus = self._options.gpus_per_model
        options = {"num_cpus": int(cpus > 1), "num_gpus": gpus, **self._joining.elsewhere()}
        actor = CaptureActor.options(**options).remote(
            num_threads=1 if not gpus else 4, num_gpus=gpus, sharing=sharing
        )
        self._all.append(actor)
        self._starting[actor.place.remote(self._terms)] = _Starting(actor, time.monotonic())

    def started(self, ref: Any) -> ActorPlace | Unfit | str | None:
        """Takes note of an actor that has answered, or cannot.

        Returns:
            Where it is; why it has gone (a text: it was lost); None where `ref` is no question of
            this.
        """
        if ref not in self._starting:
            return None
        actor = self._starting.pop(ref).actor
        try:
            found: ActorPlace | Unfit = ray.get(ref)
        except LOST as error:
            self._all.remove(actor)
            self.failures += 1
            return said(error)
        if isinstance(found, Unfit):
            self.drop(actor)
            return found
        self.failures = 0
        self._places[actor] = found
        self.idle.append(actor)
        return found

    def place_of(self, actor: Any) -> ActorPlace:
        """Where an actor is that has answered."""
        return self._places[actor]

    def killed_for_memory(self, actor: Any, error: Exception) -> bool:
        """Whether an actor that was lost had taken too much memory.

        Args:
            actor: that had a place; None for a task.
            error: that came of its work.

        Returns:
            True where Ray's own watch says so, or where the kernel has killed something on its node
            since the actor came there, which Ray cannot know.
        """
        place = self._places.get(actor)
        if place is None or isinstance(error, ray.exceptions.OutOfMemoryError):
            return place is not None
        if not isinstance(error, ray.exceptions.RayActorError):
            return False
        asked = _kills.options(scheduling_strategy=pinned(place.node)).remote()
        try:
            kills: int = ray.get(asked, timeout=ASKED_S)
        except ray.exceptions.RayError:  # the node is gone too
            return False
        return kills > place.oom_kills

    def busy(self) -> Counter[str]:
        """CPUs that they have taken, by node."""
        return Counter(place.node for place in self._places.values())

    def leave(self, nodes: Collection[str]) -> None:
        """The idle ones on nodes that go, or do not fit, make way."""
        for actor in [a for a in self.idle if self._places[a].node in nodes]:
            self.idle.remove(actor)
            self.drop(actor)

    def drop(self, actor: Any) -> None:
        """Ends one."""
        ray.kill(actor)
        self._all.remove(actor)
        self._places.pop(actor, None)

    def stop(self) -> None:
        """Frees their CPUs for measuring tasks."""
        for actor in [*self._all]:
            self.drop(actor)
        self.idle.clear()
        self._starting.clear()

    def unplaced(self) -> bool:
        """Whether none has a place and all have waited for one as long as they may."""
        limit = time.monotonic() - self._options.node_wait
        waiting = [starting.since for starting in self._starting.values()]
        return bool(waiting) and not self._places and max(waiting) < limit
