"""What no node can give is an error that names the field or the node."""

import math
from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray.cluster.nodes import checks
from scaleinv_ray.cluster.nodes.checks import (
    check_object_stores,
    check_requests,
    check_versions,
    environment,
    most_memory,
)
from scaleinv_ray.cluster.nodes.node_kinds import NodeKind
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.runs.analysis import run
from tests.cluster.driving.test_faults import small_config

HEAD = NodeKind({"CPU": 0.0, "memory": 64e9}, 1)
CPU = NodeKind({"CPU": 16.0, "memory": 16e9}, 2)
GPU = NodeKind({"CPU": 2.0, "GPU": 5.0, "memory": 8e9}, 3)


def refusal(kinds: list[NodeKind], options: ClusterOptions) -> str | None:
    """What is said against options, None where they are granted."""
    try:
        check_requests(kinds, options)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "granted",
    [
        ClusterOptions(),
        ClusterOptions(gpus_per_model=2, actors=6),
        ClusterOptions(gpus_per_model=5, actors=3),
        ClusterOptions(actors=38),
        ClusterOptions(memory=int(16e9)),
    ],
)
def test_what_nodes_have_is_granted(granted: ClusterOptions) -> None:
    assert refusal([HEAD, CPU, GPU], granted) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ClusterOptions(gpus_per_model=6),
            r"cluster\.gpus_per_model: got 6, no .* more than 5",
        ),
        (
            ClusterOptions(gpus_per_model=2, actors=7),
            r"actors: got 7 with 2 GPUs .* room for 6",
        ),
        (
            ClusterOptions(gpus_per_model=3, actors=4),
            r"actors: got 4 with 3 GPUs .* room for 3",
        ),
        (ClusterOptions(actors=39), r"cluster\.actors: got 39, nodes have room for 38"),
        (
            ClusterOptions(memory=int(17e9)),
            r"memory: got 17000000000, .* more than 16000000000",
        ),
    ],
)
def test_what_no_node_has_is_refused(options: ClusterOptions, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_requests([HEAD, CPU, GPU], options)


def test_the_most_memory_is_of_a_node_that_runs_tasks() -> None:
    assert most_memory([HEAD, CPU, GPU]) == 16e9, "the head has 64 GB and no CPU"
    assert most_memory([HEAD]) == math.inf, "until a node comes"


def test_gpus_without_a_cpu_beside_them_are_of_no_use() -> None:
    with pytest.raises(ValueError, match="a CPU beside them"):
        check_requests([CPU, NodeKind({"GPU": 1.0}, 1)], ClusterOptions(gpus_per_model=1))


def test_nodes_that_may_come_count_without_limit_and_unknown_memory_is_not_refused() -> None:
    coming = NodeKind({"CPU": 1.0}, math.inf)
    assert refusal([HEAD, coming], ClusterOptions(actors=1000, memory=int(1e15))) is None


def node(name: str, store: float) -> dict[str, Any]:
    of = {"object_store_memory": store}
    return {"NodeID": name * 20, "NodeManagerAddress": "10.0.0.1", "Resources": of}


def test_the_smallest_object_store_has_to_hold_the_tokens() -> None:
    nodes = [node("ab", 2e9), node("cd", 1e6)]
    check_object_stores(nodes, 1_000_000)
    with pytest.raises(ValueError, match=r"1000001 bytes, .* of node cdcdcdcd \(10\.0\.0\.1\)"):
        check_object_stores(nodes, 1_000_001)


@pytest.mark.ray
def test_a_node_with_another_version_is_named_with_what_differs(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    (here,) = ray.nodes()
    check_versions([here])
    installed = environment()
    assert installed["torch"] and installed["scaleinv-ray"].startswith("0.")
    monkeypatch.setattr(checks, "environment", lambda: installed | {"torch": "1.0", "numpy": "2"})
    # the node's worker has the package as it is installed, not as it is patched here
    with pytest.raises(ValueError, match="(?s)has numpy .*, not 2; torch .*, not 1.0") as caught:
        check_versions([here])
    assert f"node {here['NodeID'][:8]} (" in str(caught.value)


@pytest.mark.ray
def test_a_run_that_asks_for_more_memory_than_a_node_has_ends_in_seconds(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out", cluster={"memory": 10**15})
    with pytest.raises(ValueError, match=r"cluster\.memory: got 1000000000000000, no node"):
        run(config)
    assert not list((tmp_path / "out").glob("measurements/*"))
