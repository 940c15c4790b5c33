"""What a run asks of a cluster that no node of it can give, said before anything waits for it."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from scaleinv_ray.cluster.nodes.node_kinds import NodeKind
from scaleinv_ray.cluster.pending import said
from scaleinv_ray.cluster.session import ray
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.plan.jobs import code_version

PACKAGES = (
    "ray", "numpy", "scipy", "scikit-learn", "gudhi", "statsmodels", "pyarrow", "torch",
    "transformers", "safetensors",
)  # fmt: skip
"""What numbers and files depend on: equal on all nodes."""
ASKED_S = 60.0
"""Time that a node has to say what is installed there; its first worker takes seconds to start."""


def check_requests(kinds: Sequence[NodeKind], options: ClusterOptions) -> None:
    """Refuses what would be pending for ever.

    Args:
        kinds: of nodes, those included that an autoscaler may bring.

    Raises:
        ValueError: naming the field, and the most that a node has.
    """
    gpus = options.gpus_per_model
    if gpus > (most := max((k.resources.get("GPU", 0) for k in kinds), default=0)):
        raise ValueError(f"cluster.gpus_per_model: got {gpus}, no node has more than {most:g} GPUs")
    places = sum(k.number * _fits(k.resources, CPU=1, GPU=gpus) for k in kinds)
    if options.actors is not None and options.actors > places:
        with_gpus = f" with {gpus} GPUs each" if gpus else ""
        raise ValueError(
            f"cluster.actors: got {options.actors}{with_gpus}, nodes have room for {places:g}"
        )
    if gpus and not places:
        raise ValueError(
            f"cluster.gpus_per_model: got {gpus}, no node has as many GPUs and a CPU beside them"
        )
    largest = most_memory(kinds)
    if options.memory is not None and options.memory > largest:
        raise ValueError(
            f"cluster.memory: got {options.memory}, no node with a CPU has more than {largest:.0f} "
            "bytes for tasks"
        )


def nowhere(
    asked: Mapping[str, float],
    waited_s: float,
    present: Sequence[NodeKind],
    coming: Sequence[NodeKind],
) -> str:
    """Why something was given up that no node had room for.

    Args:
        waited_s: seconds for which it waited.
        coming: nodes that an autoscaler may bring.

    Returns:
        What was asked for, what there is, what may come, and where to look.
    """
    there: Counter[str] = Counter()
    for kind in present:
        there[_amounts(kind.resources)] += int(kind.number)
    has = ", ".join(f"{number} of {what}" for what, number in there.most_common(3)) or "no node"
    text = (
        f"cluster.node_wait: no room for {_amounts(asked)} within {waited_s:g} s; there are nodes: "
        f"{has}"
    )
    if not coming:
        return text
    may = ", ".join(f"{k.number:g} of {_amounts(k.resources)}" for k in coming[:3])
    return f"{text}; an autoscaler may bring {may}: 'ray status' says what keeps it"


def _amounts(resources: Mapping[str, float]) -> str:
    named = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return " + ".join(named) or "0 CPU"


def most_memory(kinds: Sequence[NodeKind]) -> float:
    """Of one node that runs tasks, a head without CPUs does not; infinite where none says."""
    working = [k.resources for k in kinds if k.resources.get("CPU", 0) >= 1]
    return max((of.get("memory", math.inf) for of in working), default=math.inf)


def _fits(resources: Mapping[str, float], **wanted: float) -> int:
    """How often a request fits on one node."""
    return min(int(resources.get(name, 0) // n) for name, n in wanted.items() if n)


def check_object_stores(nodes: Sequence[Mapping[str, Any]], shared_bytes: int) -> None:
    """Refuses what a node's object store cannot hold: every capturing node gets a copy of it.

    Args:
        nodes: alive, as Ray lists them.

    Raises:
        ValueError: naming the node with the smallest store.
    """
    smallest = min(nodes, key=lambda n: n["Resources"].get("object_store_memory", 0))
    room = smallest["Resources"].get("object_store_memory", 0)
    if shared_bytes > room:
        raise ValueError(
            f"protocol: the tokens of all probes take {shared_bytes} bytes, the object "
            f"store of node {name_of(smallest)} has {room:.0f} (ray start --object-store-memory)"
        )


def environment() -> dict[str, str]:
    """What runs here: Python, this package by its sources, and the packages it counts with."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "scaleinv-ray": code_version()} | {
        p: version(p).partition("+")[0] for p in PACKAGES
    }


@ray.remote(num_cpus=0, max_retries=0)
def _environment() -> dict[str, str]:
    return environment()


def name_of(node: Mapping[str, Any]) -> str:
    """Id and address of a node, for messages."""
    return f"{node['NodeID'][:8]} ({node['NodeManagerAddress']})"


def check_versions(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuses nodes where other versions are installed than here, where the driver runs.

    Args:
        nodes: alive, as Ray lists them.

    Raises:
        ValueError: naming the node and all that differs.
    """
    here = environment()
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = [
        _environment.options(scheduling_strategy=affinity(n["NodeID"], soft=False)).remote()
        for n in nodes
    ]
    for node, answer in zip(nodes, asked, strict=True):
        try:
            there = ray.get(answer, timeout=ASKED_S)
        except (ray.exceptions.RayError, ImportError) as error:
            raise ValueError(
                f"node {name_of(node)}: cannot say what is installed there: {said(error)}"
            ) from error
        if other := difference(there, here):
            raise ValueError(f"node {name_of(node)}: has {other} as the driver")


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What is installed otherwise there than here, as text; empty where nothing is."""
    return "; ".join(f"{p} {there.get(p)}, not {v}" for p, v in here.items() if there.get(p) != v)


def check_nodes(nodes: Sequence[Mapping[str, Any]], shared_bytes: int) -> None:
    """Checks what is on the nodes that are there; `joining` checks those that come later.

    Args:
        nodes: alive, as Ray lists them.
    """
    check_object_stores(nodes, shared_bytes)
    check_versions(nodes)
