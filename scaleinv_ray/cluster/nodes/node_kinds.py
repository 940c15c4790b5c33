"""The nodes of a cluster: those that are there, and those that an autoscaler may bring."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from scaleinv_ray.cluster.session import ray
from scaleinv_ray.config.reader import ConfigError, read_mapping


class NodeKind(NamedTuple):
    """Nodes with the same resources.

    Attributes:
        resources: of one.
        number: how many there are or may come, infinite where nothing limits them.
    """

    resources: Mapping[str, float]
    number: float


ANY = NodeKind({"CPU": 1e4, "GPU": 1e3}, math.inf)
"""Where an autoscaler is known to be, and not what it may bring."""


def node_kinds() -> list[NodeKind]:
    """The nodes that are there, and the types that an autoscaler may add to them."""
    return [*present_kinds(), *coming_kinds()]


def present_kinds() -> list[NodeKind]:
    """The nodes that are there."""
    return [NodeKind(n["Resources"], 1) for n in ray.nodes() if n["Alive"]]


def coming_kinds() -> list[NodeKind]:
    """The types of nodes that an autoscaler may bring.

    Ray's own autoscaler tells the cluster nothing of them. It runs on the head, as the drivers of
    jobs do, with the file of its config in its command line; that of KubeRay runs beside the head,
    whose command says that it has none of its own.

    Returns:
        One for each type; none where no autoscaler is known of.
    """
    config = ray._private.state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        return [
            NodeKind(dict(g.resources), math.inf if g.max_count < 0 else g.max_count)
            for g in config.node_group_configs
            if g.max_count
        ]
    if "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", ""):
        return [ANY]
    address = ray.get_runtime_context().gcs_address
    for file in autoscaling_configs(_commands(), address):
        with suppress(ConfigError):  # what the autoscaler cannot read brings nothing either
            return kinds_of(read_mapping(file))
    return []


def _commands() -> Iterable[list[str]]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            yield entry.read_bytes().decode(errors="replace").split("\0")


def autoscaling_configs(commands: Iterable[list[str]], address: str) -> list[Path]:
    """The files by which autoscalers of a cluster work.

    Args:
        commands: words of the processes of this machine.
        address: of the cluster's GCS.
    """
    found = []
    for words in commands:
        given = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
        if given.get("--gcs-address") == address and (file := given.get("--autoscaling-config")):
            found.append(Path(file).expanduser())
    return found


def kinds_of(config: Mapping[str, Any]) -> list[NodeKind]:
    """The types of nodes in a cluster.yaml; the head's is there already.

    Args:
        config: as Ray has checked it.

    Returns:
        One for each type that may come at all.
    """
    limit, head = config.get("max_workers", math.inf), config.get("head_node_type")
    types = {k: of for k, of in config.get("available_node_types", {}).items() if k != head}
    numbers = {k: min(of.get("max_workers", 0), limit) for k, of in types.items()}
    return [NodeKind(of.get("resources", {}), numbers[k]) for k, of in types.items() if numbers[k]]
