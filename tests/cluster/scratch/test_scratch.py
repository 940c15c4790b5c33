"""Captures on node scratch: paths stay inside, a file comes once and whole, nodes are chosen."""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scaleinv_ray.cluster.driving.waiting import Waiting
from scaleinv_ray.cluster.nodes.preflight import check_disks
from scaleinv_ray.cluster.scratch import transfer
from scaleinv_ray.cluster.scratch.disk import Ground, Scratch, fetch_once, found_on, remove, survey
from scaleinv_ray.cluster.scratch.placement import TRIES, Files, Nodes
from scaleinv_ray.config import load_run_config
from scaleinv_ray.measure.ranges import ranges_of
from scaleinv_ray.plan.jobs import (
    CaptureJob,
    Held,
    Jobs,
    MeasureJob,
    ProbeCaptures,
    Unfetched,
    WeightSource,
)
from scaleinv_ray.records import Protocol
from scaleinv_ray.runs import analysis as run_module
from scaleinv_ray.runs.analysis import run
from scaleinv_ray.store import Store
from tests.cluster.driving.test_faults import small_config
from tests.cluster.isolated.isolated import CHECKPOINT
from tests.cluster.isolated.isolated_scratch import rows
from tests.cluster.nodes.test_nodes import isolated, namespaces
from tests.cluster.scratch.copies import chunks, killed, slow
from tests.cluster.synthetic_work import LABELS, capture_file

assert namespaces, "a fixture"
SPAWN = get_context("spawn")  # a fork of a process with threads may hang
SCRATCH = Scratch(Path("/scratch/{node}/run"))
A, B = "a" * 56, "b" * 56


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/b", "..", ""])
def test_files_do_not_leave_the_folder(file: str) -> None:
    with pytest.raises(ValueError, match=r"file: got .*, allowed: a name inside /scratch/"):
        SCRATCH.name(file)
    if file:
        with pytest.raises(ValueError, match="allowed: a name inside"):
            SCRATCH.on(A, file)


def test_the_folder_is_absolute_and_a_node_is_no_path() -> None:
    for folder in ("scratch", "/scratch/../etc"):
        with pytest.raises(ValueError, match="allowed: an absolute path without"):
            Scratch(Path(folder))
    with pytest.raises(ValueError, match=r"node: got '\.\./\.\.', allowed: letters and digits"):
        SCRATCH.on("../..", "x")
    assert SCRATCH.on(A, "x.arrow") == Path(f"/scratch/{A}/run/x.arrow")
    assert SCRATCH.holds(SCRATCH.name("x.arrow")) and not SCRATCH.holds("/scratch/x.arrow")


@pytest.mark.parametrize("folder", ["scratch", "~/scratch", "/s/../x", "/s/{home}"])
def test_a_config_names_an_absolute_scratch(folder: str) -> None:
    config = {"name": "t", "models": [{"path": "m"}], "cluster": {"scratch": folder}}
    with pytest.raises(ValueError, match=r"cluster\.scratch: .*allowed: an absolute path"):
        load_run_config(config)
    config["cluster"] = {"scratch": "/disk/{node}"}
    assert load_run_config(config).cluster.scratch == "/disk/{node}"


def test_every_user_of_a_node_has_a_folder_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config, folders = load_run_config({"name": "t", "models": [{"path": "m"}]}), set()
    for user in (1, 2):
        monkeypatch.setattr(run_module.os, "getuid", lambda user=user: user)
        bucket = Store("/unused")
        bucket.local = None  # as s3:// has none
        made = run_module._scratch(bucket, config).folder
        folders.add(made.relative_to(tempfile.gettempdir()).parts[0])
    assert len(folders) == 2, "who comes second could not write into a folder of the first"


def test_of_concurrent_calls_one_copies_and_the_others_wait(tmp_path: Path) -> None:
    asked = []

    def slowly() -> Iterator[np.ndarray]:
        asked.append(threading.get_ident())
        for _ in range(4):
            time.sleep(0.02)
            yield from chunks(b"xy")

    target = tmp_path / "new" / "a.arrow"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: fetch_once(target, 8, slowly), range(8)))
    assert sum(made) == len(asked) == 1
    assert target.read_bytes() == b"xyxyxyxy"


