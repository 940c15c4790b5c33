"""Refuses in seconds what would otherwise be pending for ever."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from scaleinv_ray.cluster.nodes.checks import (
    check_nodes,
    check_requests,
    environment,
    nowhere,
)
from scaleinv_ray.cluster.nodes.joining import Needs, Terms
from scaleinv_ray.cluster.nodes.node_kinds import coming_kinds, node_kinds, present_kinds
from scaleinv_ray.cluster.pending import cause
from scaleinv_ray.cluster.scratch.disk import Ground, Scratch
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.store import PART, Store

TIMEOUT_S = 60
NONCE = f"{PART}nonce"
MARGIN = 1.1
"""Room that has to be free, over what captures take."""


@ray.remote(num_cpus=0)
def _read_back(uri: str, name: str) -> bytes:
    return Store(uri).read_bytes(name)


@ray.remote(num_cpus=1)
def _placed() -> bool:
    return True


@contextmanager
def posted(store: Store) -> Generator[Terms]:
    """Puts a nonce into a store for the block, by which nodes see that it is this one.

    Yields:
        What every node has to have.
    """
    nonce = uuid.uuid4().hex.encode()
    store.write_bytes(NONCE, nonce)
    try:
        yield Terms(store.uri, NONCE, nonce, tuple(environment().items()))
    finally:
        with suppress(OSError):  # the next run writes another one in its place
            store.delete(NONCE)


class Cleared(NamedTuple):
    """What preflight has found.

    Attributes:
        resources: of the cluster, in all.
        needs: what a node has to have that comes later.
    """

    resources: dict[str, float]
    needs: Needs


def preflight(
    terms: Terms,
    options: ClusterOptions,
    *,
    capture_bytes: int,
    shared_bytes: int,
    grounds: Sequence[Ground],
    scratch: Scratch | None = None,
) -> Cleared:
    """Checks requests and versions, the store from every node, the disks, and that tasks run.

    Args:
        terms: what every node has to have.
        options: what actors and tasks ask for.
        capture_bytes: what captures may take on disk at one time.
        shared_bytes: what the driver puts into the object store, for all nodes.
        grounds: scratch of every node, or the one folder that all share.

    Returns:
        The cluster's total resources, and what is asked of nodes that come.

    Raises:
        ValueError: naming what is missing.
    """
    check_requests(node_kinds(), options)
    try:  # an autoscaling cluster may have no CPU yet and gets one for this
        ray.get(_placed.remote(), timeout=options.node_wait)
    except ray.exceptions.GetTimeoutError as error:
        kinds = present_kinds(), coming_kinds()
        raise ValueError(nowhere({"CPU": 1}, options.node_wait, *kinds)) from error
    nodes = [n for n in ray.nodes() if n["Alive"]]
    check_nodes(nodes, shared_bytes)
    _check_store(terms, nodes)
    maker = "GPU" if options.gpus_per_model else "CPU"
    at_work = {n["NodeID"] for n in nodes if n["Resources"].get(maker, 0) >= 1}
    check_disks(grounds, at_work, capture_bytes)
    apart = scratch is not None and not scratch.shared
    needs = Needs(
        scratch=scratch if apart else None,
        capture_bytes=MARGIN * capture_bytes / (len(at_work) + 1),
        maker=maker,
        shared_bytes=shared_bytes,
        memory=options.memory or 0,
    )
    return Cleared(ray.cluster_resources(), needs)


def check_disks(grounds: Sequence[Ground], at_work: Collection[str], capture_bytes: int) -> None:
    """Refuses where captures would fill a disk.

    Args:
        grounds: scratch of every node, or the one folder that all share.
        at_work: ids of the nodes that make captures; each takes an equal share.

    Raises:
        ValueError: naming the folder and the node.
    """
    makers = [ground for ground in grounds if not ground.node or ground.node in at_work]
    for ground in makers:
        needed = capture_bytes / len(makers)
        if ground.free < MARGIN * needed:
            where = f" on node {ground.node[:8]} ({ground.address})" if ground.node else ""
            raise ValueError(
                f"captures: {ground.folder}{where} has {sized(ground.free)} free, needs "
                f"{sized(needed)} and a tenth to spare ('captures: discard' needs less)"
            )


def _check_store(terms: Terms, nodes: list[dict[str, Any]]) -> None:
    """Reads the nonce back from every node."""
    for node in nodes:
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node["NodeID"], soft=False
        )
        task = _read_back.options(scheduling_strategy=where).remote(terms.uri, terms.name)
        try:
            got = ray.get(task, timeout=TIMEOUT_S)
        except (ray.exceptions.RayError, OSError) as error:
            raise ValueError(
                f"out: {terms.uri} cannot be read from node {node['NodeID'][:8]}: {cause(error)}"
            ) from error
        if got != terms.nonce:
            raise ValueError(f"out: {terms.uri} is another folder on {node['NodeID'][:8]}")
