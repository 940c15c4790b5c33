"""Refuses in seconds what would otherwise be pending for ever."""

from __future__ import annotations

import shutil
import uuid

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.store import Store

TIMEOUT_S = 60


@ray.remote(num_cpus=0)
def _read_back(uri: str, name: str) -> bytes:
    return Store(uri).read_bytes(name)


def preflight(store: Store, *, capture_bytes: int, gpus_per_model: int) -> dict[str, float]:
    """Checks the store from every node, the disk, and that the actors can be placed.

    Args:
        store: of the run.
        capture_bytes: what captures may take on disk.
        gpus_per_model: GPUs that a capture actor asks for.

    Returns:
        The cluster's total resources.

    Raises:
        ValueError: naming what is missing.
    """
    resources: dict[str, float] = ray.cluster_resources()
    if resources.get("CPU", 0) < 1:
        raise ValueError(f"cluster: got {resources.get('CPU', 0)} CPUs, needs at least 1")
    if gpus_per_model > resources.get("GPU", 0):
        raise ValueError(
            f"cluster.gpus_per_model: got {gpus_per_model}, "
            f"the cluster has {resources.get('GPU', 0):g} GPUs"
        )
    _check_store(store)
    if store.local is not None:
        free = shutil.disk_usage(store.local).free
        if free < 1.1 * capture_bytes:
            raise ValueError(
                f"out: {store.uri} has {free / 1e9:.1f} GB free, captures need "
                f"{capture_bytes / 1e9:.1f} GB (captures: discard needs less)"
            )
    return resources


def _check_store(store: Store) -> None:
    """Writes a nonce and reads it back from every node."""
    name, nonce = f"_part-nonce-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    store.write_bytes(name, nonce)
    try:
        for node in [n for n in ray.nodes() if n["Alive"]]:
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