def test_of_concurrent_processes_one_copies(tmp_path: Path) -> None:
    together = SPAWN.Barrier(3, timeout=60).wait  # none begins before all are there
    with ProcessPoolExecutor(3, mp_context=SPAWN, initializer=together) as pool:
        assert sum(pool.map(slow, [tmp_path / "a.arrow"] * 6)) == 1


@pytest.mark.parametrize("sent", [b"", b"xyz", b"xyxyxyxyx"])
def test_a_transfer_of_another_length_leaves_nothing(sent: bytes, tmp_path: Path) -> None:
    target = tmp_path / "a.arrow"
    expected = f"transfer of a.arrow: got {len(sent)} bytes, expected 8"
    with pytest.raises(ValueError, match=expected):
        fetch_once(target, 8, lambda: chunks(sent))
    assert not target.exists() and {p.suffix for p in tmp_path.glob("_part-a*")} == set()
    assert fetch_once(target, 8, lambda: chunks(b"xyxy", b"xyxy"))
    assert not fetch_once(target, 8, lambda: chunks(b""))


def test_a_source_that_breaks_off_leaves_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from chunks(b"xy")
        raise RuntimeError("link cut")

    target = tmp_path / "a.arrow"
    with pytest.raises(RuntimeError, match="link cut"):
        fetch_once(target, 8, broken)
    assert not target.exists()
    assert fetch_once(target, 2, lambda: chunks(b"xy")) and target.read_bytes() == b"xy"
    remove(target)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_copy_leaves_no_file_and_no_lock(tmp_path: Path) -> None:
    target = tmp_path / "a.arrow"
    child = SPAWN.Process(target=killed, args=(target,))
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert not target.exists() and [p.name for p in tmp_path.glob("_part-a*")]
    assert fetch_once(target, 2, lambda: chunks(b"zz")) and target.read_bytes() == b"zz"
    assert [p.name for p in tmp_path.glob("_part-a*")] == []


def test_a_survey_finds_what_is_whole_and_cleans_the_rest(tmp_path: Path) -> None:
    whole = Path(capture_file(tmp_path))
    for name in ("_part-x.arrow", "torn.arrow", "other.arrow"):
        (tmp_path / name).write_bytes(whole.read_bytes()[:100])
    wanted = {"j.arrow", "torn.arrow", "absent.arrow"}
    ground = survey(tmp_path, wanted, only_wanted=True, node=A, address="10.0.0.1")
    assert ground.sizes == {"j.arrow": whole.stat().st_size} and ground.free > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["j.arrow", "torn.arrow"]
    other = Ground(B, "", "", 0, {"j.arrow": whole.stat().st_size, "torn.arrow": 7})
    assert found_on(SCRATCH, [ground, other]) == {
        SCRATCH.name("j.arrow"): Held(whole.stat().st_size, (A, B)),
        SCRATCH.name("torn.arrow"): Held(7, (B,)),
    }
    shared = Scratch(tmp_path, shared=True)
    assert found_on(shared, [replace(ground, node="")])[str(whole)].nodes == ()


def test_a_small_disk_is_refused_with_the_name_of_its_node() -> None:
    grounds = [Ground(A, "10.0.0.1", "/s", 10**12, {}), Ground(B, "10.0.0.2", "/s", 10**9, {})]
    check_disks(grounds, {A, B}, 10**9)
    check_disks(grounds, {A}, 10**11)  # the other one makes no captures
    with pytest.raises(
        ValueError, match=r"/s on node bbbbbbbb \(10\.0\.0\.2\) has 1\.00 GB free, needs 50\.0 GB"
    ):
        check_disks(grounds, {A, B}, 10**11)
    with pytest.raises(ValueError, match=r"captures: /s has 1\.00 GB free, needs 2\.00 GB"):
        check_disks([replace(grounds[1], node="")], set(), 2 * 10**9)


def capture(*files: str) -> CaptureJob:
    paths = {kind: SCRATCH.name(f) for kind, f in zip(("cloud", "stream"), files, strict=False)}
    weights = WeightSource(CHECKPOINT, "trained")
    return CaptureJob(weights, (ProbeCaptures("prose", "d", None, paths),), Protocol())


