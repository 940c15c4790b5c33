"""What no node has room for is given up with the reason; a node that does not fit gets no work."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray import tables
from scaleinv_ray.cluster.driving.driver import Driver
from scaleinv_ray.cluster.nodes.checks import check_requests, environment, nowhere
from scaleinv_ray.cluster.nodes.joining import Joining, Needs, Terms, disk_lacking, lacking
from scaleinv_ray.cluster.nodes.node_kinds import ANY, NodeKind, autoscaling_configs, kinds_of
from scaleinv_ray.cluster.nodes.preflight import NONCE, posted
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED, Jobs
from scaleinv_ray.store import Store
from tests.cluster.driving.test_faults import small_config
from tests.cluster.driving.test_pending import capture
from tests.cluster.nodes.test_nodes import ROOT, isolated, namespaces
from tests.cluster.synthetic_work import capture_file, good

assert namespaces, "a fixture"
CPU = NodeKind({"CPU": 16.0, "memory": 1e9}, 1)
GPUS = {"CPU": 16.0, "GPU": 1.0}


def test_what_waits_in_vain_says_what_it_asked_for_what_is_there_and_what_may_come() -> None:
    said = nowhere({"CPU": 1, "GPU": 2}, 1200, [CPU, CPU, NodeKind({}, 1)], [])
    assert said == (
        "cluster.node_wait: no room for 1 CPU + 2 GPU within 1200 s; there are nodes: "
        "2 of 16 CPU, 1 of 0 CPU"
    )
    coming = [NodeKind(GPUS, 4), NodeKind({"CPU": 8.0}, math.inf)]
    said = nowhere({"CPU": 1, "GPU": 1}, 5, [], coming)
    assert "there are nodes: no node; an autoscaler may bring 4 of 16 CPU + 1 GPU, inf" in said
    many = [NodeKind({"CPU": float(i)}, 7) for i in range(40)]
    assert len(nowhere({"CPU": 1}, 5, many, many)) < 300, "a line for people"


def test_what_may_come_stands_in_the_file_of_the_autoscaler() -> None:
    words = ["python", "monitor.py", "--gcs-address=10.0.0.1:6379", "--autoscaling-config=/c.yaml"]
    others = [["ray", "--gcs-address=10.0.0.1:6379"], ["x", "--autoscaling-config=/d.yaml"], [""]]
    assert autoscaling_configs([*others, words], "10.0.0.1:6379") == [Path("/c.yaml")]
    assert autoscaling_configs([*others, words], "10.0.0.2:6379") == []
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    kinds = [NodeKind({"CPU": 16}, 16), NodeKind({"CPU": 16, "GPU": 1}, 4)]
    assert kinds_of(config) == kinds, "the head is there already"
    assert [k.number for k in kinds_of(config | {"max_workers": 3})] == [3, 3]
    assert kinds_of(config | {"max_workers": 0}) == kinds_of({}) == []
    check_requests(kinds, ClusterOptions(gpus_per_model=1))
    check_requests([ANY], ClusterOptions(gpus_per_model=8, memory=10**12))
    with pytest.raises(ValueError, match="gpus_per_model: got 2, no node has more than 1"):
        check_requests(kinds, ClusterOptions(gpus_per_model=2))


def events_of(events: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [values for event, values in events if event == name]


@pytest.mark.ray
def test_an_actor_whose_node_never_comes_ends_in_failed_rows(
    ray_session: None, tmp_path: Path
) -> None:
    job, store, events = capture(tmp_path), Store(tmp_path / "out"), []
    work = Jobs([job], [*good(2, job.paths()[0])], {})
    settings = ClusterOptions(gpus_per_model=1, node_wait=0.5)

    def log(event: str, **values: Any) -> None:
        events.append((event, values))

    Driver(store, work, settings, log).execute()
    assert store.names("measurements") == [f"good{i}{FAILED}" for i in range(2)]
    (row, *_) = tables.decode(store.read_table(f"measurements/good0{FAILED}"))
    assert row["error"] == (
        "cluster.node_wait: no room for 1 CPU + 1 GPU within 0.5 s; there are nodes: 1 of 2 CPU"
    )
    assert len(events_of(events, "measured")) == 2 and not events_of(events, "lost")


def terms_of(store: Store, **installed: str) -> Terms:
    store.write_bytes(NONCE, b"17")
    return Terms(store.uri, NONCE, b"17", tuple((environment() | installed).items()))


def test_a_machine_that_fits_lacks_nothing_and_another_says_what(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    assert lacking(terms_of(store)) is None
    other = lacking(terms_of(store, torch="1.0", numpy="2"))
    assert other is not None and "numpy " in other and ", not 2; torch " in other
    assert other.endswith(", not 1.0 as the driver")
    said = lacking(replace(terms_of(store), nonce=b"18"))
    assert said == f"{store.uri} is another folder there"
    assert lacking(replace(terms_of(store), name="_part-other")) == said
    (tmp_path / "out" / "folder").mkdir()
    said = lacking(replace(terms_of(store), name="folder"))
    assert said is not None and said.startswith(f"{store.uri} cannot be read there: ")


def test_a_posted_nonce_is_that_of_one_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with posted(store) as first:
        assert lacking(first) is None
    with posted(store) as second:
        assert first.nonce != second.nonce
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_or_without_a_folder_is_said(tmp_path: Path) -> None:
    assert disk_lacking(tmp_path / "new", 1e3) is None and (tmp_path / "new").is_dir()
    said = disk_lacking(tmp_path, 1e18)
    assert said is not None and said.endswith(" GB free, needs 1e+09 GB")
    (tmp_path / "file").write_text("")
    said = disk_lacking(tmp_path / "file" / "sub", 0)
    assert said is not None and said.startswith(f"captures: {tmp_path}/file/sub cannot be used: ")


def node(name: str, **resources: float) -> dict[str, Any]:
    of = {"CPU": 4.0, "object_store_memory": 1e9, "memory": 1e9} | resources
    return {"NodeID": name * 28, "NodeManagerAddress": "10.0.0.7", "Resources": of}


@pytest.mark.ray
def test_nodes_that_come_are_asked_once_and_those_that_were_there_are_not(
    ray_session: None, tmp_path: Path
) -> None:
    import ray

    (here,) = ray.nodes()
    said: list[str] = []

    def log(_: str, **values: Any) -> None:
        said.append(values["text"])

    terms = terms_of(Store(tmp_path / "out"))
    needs = Needs(shared_bytes=10**9, memory=2 * 10**9)
    joining = Joining(terms, needs, log)
    joining.look([node("ab")])
    assert joining.questions == [] and joining.elsewhere() == {}, "preflight has seen it"
    joining.look([node("ab"), node("cd", object_store_memory=1.0), here])
    assert said[0] == (
        "node cdcdcdcd (10.0.0.7) gets no work: its object store has 1 bytes, tokens 1000000000; "
        "the run goes on"
    )
    (question,) = joining.questions
    closed = {"cd" * 28, here["NodeID"]}
    assert joining.closed == closed, "none until it has answered"
    assert set(joining.elsewhere()["label_selector"]["ray.io/node-id"][4:-1].split(",")) == closed
    ray.wait([question], timeout=60)
    assert joining.answered(question) and not joining.answered(question)
    assert joining.closed == {"cd" * 28} and joining.questions == []
    assert len(said) == 1, "the node of this session has more memory than is asked for"
    joining.look([node("ab"), here, node("ef")])
    assert said[1] == (
        "node efefefef (10.0.0.7) gets no measurements: cluster.memory: got 2000000000, it has "
        "1000000000 bytes for tasks"
    )


@pytest.mark.ray
def test_a_node_of_another_version_hands_its_work_back(ray_session: None, tmp_path: Path) -> None:
    import ray

    store = Store(tmp_path / "out")
    events: list[tuple[str, dict[str, Any]]] = []

    def log(event: str, **values: Any) -> None:
        events.append((event, values))

    jobs = good(3, capture_file(tmp_path))
    settings = ClusterOptions(node_wait=0.5)
    Driver(store, Jobs([], jobs, {}), settings, log, terms_of(store, torch="1.0")).execute()
    (notice,) = events_of(events, "notice")
    (here,) = ray.nodes()
    assert notice["text"].startswith(f"node {here['NodeID'][:8]} (")
    assert "not 1.0 as the driver; the run goes on" in notice["text"]
    assert not take_inventory(store).done and not events_of(events, "lost"), "and that was no try"
    errors = [e["error"] for e in events_of(events, "measured")]
    assert len(errors) == 3 and {e[:36] for e in errors} == {"cluster.node_wait: no room for 1 CPU"}
    again = Driver(store, Jobs([], jobs, {}), settings, log, terms_of(store))
    again.execute()
    assert len(take_inventory(store).done) == 3


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_of_two_nodes_that_come_the_one_with_another_store_gets_no_work(
    namespaces: Path, ladder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ladder / "d16-s0" / "step-000006", tmp_path / "model")
    found = isolated("join", tmp_path, namespaces, program="isolated_places")
    assert found["completed"] == found["jobs"] and found["failed"] == []
    assert found["bad"] not in found["worked"] and found["good"] in found["worked"]
    (notice,) = found["notices"]
    assert notice.startswith(f"node {found['bad'][:8]} (") and found["lost"] == []
    assert notice.endswith("out is another folder there; the run goes on")


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_a_run_whose_gpu_node_never_comes_ends_with_exit_code_3(
    namespaces: Path, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    cluster = {"gpus_per_model": 1, "node_wait": "15s"}
    config = small_config(text_folder, ladder, tmp_path / "out", cluster=cluster)
    config["models"] = [{"path": str(ladder / "d16-s0"), "steps": "last"}]
    (tmp_path / "series.yaml").write_text(yaml.safe_dump(config))
    found = isolated("never", tmp_path, namespaces, program="isolated_places")
    assert found["code"] == 3 and "3 measurements made, 2 failed" in found["said"]
    errors = {e for e in found["errors"] if e}
    (error,) = errors
    assert error.startswith("cluster.node_wait: no room for 1 CPU + 1 GPU within 15 s; there are")
    assert error.endswith("may bring 1 of 1 CPU + 1 GPU: 'ray status' says what keeps it")
