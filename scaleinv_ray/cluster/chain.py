"""A model in a chain of actors: each holds a range of blocks, batches of hidden states go along.

The capture actor that has the job is the head: it holds the first range, starts the other members,
and writes the files. While a member works at a batch, the one before it works at the next.

The members are plain actors of the head, with their memory or GPUs on Ray's account. A placement
group would find places for all of them at once, but one whose creator was killed stays until the
job ends, and with it what it holds; actors die with their owner.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.cluster.members import Member, MemberActor, Report, skeleton
from scaleinv_ray.cluster.scratch.transfer import this_node
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.plan.costs import HEADROOM, Load, Loading
from scaleinv_ray.plan.jobs import WeightSource
from scaleinv_ray.records import Protocol, Record
from scaleinv_ray.store import read_records

JOIN_S = 60.0
"""Time for the other members to find a place; afterwards the model is streamed."""
CLEAR_S = 10.0
"""Time to delete partial files."""
CHUNK_BYTES = 2**26
"""Bytes of a partial file that are on their way at a time."""
IN_FLIGHT = 2
"""Batches under way for each member: one that it works at, one that waits for it."""


class NotJoinedError(Exception):
    """Says why a chain could not be formed."""


class Chain:
    """All members with their weights in memory; the first one is in this process."""

    def __init__(self, own: Member, others: Sequence[Any], bytes_read: int) -> None:
        """Members in the order of their blocks.

        Args:
            own: the first one.
            others: actors.
            bytes_read: of weights, by all of them.
        """
        self._own, self._others, self.bytes_read = own, others, bytes_read

    def records(
        self,
        tokens_ST: np.ndarray,
        protocol: Protocol,
        folder: Path,
        *,
        kinds: frozenset[str],
        batch_size: int,
        labels: Mapping[str, Any] | None = None,
    ) -> dict[str, list[Record]]:
        """Captures one probe, as `capture.run.StreamedSession.records`.

        Args:
            tokens_ST: token ids.
            protocol: what makes captures comparable.
            folder: for partial files; the records are views of some of them.
            kinds: out of `forward.FORWARD_KINDS`.
            batch_size: sequences in a batch.
            labels: unit, probe and other fields of Record.

        Returns:
            Kind -> records, for exactly the kinds asked for.

        Raises:
            ValueError: for a kind that needs the whole model, or where a capture refuses.
        """
        from scaleinv_ray.capture.chained import Handed, Request, joined

        draws = int(protocol.digest(), 16)
        request = Request(protocol, kinds, batch_size, labels or {}, draws)
        folder.mkdir(parents=True, exist_ok=True)
        self._own.begin(tokens_ST, request, str(folder))
        tokens = ray.put(tokens_ST)
        got([m.begin.remote(tokens, request, str(folder)) for m in self._others])
        self._push(len(tokens_ST), batch_size)
        ends = [m.end.remote() for m in self._others]
        parts = [self._read(self._own.end(), None, folder)]
        for member, report in zip(self._others, got(ends), strict=True):
            parts.append(self._read(report, member, folder))
            got(member.clear.remote())
        return joined([Handed(*part) for part in parts])

    def _push(self, num_sequences: int, batch_size: int) -> None:
        """All batches through all members, a bounded number of them at a time."""
        from scaleinv_ray.capture.streaming.layers import batches

        flying: deque[Any] = deque()
        for first, count in batches(num_sequences, batch_size):
            x: Any = self._own.take(first, count, None)
            for member in self._others:
                x = member.take.remote(first, count, x)
            flying.append(x)
            if len(flying) >= IN_FLIGHT * len(self._others):
                got(flying.popleft())
        got(list(flying))

    def _read(
        self, report: Report, member: Any, folder: Path
    ) -> tuple[dict[str, list[Record]], dict[tuple[str, int], int]]:
        """The records of a member, mapped from its files or from copies of them."""
        found: dict[str, list[Record]] = defaultdict(list)
        for kind, files in report.files.items():
            for path, size in files:
                here = fetched(member, path, size, folder) if member else Path(path)
                found[kind] += read_records(here)
        return dict(found), report.nonfinite


def got(refs: Any) -> Any:
    """What members answer; what one of them raised, as if it had been raised here.

    Args:
        refs: one or several.

    Returns:
        The answers.

    Raises:
        Exception: the member's own error, or Ray's where a member is lost.
    """
    try:
        return ray.get(refs)
    except ray.exceptions.RayTaskError as error:
        cause: Any = error
        while isinstance(cause, ray.exceptions.RayTaskError) and cause.cause is not None:
            cause = cause.cause
        raise cause from error


def fetched(member: Any, path: str, size: int, folder: Path) -> Path:
    """A copy of a member's file, brought through Ray piece by piece.

    Args:
        member: the actor.
        path: on its node.
        size: bytes of the file.
        folder: to copy it to.

    Returns:
        The copy.

    Raises:
        OSError: where the file turns out shorter.
    """
    source = Path(path)
    target = folder / f"{source.parent.name}-{source.name}"
    with target.open("wb") as stream:
        for start in range(0, size, CHUNK_BYTES):
            stream.write(got(member.read.remote(path, start, CHUNK_BYTES)))
    if target.stat().st_size != size:
        raise OSError(f"{path}: got {target.stat().st_size} bytes of {size} from its member")
    return target


def joinable(num_gpus: int, load: Load) -> int:
    """Actors that a chain may have, this one included.

    On CPUs that is one on each node, for it is their memory that is wanted; a chain that the config
    asks for may have several on one node.

    Args:
        num_gpus: of each actor.
        load: of the config.

    Returns:
        Their number on the nodes that are there now, with the GPUs that are free now; 1 without a
        cluster.
    """
    if not ray.is_initialized():
        return 1
    if num_gpus:
        return 1 + int(ray.available_resources().get("GPU", 0) // num_gpus)
    resources = ray.cluster_resources()
    nodes = sum(n["Alive"] and n["Resources"].get("memory", 0) > 0 for n in ray.nodes())
    return max(1, nodes, int(resources.get("CPU", 1)) if load == "chained" else 1)


@contextmanager
def chained(
    weights: WeightSource, loading: Loading, *, num_threads: int, num_gpus: int, sharing: int
) -> Generator[Chain]:
    """Forms a chain whose first member is in this process, and ends it.

    Args:
        weights: of the model.
        loading: says how many members.
        num_threads: of torch in each.
        num_gpus: of each.
        sharing: actors among which a node's memory is divided.

    Yields:
        The chain; afterwards its other members are dead and what was held for them is free.

    Raises:
        NotJoinedError: where the others find no place, or too little memory.
    """
    from scaleinv_ray.capture.chained import split

    parts = split(skeleton(weights), loading.actors)
    own = Member(num_threads=num_threads, num_gpus=num_gpus)
    with ExitStack() as stack:
        others: list[Any] = []
        for _, size in parts[1:]:
            actor = _start(size, len(parts) - 1, num_threads=num_threads, num_gpus=num_gpus)
            stack.callback(ray.kill, actor)
            others.append(actor)
        stack.callback(own.leave)
        _check_room([own, *others], [size for _, size in parts], loading, sharing)
        stack.callback(_clear, others)
        held = [
            actor.hold.remote(weights, layers.start, layers.stop)
            for actor, (layers, _) in zip(others, parts[1:], strict=True)
        ]
        first = parts[0][0]
        bytes_read = own.hold(weights, first.start, first.stop) + sum(got(held))
        yield Chain(own, others, bytes_read)


def _clear(members: Sequence[Any]) -> None:
    """Members on other nodes have files there; of what is dead nothing is waited for."""
    ray.wait([m.clear.remote() for m in members], num_returns=len(members), timeout=CLEAR_S)


def _needed(size: int) -> int:
    return int(HEADROOM * size) + 1


def _reserved(size: int) -> int:
    """Of Ray's account of memory, which is less than a node has; it is for other chains to see."""
    nodes = (n["Resources"].get("memory", 0) for n in ray.nodes() if n["Alive"])
    return min(_needed(size), int(min((m for m in nodes if m), default=1)))