def job(key: str, *files: str) -> MeasureJob:
    paths = [SCRATCH.name(file) for file in files]
    return MeasureJob(key, "i", "{}", 0, paths[0], LABELS, more=tuple(paths[1:]))


def test_a_lost_node_costs_a_try_of_what_is_still_needed_and_of_nothing_else() -> None:
    jobs = [job("1", "c"), job("2", "s"), job("3", "d")]
    files = Files(Jobs([capture("c", "s"), capture("d")], jobs, {}), SCRATCH)
    (first, one), (second, _) = files.to_make(files.pending)
    assert one == 1 and set(first.paths()) == {SCRATCH.name("c"), SCRATCH.name("s")}
    for made, node in ((first, A), (second, B)):
        there = files.begun(made, node)
        assert there.paths() == [str(SCRATCH.on(node, Path(p).name)) for p in made.paths()]
        names = files.names(made, node)
        for path in there.paths():
            files.made(names[path], 100, node)
    assert all(files.available(j) for j in jobs)
    files.copied(SCRATCH.name("d"), A)
    assert files.release(jobs[0]) == [(SCRATCH.name("c"), (A,))]

    lost = files.gone({A})
    assert lost == [SCRATCH.name("s")], "c is needed no more, d is still on the other node"
    ((again, tries),) = files.to_make(lost)
    assert tries == 2 and again.paths() == lost
    assert files.blocking(jobs[1]) == lost[0] and files.available(jobs[2])
    assert files.gone({A}) == [], "nothing is lost twice"
    for _ in range(TRIES - 1):
        assert not files.exhausted(lost[0])
        files.begun(again, A)
    assert files.exhausted(lost[0])


def test_a_damaged_capture_goes_from_every_node_and_is_made_again_once() -> None:
    work = Jobs([capture("c", "s")], [job("1", "c"), job("2", "c"), job("3", "elsewhere")], {})
    work.found = {SCRATCH.name("c"): Held(7, (A, B))}
    files = Files(work, SCRATCH)
    removed: list[tuple[str, tuple[str, ...]]] = []

    def without(name: str) -> list[str]:
        got = Unfetched("1", SCRATCH.name(name), (), f"{name}: other bytes", damaged=True)
        return files.without(got, lambda path, nodes: removed.append((path, nodes)))

    lost = without("c")
    assert lost == [SCRATCH.name("c")] and removed == [(SCRATCH.name("c"), (A, B))]
    assert files.to_make(lost) and without("c") == [] and len(removed) == 1, "it is being made"
    assert without("elsewhere") == [], "of a folder of records: nobody can make it again"
    assert files.error_of(work.measurements[2]) == "elsewhere: other bytes" and len(removed) == 1


def test_captures_that_were_found_are_made_only_when_they_are_lost() -> None:
    work = Jobs([capture("c", "s")], [job("1", "c", "s")], {})
    work.found = {SCRATCH.name("c"): Held(7, (A,))}
    files = Files(work, SCRATCH)
    ((made, _),) = files.to_make(files.pending)
    assert made.paths() == [SCRATCH.name("s")]
    assert files.gone({A}) == [SCRATCH.name("c")]


def two_nodes(files: Files) -> Nodes:
    for file, node in (("c", A), ("s", B)):
        files.made(SCRATCH.name(file), 10**8, node)
    nodes = Nodes()
    nodes.cpus = {A: 2.0, B: 2.0}
    return nodes


def test_a_task_goes_to_its_capture_until_waiting_there_takes_longer_than_a_fetch() -> None:
    one, pair = job("1", "c"), job("2", "c", "s")
    files = Files(Jobs([capture("c", "s")], [one, pair], {}), SCRATCH)
    nodes = two_nodes(files)
    assert nodes.best(one, files, settled=False) == A
    nodes.queue(A, 2.0)
    assert nodes.best(one, files, settled=False) == A
    assert nodes.best(pair, files, settled=False) == B, "it has to fetch one or the other"
    nodes.queue(A, 2.0)
    assert nodes.best(one, files, settled=False) == B
    assert nodes.best(one, files, settled=True) == A
    files.copied(SCRATCH.name("c"), B)
    assert nodes.best(one, files, settled=True) == B, "both have it, and this one is idle"
    nodes.queue(A, -4.0)
    nodes.busy[A] = 2
    assert nodes.best(one, files, settled=False) == B, "actors have taken the other one"
    nodes.cpus = {A: 2.0}
    assert nodes.best(one, files, settled=False) is None, "Ray has no choice"


