"""Refuses in seconds what would otherwise be pending for ever."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store

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
    store: Store, *, capture_bytes: int, gpus_per_model: int, scratch: Path
) -> dict[str, float]:
    """Checks the store from every node, the disk, and that tasks and actors can be placed.

    Args:
        store: of the run.
        capture_bytes: what captures may take on disk at one time.
        gpus_per_model: GPUs that a capture actor asks for.
        scratch: folder of the captures.

    Returns:
        The cluster's total resources.

    Raises:
        ValueError: naming what is missing.
    """
    nodes = [n for n in ray.nodes() if n["Alive"]]
    kinds = [*(n["Resources"] for n in nodes), *_node_types()]
    most = max((of.get("GPU", 0) for of in kinds), default=0)
    if gpus_per_model > most:
        raise ValueError(
            f"cluster.gpus_per_model: got {gpus_per_model}, no node has more than {most:g} GPUs"
        )
    if store.local is None and len(nodes) > 1:
        raise ValueError(
            f"out: got {store.uri} on {len(nodes)} nodes; captures lie on the node that made them: "
            "allowed on several nodes is a folder that all of them share"
        )
    try:  # an autoscaling cluster may have no CPU yet and gets one for this
        ray.get(_placed.remote(), timeout=PLACED_S)
    except ray.exceptions.GetTimeoutError as error:
        raise ValueError(f"cluster: no CPU for a task within {PLACED_S} s") from error
    _check_store(store, nodes)
    scratch.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(scratch).free
    if free < 1.1 * capture_bytes:
        raise ValueError(
            f"captures: {scratch} has {free / 1e9:.1f} GB free, needs {capture_bytes / 1e9:.1f} GB "
            "('captures: discard' needs less)"
        )
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _node_types() -> list[dict[str, float]]:
    """Resources of the nodes that an autoscaler may bring; none without an autoscaler."""
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [dict(group.resources) for group in groups if group.max_count != 0]


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
