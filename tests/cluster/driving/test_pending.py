"""Since when a task runs, how many actors there are, and an end where none can be started."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from scaleinv_ray import tables
from scaleinv_ray.cluster.driving import crew as crew_module
from scaleinv_ray.cluster.driving.crew import number_of_actors
from scaleinv_ray.cluster.driving.driver import Driver
from scaleinv_ray.cluster.driving.memory_backoff import Shrinking
from scaleinv_ray.cluster.pending import TEXT_CHARS, Flight, cause, mark_running, said
from scaleinv_ray.cluster.scratch.placement import TRIES, Nodes
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.costs import Load
from scaleinv_ray.plan.jobs import FAILED, CaptureJob, Jobs, ProbeCaptures, Range, WeightSource
from scaleinv_ray.records import Protocol
from scaleinv_ray.store import Store
from tests.cluster.isolated.isolated import CHECKPOINT
from tests.cluster.synthetic_work import capture_file, good

NODES = Nodes(cpus={"a": 8.0, "b": 8.0}, memory={"a": 10e9, "b": 25e9, "head": 99e9})


def running(flights: Sequence[Flight]) -> list[bool]:
    mark_running(flights, lambda node, memory: int(min(16.0, NODES.fitting(node, memory))))
    return [flight.since is not None for flight in flights]


def flight(memory: float = 0.0, node: str | None = None) -> Flight:
    return Flight(tuple(good(1, "f")), 1, node=node, memory=memory)


def test_what_waits_for_memory_does_not_run_and_has_no_deadline_yet() -> None:
    assert running([flight() for _ in range(17)]) == [True] * 16 + [False]
    assert running([flight(10e9) for _ in range(5)]) == [True] * 3 + [False] * 2
    assert running([flight(10e9, "a"), flight(1e9, "a"), flight(10e9, "b")]) == [True, False, True]
    waiting = [flight(6e9, "a"), flight(6e9, "a")]
    assert running(waiting) == [True, False]
    began, now = waiting[0].since, time.monotonic()
    assert running(waiting[1:]) == [True], "its turn has come"
    assert began is not None and waiting[1].since is not None
    assert began <= now <= waiting[1].since


def capture(folder: Path, load: Load = "auto") -> CaptureJob:
    paths = {"jacobians": str(folder / "j.arrow")}
    of = ProbeCaptures("prose", "d", None, paths)
    return CaptureJob(WeightSource(CHECKPOINT, "trained"), (of,), Protocol(), load=load)


@pytest.mark.ray
def test_an_actor_that_never_starts_ends_in_failed_rows(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, **_: Any) -> None:
            raise ImportError("no torch here")

        def place(self, _: Any) -> None:
            """Never asked."""

    monkeypatch.setattr(crew_module, "CaptureActor", ray.remote(max_restarts=0)(Broken))
    job = capture(tmp_path)
    lost: list[str] = []

    def log(event: str, **values: Any) -> None:
        if event == "lost":
            lost.append(values["error"])
            assert len(lost) <= 2 * TRIES, "it would go on for ever"

    store = Store(tmp_path / "out")
    Driver(store, Jobs([job], good(2, job.paths()[0]), {}), ClusterOptions(), log).execute()
    assert len(lost) == TRIES and all("no torch here" in error for error in lost)
    assert store.names("measurements") == [f"good{i}{FAILED}" for i in range(2)]
    (row, *_) = tables.decode(store.read_table(f"measurements/good0{FAILED}"))
    assert row["status"] == "failed" and "no torch here" in row["error"]


def test_as_many_actors_as_fit_have_their_gpus_or_half_the_cpus() -> None:
    def actors(waiting: int = 20, **given: Any) -> int:
        return number_of_actors(waiting, ClusterOptions(**given), cpus=64, gpus=8)

    assert actors(gpus_per_model=2) == 4
    assert actors(gpus_per_model=2, actors=2) == 2, "as the user says"
    assert (actors(), actors(100), actors(0)) == (20, 32, 0), "no more than captures"


def test_an_actor_that_replaces_another_shares_its_node_with_those_there(tmp_path: Path) -> None:
    made = Driver(Store(tmp_path), Jobs([], [], {}), ClusterOptions(), print)
    made._cpus, made._nodes.cpus = 16, {"worker": 16.0}
    made._crew._all.extend([None] * 3)  # the last captures are under way, none is waiting
    assert made._sharing() == 4
    made._nodes.cpus = {"worker": 8.0, "other": 8.0}
    assert made._sharing() == 2


def test_captures_to_be_made_again_have_an_actor_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, started = capture(tmp_path), []
    (path,) = job.paths()
    work = Jobs([job], good(1, path), {})
    made = Driver(Store(tmp_path), work, ClusterOptions(), lambda *_, **__: None)
    made._cpus = 4
    monkeypatch.setattr(made, "_look_at_nodes", lambda: None)
    monkeypatch.setattr(made, "_new_actor", lambda: started.append(job))
    made._count_cpus()
    made._files.made(path, 10, "a")
    assert not started, "nothing is to be captured"
    made._remake([path], "ObjectLostError: gone")
    made._count_cpus()  # within COUNT_S of the look before: the driver would turn idly till then
    assert len(started) == 1


@pytest.mark.ray
def test_a_store_that_has_a_bad_moment_costs_a_try_and_no_row(
    ray_session: None, tmp_path: Path
) -> None:
    out, lost = tmp_path / "out", []
    out.mkdir()
    (out / "measurements").write_text("a file where a folder should be")

    def log(event: str, **values: Any) -> None:
        if event == "lost":
            lost.append((values["tries"], values["error"]))
            (out / "measurements").unlink(missing_ok=True)

    jobs = good(1, capture_file(tmp_path))
    Driver(Store(out), Jobs([], jobs, {}), ClusterOptions(), log).execute()
    assert take_inventory(Store(out)).done == {"good0"} and not list(out.rglob(f"*{FAILED}"))
    ((tries, error),) = lost
    assert tries == 1 and error.startswith("FileExistsError: ")


def test_a_store_that_stays_away_is_tried_so_many_times_and_no_more(tmp_path: Path) -> None:
    (job,) = good(1, str(tmp_path / "c"))
    store = Store(tmp_path / "out")
    made = Driver(store, Jobs([], [job], {}), ClusterOptions(), lambda *_, **__: None)
    for tries in range(1, TRIES):
        made._broken(Flight((job,), tries), OSError("503: slow down"))
        assert made._waiting.take() == ((job,), tries + 1)
    assert not store.names("measurements")
    made._broken(Flight((job,), TRIES), OSError("503: slow down"))
    assert made._waiting.take() is None
    (row, *_) = tables.decode(store.read_table(f"measurements/good0{FAILED}"))
    assert row["error"] == "OSError: 503: slow down"


def test_what_the_work_itself_raises_is_not_tried_again(tmp_path: Path) -> None:
    (job,) = good(1, str(tmp_path / "c"))
    store = Store(tmp_path / "out")
    made = Driver(store, Jobs([], [job], {}), ClusterOptions(), lambda *_, **__: None)
    made._broken(Flight((job,), 1), ValueError("got 3, allowed 2"))
    assert made._waiting.take() is None and store.exists(f"measurements/good0{FAILED}")


def test_whatever_ray_cannot_do_is_a_failed_row_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(_: Any) -> None:
        raise ray.exceptions.OutOfDiskError("full")

    (job,) = good(1, str(tmp_path / "c"))
    store = Store(tmp_path / "out")
    made = Driver(store, Jobs([], [job], {}), ClusterOptions(), lambda *_, **__: None)
    made._flights["ref"] = Flight((job,), 1)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    made._collect()
    (row, *_) = tables.decode(store.read_table(f"measurements/good0{FAILED}"))
    assert row["error"] == "OutOfDiskError: full" and not made._flights


def test_a_long_error_is_a_line_that_says_what_and_why() -> None:
    report = "\n".join(f"{pid} 0.10 ray::measure_all --{'x' * 50}" for pid in range(100))
    killed = "Selected to kill: (Actor(0cb9): pid=176, actual memory used=3.21GB, worker ID=5b1)"
    advice = "Refer to: docs"
    full = "1 worker(s) were killed due to the node running low on memory. It was 3.66GB / 4.00GB"
    found = said(ray.exceptions.OutOfMemoryError("\n".join([full, killed, report, advice])))
    assert found == f"OutOfMemoryError: {full} It had taken 3.21GB."
    two = said(ray.exceptions.OutOfMemoryError("\n".join([full, killed, killed, advice])))
    assert two == f"OutOfMemoryError: {full}", "which of the two it was is not known"
    raised = said(ray.exceptions.NodeDiedError(f"{'x' * 999}\n{report}\nImportError: no torch"))
    assert raised.startswith("NodeDiedError: xx") and raised.endswith(" ImportError: no torch")
    assert len(raised) < TEXT_CHARS
    assert len(said(ray.exceptions.NodeDiedError("y" * 9999))) == TEXT_CHARS
    assert len(cause(ValueError("z" * 9999))) == TEXT_CHARS
    short = said(ray.exceptions.WorkerCrashedError())
    assert short == f"WorkerCrashedError: {ray.exceptions.WorkerCrashedError()}"


@pytest.mark.ray
def test_a_range_that_was_killed_asks_for_more_than_it_had(ray_session: None) -> None:
    (job,) = good(1, "f")
    part = replace(job, only=Range("t", 0, 1, memory=10**7, seconds=1.0))
    asking = Shrinking(1000)
    asking.killed((part,), ray.exceptions.OutOfMemoryError("killed"))
    assert asking.of([part]) == 2 * 10**7