def _start(size: int, num: int, *, num_threads: int, num_gpus: int) -> Any:
    """One of `num` members; CPUs are left to tasks, for which a chain would wait long."""
    options: dict[str, Any] = {"num_cpus": 0}
    if num_gpus:
        options["num_gpus"] = num_gpus
    else:
        options |= {"memory": _reserved(size), "scheduling_strategy": "SPREAD"}
        if _other_nodes() >= num:
            options["label_selector"] = {"ray.io/node-id": f"!{this_node()}"}
    return MemberActor.options(**options).remote(num_threads=num_threads, num_gpus=num_gpus)


def _other_nodes() -> int:
    nodes = (n for n in ray.nodes() if n["Alive"] and n["Resources"].get("memory", 0) > 0)
    return sum(n["NodeID"] != this_node() for n in nodes)


def _check_room(
    members: Sequence[Any], sizes: Sequence[int], loading: Loading, sharing: int
) -> None:
    """Before anything is read: what the members of a node need has to fit into its share."""
    try:
        others = ray.get([m.room.remote() for m in members[1:]], timeout=JOIN_S)
    except ray.exceptions.GetTimeoutError as error:
        raise NotJoinedError(
            f"no place for {len(sizes) - 1} more actors within {JOIN_S:g} s"
        ) from error
    if loading.reason == "cluster.load":
        return
    wanted: dict[str, int] = defaultdict(int)
    room: dict[str, int] = {}
    for i, (place, size) in enumerate(zip([members[0].room(), *others], sizes, strict=True)):
        at = f"member {i}" if place.on_gpu else f"node {place.node[:8]}"
        wanted[at] += _needed(size)
        here = place.memory // (1 if place.on_gpu else sharing)
        room[at] = min(here, room.get(at, here))
    for at, needed in wanted.items():
        if needed > room[at]:
            raise NotJoinedError(f"{at} has {sized(room[at])}, its blocks need {sized(needed)}")
