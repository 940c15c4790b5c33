"""What takes more memory than its node has is killed by Ray, and gets more room for another try."""

from pathlib import Path

import pytest

from scaleinv_ray.cluster.driver import TRIES
from scaleinv_ray.cluster.shrinking import Shrinking, doubled
from tests.cluster.synthetic_work import good
from tests.cluster.test_nodes import isolated, namespaces

assert namespaces, "a fixture"
NODES = [{"CPU": 4.0, "memory": 8e9}, {"CPU": 2.0, "memory": 20e9}, {"CPU": 0.0, "memory": 99e9}]


def test_a_killed_measurement_asks_for_twice_as_much_until_it_has_a_node_to_itself() -> None:
    asked = [doubled(None, NODES)]
    for _ in range(4):
        asked.append(doubled(asked[-1], NODES))
    assert asked == [4e9, 8e9, 16e9, 20e9, 20e9], "from a share of the smallest to all of a node"
    assert doubled(10**9, NODES) == 2e9


@pytest.mark.ray
def test_only_want_of_memory_counts(ray_session: None) -> None:
    import ray

    first, second = good(2, "unread")
    asking = Shrinking(1000)
    asking.killed((first,), ray.exceptions.WorkerCrashedError())
    assert asking.of([first, second]) == 1000
    asking.killed((first,), ray.exceptions.OutOfMemoryError("killed"))
    assert (asking.of([first, second]), asking.of([second])) == (2000, 1000)


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_what_takes_all_the_memory_fails_alone_and_says_why(
    namespaces: Path, tmp_path: Path
) -> None:
    found = isolated("fill", tmp_path, namespaces, program="isolated_memory")
    assert found["completed"] == sorted(f"good{i}" for i in range(8)), "the rest goes on"
    assert found["errors"] and all("OutOfMemoryError" in e for e in found["errors"])
    first, *more = found["asked"]
    assert len(found["asked"]) == TRIES and first == 0
    assert more == [found["memory"]] * 2, "two shares of two CPUs are the node"
