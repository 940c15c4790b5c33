"""Ray's part of node scratch: asking nodes what they have, and carrying captures between them."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.cluster.pending import cause
from scaleinv_ray.cluster.scratch.disk import Ground, Scratch, fetch_once, remove, survey
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.plan.jobs import Fetch, Held, MeasureJob, Unfetched

CHUNK = 64 * 2**20
"""Bytes of a file that are in the object store at a time, twice."""
CHUNK_S = 120.0
"""Seconds after which a node that does not send a chunk counts as gone."""
SURVEY_S = 60.0


def this_node() -> str:
    """Id of the node on which the caller runs."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def address_of(node: str) -> str:
    """The IP address of a node."""
    return next((n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == node), "unknown")


def pinned(node: str, *, soft: bool = False) -> Any:
    """The strategy that places a task on a node; soft: elsewhere when that node is gone."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=soft)


@ray.remote(num_cpus=0)
def _survey(scratch: Scratch, wanted: Collection[str], only_wanted: bool) -> Ground:
    node = this_node()
    asked: dict[str, Any] = {"only_wanted": only_wanted, "node": node, "address": address_of(node)}
    return survey(scratch.on(node), wanted, **asked)


def survey_nodes(scratch: Scratch, wanted: Collection[str], *, only_wanted: bool) -> list[Ground]:
    """Asks every node at the same time what its scratch has.

    Args:
        wanted: names of files that measurements need.

    Returns:
        One for each node; a single one, of this machine, where all share the folder.

    Raises:
        ValueError: naming the node whose folder cannot be used.
    """
    if scratch.shared:
        return [survey(scratch.folder, wanted, only_wanted=only_wanted)]
    nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"]]
    asked = {
        n: _survey.options(scheduling_strategy=pinned(n)).remote(scratch, wanted, only_wanted)
        for n in nodes
    }
    grounds = []
    for node, ref in asked.items():
        try:
            grounds.append(ray.get(ref, timeout=SURVEY_S))
        except (ray.exceptions.RayError, OSError) as error:
            raise ValueError(
                f"captures: {scratch.on(node)} cannot be used on node {node[:8]} "
                f"({address_of(node)}): {cause(error)}"
            ) from error
    return grounds


class _Keeper:
    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def read(self, file: str, offset: int, size: int) -> np.ndarray:
        path = self._scratch.on(this_node(), file)
        return np.fromfile(path, np.uint8, count=size, offset=offset)

    def remove(self, file: str) -> None:
        remove(self._scratch.on(this_node(), file))


_KeeperActor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(_Keeper)


class Keepers:
    """Processes that give and delete captures, one on each node that was asked for.

    They stay: for a task Ray starts a process where none is idle, which takes two seconds, ten on a
    busy node, and ends it when it has been idle for one.
    """

    def __init__(self, scratch: Scratch | None) -> None:
        """Starts none; without a scratch, or with a shared one, none is needed."""
        self.scratch = scratch
        self._of: dict[str, Any] = {}

    def of(self, nodes: Iterable[str]) -> dict[str, Any]:
        """Those of some nodes, by id; started where they are not yet."""
        asked = {*nodes}
        for node in asked - self._of.keys():
            options = {"scheduling_strategy": pinned(node)}
            self._of[node] = _KeeperActor.options(**options).remote(self.scratch)
        return {node: self._of[node] for node in asked}

    def stop(self) -> None:
        """Ends them."""
        for keeper in self._of.values():
            ray.kill(keeper)
        self._of.clear()


def chunks_from(keeper: Any, size: int, file: str) -> Generator[np.ndarray]:
    """The content of a file on another node; one chunk is on its way while one is written.

    Args:
        keeper: of the node that has it.
        size: bytes of the file.

    Yields:
        At most CHUNK bytes each, views of the object store.
    """
    coming: Any = None
    for offset in range(0, size, CHUNK):
        on_its_way = keeper.read.remote(file, offset, min(CHUNK, size - offset))
        if coming is not None:
            yield ray.get(coming, timeout=CHUNK_S)
        coming = on_its_way
    if coming is not None:
        yield ray.get(coming, timeout=CHUNK_S)


@dataclass(frozen=True)
class Supply:
    """Where the captures of some measurements are, for a task on whichever node.

    Attributes:
        scratch: of the run.
        held: their files, by path.
        keepers: by the ids of the nodes that have them.
    """

    scratch: Scratch
    held: Mapping[str, Held]
    keepers: Mapping[str, Any]

    def localised(self, job: MeasureJob) -> tuple[MeasureJob, tuple[Fetch, ...]] | Unfetched:
        """The job with files of this node, those of other nodes fetched.

        Args:
            job: as the driver knows it.

        Returns:
            The job that reads files of this node and the copies that were made for it, or what
            could not be had.
        """
        node = this_node()
        fetches: list[Fetch] = []
        local: dict[str, str] = {}
        for path in job.paths():
            if path not in self.held:
                continue
            found = self._obtain(path, node)
            if isinstance(found, Unfetched):
                return replace(found, key=job.key, fetches=tuple(fetches))
            if found is not None:
                fetches.append(found)
            local[path] = str(self.scratch.on(node, Path(path).name))
        here = [local.get(s, s) if isinstance(s, str) else s for s in (job.source, *job.more)]
        return replace(job, source=here[0], more=tuple(here[1:])), tuple(fetches)

    def _obtain(self, path: str, node: str) -> Fetch | Unfetched | None:
        """Fetches a file from the first node that gives it; None where it is here already."""
        held, file = self.held[path], Path(path).name
        target = self.scratch.on(node, file)
        gone: list[str] = []
        errors: list[str] = []
        for source in held.nodes:
            start = time.perf_counter()
            try:
                made = fetch_once(
                    target, held.size, partial(self._chunks, held, source, node, file)
                )
            except (ray.exceptions.RayError, ValueError) as error:
                gone.append(source)
                errors.append(f"{file} from node {source[:8]}: {cause(error)}")
            except OSError as error:
                return Unfetched("", path, (), f"{file} onto node {node[:8]}: {error}")
            else:
                seconds = time.perf_counter() - start
                return Fetch(path, source, node, held.size, seconds) if made else None
        return Unfetched("", path, tuple(gone), "; ".join(errors) or f"{file}: on no node")

    def _chunks(self, held: Held, source: str, node: str, file: str) -> Iterable[np.ndarray]:
        if source == node:
            raise ValueError("it is not there any more")
        return chunks_from(self.keepers[source], held.size, file)


class Removals:
    """Deletions on other nodes that are under way."""

    def __init__(self, keepers: Keepers) -> None:
        """Of the files of their scratch; without one, of files at their paths."""
        self._keepers = keepers
        self._refs: list[Any] = []

    def __call__(self, path: str, nodes: Iterable[str]) -> None:
        """Deletes a capture on every node that has it.

        Args:
            nodes: ids; none for a folder that all nodes share.
        """
        scratch = self._keepers.scratch
        if scratch is None or scratch.shared:
            remove(Path(path))
            return
        keepers = self._keepers.of(nodes).values()
        self._refs += [keeper.remove.remote(Path(path).name) for keeper in keepers]

    def now(self, path: str, nodes: Iterable[str]) -> None:
        """As a call, and waits: a file of the same name is about to be made."""
        self(path, nodes)
        self.finish()

    def finish(self) -> None:
        """Waits for them; what a node that is gone had went with it."""
        for ref in self._refs:
            with suppress(ray.exceptions.RayError):
                ray.get(ref, timeout=CHUNK_S)
        self._refs.clear()
