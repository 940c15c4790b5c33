"""Refuses in seconds what would otherwise be pending for ever."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from scaleinv_ray.cluster.checks import Demands, check_nodes, check_requests, node_kinds
from scaleinv_ray.cluster.scratch import Ground
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store
from scaleinv_ray.wording import sized

TIMEOUT_S = 60
PLACED_S = 600
"""Time for an autoscaler to bring a node."""


@ray.remote(num_cpus=0)
def _read_back(uri: str, name: str) -> bytes:
    return Store(uri).read_bytes(name)


@ray.remote(num_cpus=1)
def _placed() -> bool:
    return True


def preflight(
    store: Store, *, capture_bytes: int, demands: Demands, grounds: Sequence[Ground]
) -> dict[str, float]:
    """Checks requests and versions, the store from every node, the disks, and that tasks run.

    Args:
        store: of the run.
        capture_bytes: what captures may take on disk at one time.
        demands: what its actors and tasks ask for.
        grounds: scratch of every node, or the one folder that all share.

    Returns:
        The cluster's total resources.

    Raises:
        ValueError: naming what is missing.
    """
    check_requests(node_kinds(), demands)
    try:  # an autoscaling cluster may have no CPU yet and gets one for this
        ray.get(_placed.remote(), timeout=PLACED_S)
    except ray.exceptions.GetTimeoutError as error:
        raise ValueError(f"cluster: no CPU for a task within {PLACED_S} s") from error
    nodes = [n for n in ray.nodes() if n["Alive"]]
    check_nodes(nodes, demands)
    _check_store(store, nodes)
    wanted = "GPU" if demands.gpus_per_model else "CPU"
    at_work = {n["NodeID"] for n in nodes if n["Resources"].get(wanted, 0) >= 1}
    check_disks(grounds, at_work, capture_bytes)
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def check_disks(grounds: Sequence[Ground], at_work: Collection[str], capture_bytes: int) -> None:
    """Refuses where captures would fill a disk.

    Args:
        grounds: scratch of every node, or the one folder that all share.
        at_work: ids of the nodes that make captures; each takes an equal share.
        capture_bytes: of all captures.

    Raises:
        ValueError: naming the folder and the node.
    """
    makers = [ground for ground in grounds if not ground.node or ground.node in at_work]
    for ground in makers:
        needed = capture_bytes / len(makers)
        if ground.free < 1.1 * needed:
            where = f" on node {ground.node[:8]} ({ground.address})" if ground.node else ""
            raise ValueError(
                f"captures: {ground.folder}{where} has {sized(ground.free)} free, needs "
                f"{sized(needed)} and a tenth to spare ('captures: discard' needs less)"
            )


def _check_store(store: Store, nodes: list[dict[str, Any]]) -> None:
    """Writes a nonce and reads it back from every node."""
    name, nonce = f"_part-nonce-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    store.write_bytes(name, nonce)
    try:
        for node in nodes:
            where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            )
            task = _read_back.options(scheduling_strategy=where).remote(store.uri, name)
            try:
                got = ray.get(task, timeout=TIMEOUT_S)
            except (ray.exceptions.RayError, OSError) as error:
                raise ValueError(
                    f"out: {store.uri} cannot be read from node {node['NodeID'][:8]}: {error}"
                ) from error
            if got != nonce:
                raise ValueError(f"out: {store.uri} is another folder on {node['NodeID'][:8]}")
    finally:
        store.delete(name)
