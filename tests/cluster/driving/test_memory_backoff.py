"""What takes more memory than its node has is killed by Ray, and gets more room for another try."""

from pathlib import Path

import pytest
import yaml

from scaleinv_ray.cluster.driving.driver import TRIES
from scaleinv_ray.cluster.driving.memory_backoff import SPARED, Shrinking, doubled, less_memory
from scaleinv_ray.cluster.pending import TEXT_CHARS
from tests.cluster.driving.test_faults import small_config
from tests.cluster.driving.test_pending import capture
from tests.cluster.nodes.test_nodes import isolated, namespaces
from tests.cluster.synthetic_work import good

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


def test_a_capture_that_ran_out_of_memory_is_streamed_unless_the_config_says_how(
    tmp_path: Path,
) -> None:
    again, why = less_memory(capture(tmp_path), "OutOfMemoryError: full")
    assert (again.load, again.spared, why) == ("auto", SPARED, "OutOfMemoryError: full")
    assert less_memory(again, "full") == (again, "full"), "there is nothing smaller"
    job = capture(tmp_path, "resident")
    said = "cluster.load: got 'resident', allowed with this memory 'streamed': full"
    assert less_memory(job, "full") == (job, said)
    job = capture(tmp_path, "streamed")
    assert less_memory(job, "full") == (job, "full")


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_an_actor_killed_for_memory_falls_back_to_streaming_and_says_so(
    namespaces: Path, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out")
    config["models"] = [{"path": str(ladder / "d16-s0"), "steps": "last"}]
    config["invariants"].pop("weights.weight_tail")
    config = {k: v for k, v in config.items() if k != "cluster"}
    (tmp_path / "series.yaml").write_text(yaml.safe_dump(config))
    found = isolated("spare", tmp_path, namespaces, program="isolated_memory")
    for by in ("ray", "kernel"):
        case = found[by]
        assert case["captured"] == [["streamed", SPARED]] and len(case["lost"]) == 1
        assert case["errors"]["topology.persistence"] is None
        assert SPARED in case["errors"]["holomorphy.resolvent_counts"], "a stream cannot give it"
        (notice,) = [line for line in case["status"] if line.startswith("notice: ")]
        assert notice.endswith(SPARED) and "d16-s0" in notice
    assert "OutOfMemoryError" in found["ray"]["lost"][0]
    assert "ActorDiedError" in found["kernel"]["lost"][0], "of which Ray knows nothing more"
    case = found["demanded"]
    assert case["captured"] == [] and len(case["lost"]) == TRIES
    for error in case["errors"].values():
        assert error.startswith("cluster.load: got 'resident', allowed with this memory 'streamed'")
        assert "OutOfMemoryError" in error and len(error) < TEXT_CHARS + 80


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_what_takes_all_the_memory_fails_alone_and_says_why(
    namespaces: Path, tmp_path: Path
) -> None:
    found = isolated("fill", tmp_path, namespaces, program="isolated_memory")
    assert found["completed"] == sorted(f"good{i}" for i in range(8)), "the rest goes on"
    assert found["errors"] and all("OutOfMemoryError" in e for e in found["errors"])
    assert all(len(e) <= TEXT_CHARS for e in found["errors"]), "a line, not a report"
    first, *more = found["asked"]
    assert len(found["asked"]) == TRIES and first == 0
    assert more == [found["memory"]] * 2, "two shares of two CPUs are the node"