def test_groups_are_of_one_node_and_wait_for_all_their_captures(tmp_path: Path) -> None:
    jobs = [job("1", "c"), job("2", "c"), job("3", "s"), job("4", "c", "s"), job("5", "t")]
    given_up: list[str] = []
    work = Jobs([capture("c", "s"), capture("t")], jobs, {})
    files = Files(work, SCRATCH)
    nodes = Nodes()

    def give_up(lost: Sequence[MeasureJob], _: str) -> None:
        given_up.extend(j.key for j in lost)

    waiting = Waiting(files, nodes, ranges_of, give_up)
    for each in jobs:
        waiting.put(each)
    assert len(waiting) == 0 and waiting.take() is None
    nodes.cpus = two_nodes(files).cpus
    for file in ("c", "s"):
        waiting.wake(SCRATCH.name(file))
    files.fail(SCRATCH.name("t"), "why")
    waiting.wake(SCRATCH.name("t"))
    assert given_up == ["5"]

    def keys() -> list[str]:
        taken = waiting.take()
        assert taken is not None
        return [j.key for j in taken[0]]

    assert keys() == ["1", "2", "4"]
    # the other capture is lost before its turn comes
    files.to_make(files.gone({B}))
    waiting.put(jobs[0], 2)
    assert waiting.take() == ((jobs[0],), 2) and waiting.take() is None
    files.made(SCRATCH.name("s"), 10**8, A)
    waiting.wake(SCRATCH.name("s"))
    assert keys() == ["3"] and waiting.take() is None


