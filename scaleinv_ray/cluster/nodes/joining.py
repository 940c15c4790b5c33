"""Nodes that come while a run goes: each is examined once, and what does not fit gets no work.

Preflight examines those that are there at the start. A node that comes later is asked by a task of
its own; until it has answered, and for good where it does not fit, tasks and actors are sent
elsewhere. Those that Ray has already in its queues go to a new node at once: so every worker
examines where it is before its first work, and hands back what it got.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.nodes.checks import difference, environment, name_of
from scaleinv_ray.cluster.pending import said
from scaleinv_ray.cluster.scratch.disk import Scratch
from scaleinv_ray.cluster.scratch.transfer import pinned, this_node
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store


@dataclass(frozen=True)
class Terms:
    """What every node has to have.

    Attributes:
        uri: of the store that it has to see.
        name: of a file there.
        nonce: what stands in it.
        installed: names and versions, as the driver's.
    """

    uri: str
    name: str
    nonce: bytes
    installed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Needs:
    """What is asked of a node that comes, beside the terms.

    Attributes:
        scratch: for captures; None where all nodes share a folder.
        capture_bytes: that its scratch has to take where it makes captures.
        maker: the resource by which it makes them, CPU or GPU.
        shared_bytes: that its object store has to hold.
        memory: that a measuring task asks for.
    """

    scratch: Scratch | None = None
    capture_bytes: float = 0.0
    maker: str = "CPU"
    shared_bytes: int = 0
    memory: int = 0


@dataclass(frozen=True)
class Unfit:
    """A worker's answer instead of work: its node does not fit.

    Attributes:
        node: its id.
        reason: what it lacks.
    """

    node: str
    reason: str


def misfit(terms: Terms | None) -> Unfit | None:
    """Whether the node of this worker fits.

    Args:
        terms: of the run; None where nothing is asked.

    Returns:
        None where it does.
    """
    if terms is None or (reason := lacking(terms)) is None:
        return None
    return Unfit(this_node(), reason)


@lru_cache(maxsize=4)  # a worker has many tasks, and its machine stays as it is
def lacking(terms: Terms) -> str | None:
    """What the machine of this process lacks.

    Args:
        terms: what it has to have.

    Returns:
        A reason, None where it lacks nothing.
    """
    if other := difference(environment(), dict(terms.installed)):
        return f"has {other} as the driver"
    try:
        if Store(terms.uri).read_bytes(terms.name) != terms.nonce:
            return f"{terms.uri} is another folder there"
    except FileNotFoundError:
        return f"{terms.uri} is another folder there"
    except OSError as error:
        return f"{terms.uri} cannot be read there: {error}"
    return None


def disk_lacking(folder: Path, needed: float) -> str | None:
    """What a scratch folder lacks, which is made where it is absent.

    Args:
        needed: bytes.

    Returns:
        A reason, None where it lacks nothing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"captures: {folder} cannot be used: {error}"
    if free >= needed:
        return None
    return f"captures: {folder} has {free / 1e9:.3g} GB free, needs {needed / 1e9:.3g} GB"


@ray.remote(num_cpus=0, max_retries=0)
def _examine(terms: Terms, scratch: Scratch | None, needed: float) -> str | None:
    reason = lacking(terms)
    if reason is None and scratch is not None:
        reason = disk_lacking(scratch.on(this_node()), needed)
    return reason


class Joining:
    """The nodes of a run that came after its start.

    Attributes:
        barred: reason by id, of those that get no work.
    """

    def __init__(self, terms: Terms | None, needs: Needs, log: Callable[..., None]) -> None:
        """Begins with the nodes of the first look, which preflight has examined.

        Args:
            terms: what nodes have to have; None lets all of them work.
            needs: what those have to have that come.
            log: as of the driver.
        """
        self._terms, self._needs, self._log = terms, needs, log
        self._names: dict[str, str] = {}
        self._asked: dict[Any, str] = {}
        self.barred: dict[str, str] = {}

    def look(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Asks those that are new.

        Args:
            nodes: alive, as Ray lists them.
        """
        first = not self._names
        alive = {node["NodeID"] for node in nodes}
        self.barred = {node: why for node, why in self.barred.items() if node in alive}
        for node in nodes:
            known, self._names[node["NodeID"]] = node["NodeID"] in self._names, name_of(node)
            if not known and not first and node["NodeID"] not in self.barred:
                self._ask(node["NodeID"], node["Resources"])

    def _ask(self, node: str, resources: Mapping[str, float]) -> None:
        """What a node lacks by its resources alone is known without a question."""
        if self._terms is None:
            return
        needs, room = self._needs, resources.get("object_store_memory", 0.0)
        if needs.shared_bytes > room:
            self.bar(node, f"its object store has {room:.0f} bytes, tokens {needs.shared_bytes}")
            return
        if needs.memory > (memory := resources.get("memory", 0.0)):  # captures do not ask for it
            text = f"cluster.memory: got {needs.memory}, it has {memory:.0f} bytes for tasks"
            self._log("notice", text=f"node {self._names[node]} gets no measurements: {text}")
        needed = needs.capture_bytes if resources.get(needs.maker, 0) >= 1 else 0.0
        task = _examine.options(scheduling_strategy=pinned(node))
        self._asked[task.remote(self._terms, needs.scratch, needed)] = node

    @property
    def questions(self) -> list[Any]:
        """What is to be waited for, with other things."""
        return [*self._asked]

    def answered(self, ref: Any) -> bool:
        """Takes note of an answer.

        Returns:
            Whether it was a question of this.
        """
        if ref not in self._asked:
            return False
        node = self._asked.pop(ref)
        try:
            reason = ray.get(ref)
        except (ray.exceptions.RayError, ImportError) as error:
            reason = f"cannot say what is installed there: {said(error)}"
        if reason is not None:
            self.bar(node, reason)
        return True

    def bar(self, node: str, reason: str) -> None:
        """A node gets no more work; said once."""
        if node not in self.barred:
            self.barred[node] = reason
            if node not in self._names:  # its first worker was faster than a look
                self.look([n for n in ray.nodes() if n["Alive"]])
            name = self._names.get(node, node[:8])
            self._log("notice", text=f"node {name} gets no work: {reason}; the run goes on")

    @property
    def closed(self) -> set[str]:
        """Nodes that get no work, or none yet."""
        return {*self.barred, *self._asked.values()}

    def elsewhere(self) -> dict[str, Any]:
        """Options for tasks and actors that keep them from closed nodes."""
        closed = sorted(self.closed)
        return {"label_selector": {"ray.io/node-id": f"!in({','.join(closed)})"}} if closed else {}