@pytest.mark.ray
def test_a_file_comes_through_ray_in_chunks_and_is_asked_for_by_name(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(transfer, "CHUNK", 1000)
    scratch, node = Scratch(tmp_path / "{node}"), transfer.this_node()
    keepers = transfer.Keepers(scratch)
    (ground,) = transfer.survey_nodes(scratch, {"j.arrow"}, only_wanted=False)
    assert (ground.node, ground.sizes) == (node, {})
    source = Path(capture_file(scratch.on(node)))
    content = source.read_bytes()
    (ground,) = transfer.survey_nodes(scratch, {"j.arrow"}, only_wanted=True)
    assert ground.sizes == {"j.arrow": len(content)} and len(content) > 2000

    keeper = keepers.of([node])[node]
    sizes = [len(chunk) for chunk in transfer.chunks_from(keeper, len(content), "j.arrow")]
    assert max(sizes) == 1000 and sum(sizes) == len(content)
    target = tmp_path / "copy.arrow"
    assert fetch_once(
        target, len(content), lambda: transfer.chunks_from(keeper, len(content), "j.arrow")
    )
    assert target.read_bytes() == content
    longer = len(content) + 5000
    with pytest.raises(ValueError, match=f"got {len(content)} bytes, expected {longer}"):
        fetch_once(tmp_path / "x", longer, lambda: transfer.chunks_from(keeper, longer, "j.arrow"))
    with pytest.raises(ValueError, match="allowed: a name inside"):
        list(transfer.chunks_from(keeper, 10, "../j.arrow"))

    assert keepers.of([node])[node] is keeper, "it stays"
    removals = transfer.Removals(keepers)
    removals.now(scratch.name("j.arrow"), [node])
    assert not source.exists()
    keepers.stop()
    with pytest.raises(ray.exceptions.RayActorError):
        for _ in range(10_000):  # what was sent before it ends is still done
            ray.get(keeper.remove.remote("j.arrow"), timeout=60)


@pytest.mark.ray
def test_a_job_gets_the_files_of_its_node_or_hears_who_did_not_give_them(
    ray_session: None, tmp_path: Path
) -> None:
    scratch, node = Scratch(tmp_path / "{node}"), transfer.this_node()
    path, size = scratch.name("j.arrow"), Path(capture_file(scratch.on(node))).stat().st_size
    asked = MeasureJob("k", "i", "{}", 0, path, LABELS, more=("/made/elsewhere.arrow",))
    keepers = transfer.Keepers(scratch)
    supply = transfer.Supply(scratch, {path: Held(size, (node,))}, keepers.of([node]))
    found = supply.localised(asked)
    assert isinstance(found, tuple)
    assert found[0].paths() == [str(scratch.on(node, "j.arrow")), "/made/elsewhere.arrow"]
    assert found[1] == (), "nothing was fetched"

    remove(scratch.on(node, "j.arrow"))
    held, both = {path: Held(size, (node, B))}, keepers.of([node, B])
    lost = transfer.Supply(scratch, held, both).localised(asked)
    keepers.stop()
    assert isinstance(lost, Unfetched)
    assert (lost.key, lost.path, lost.gone) == ("k", path, (node, B))
    assert f"j.arrow from node {node[:8]}: " in lost.error and "node bbbbbbbb: " in lost.error


def scratch_config(text: Path, models: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Two sizes, two seeds, the overlap of their clouds, and a scratch for every node."""
    config = small_config(text, models, folder / "out", **changes)
    config["models"] = [
        {"path": str(models / f"d{width}-s{seed}"), "steps": "last"}
        for width in (16, 32)
        for seed in (0, 1)
    ]
    config["invariants"] = {
        "topology.persistence": {"num_points": 30, "num_subsamples": 3, "max_dimension": 1},
        "geometry.neighbour_overlap": {"num_points": 80, "num_subsamples": 2, "num_neighbours": 8},
    }
    config["cluster"] = {"scratch": str(folder / "scratch" / "{node}")}
    (folder / "series.yaml").write_text(yaml.safe_dump(config))
    return config


@pytest.fixture
def on_one_node(
    text_folder: Path, ladder: Path, ray_session: None, tmp_path: Path
) -> list[dict[str, Any]]:
    """The rows of the series, made in the shared session."""
    here = tmp_path / "one"
    here.mkdir()
    return rows(run(scratch_config(text_folder, ladder, here)).store)


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_a_run_on_two_nodes_into_a_bucket_is_that_on_one(
    namespaces: Path,
    text_folder: Path,
    ladder: Path,
    on_one_node: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("moto", reason="needs moto[server]")
    scratch_config(text_folder, ladder, tmp_path, captures="keep")
    found = isolated("into_a_bucket", tmp_path, namespaces, program="isolated_scratch")
    assert found["failed"] == found["lost"] == []
    assert found["rows"] == on_one_node
    assert found["completed"] == found["planned"]
    fetched = [(file, node) for file, _, node, _ in found["fetched"]]
    assert fetched, "pairs of captures of both nodes"
    assert len(fetched) == len(set(fetched)), "once for a file and a node"
    assert all(source != node and size > 0 for _, source, node, size in found["fetched"])
    assert set(found["makers"]) <= set(found["nodes"])
    kept = [name for name in found["kept"] if not name.startswith("_part-")]
    assert len(kept) == len(set(kept)) + len(fetched) == 4 + len(fetched), "a copy for every fetch"
    assert found["captured_again"] == 0, "what lies on a scratch is found again"
    assert found["again"] == 4 and found["same"]
    assert found["after"] == [], "discarded on every node that had a copy"


@pytest.mark.ray
@pytest.mark.root
@pytest.mark.slow
def test_captures_of_a_lost_node_are_made_again_for_what_still_needs_them(
    namespaces: Path,
    text_folder: Path,
    ladder: Path,
    on_one_node: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    scratch_config(text_folder, ladder, tmp_path, captures="discard")
    found = isolated("lose_captures", tmp_path, namespaces, program="isolated_scratch")
    assert found["killed"] and found["remade"] and set(found["remade"]) == {2}
    assert found["killed"][0] in found["makers"] and len(set(found["makers"])) == 2
    assert found["completed"] == found["planned"] and found["failed"] == []
    assert found["written"] and found["twice"] == found["rewritten"] == [], "nothing done twice"
    assert found["rows"] == on_one_node
    assert found["after"] == []
