"""How far a run is, read from its folder; what the telemetry leaves there."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from scaleinv_ray import tables
from scaleinv_ray.cluster.telemetry import Telemetry, read_events
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.runs.starting.run_lock import alone
from scaleinv_ray.runs.status import status
from scaleinv_ray.store import Store

KINDS = ("cloud", "cloud", "cloud", "weights", "weights")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five planned measurements: one done alone, one compacted, one failed, two missing."""
    made = Store(tmp_path)
    row: dict[str, Any] = dict.fromkeys(tables.PLAN.names, "x")
    row |= {"n_params": 1, "seed": 0, "step": 0, "bytes": 0, "done": False}
    rows = [row | {"key": f"k{i}", "kind": kind} for i, kind in enumerate(KINDS)]
    made.write_table("plan.parquet", tables.encode(rows, tables.PLAN))

    def measured(key: str, error: str | None = None) -> Any:
        given = dict.fromkeys(tables.MEASUREMENTS.names) | {"key": key, "error": error}
        return tables.MEASUREMENTS.empty_table().from_pylist([given], schema=tables.MEASUREMENTS)

    made.write_table("measurements/k0.parquet", measured("k0"))
    made.write_table("measurements/all-1.parquet", measured("k3"))
    made.write_table(f"measurements/k1{FAILED}", measured("k1", "ValueError: no luck"))
    return made


def log(store: Store, events: list[tuple[float, str]]) -> None:
    lines = [json.dumps({"time": t, "event": e}) + "\n" for t, e in events]
    (Path(store.uri) / "log.jsonl").write_text("".join(lines))


def test_counts_by_kind_and_reasons_of_what_failed(store: Store) -> None:
    found = status(store, now=0.0)
    assert found.by_kind == {
        ("cloud", "done"): 1, ("cloud", "failed"): 1, ("cloud", "missing"): 1,
        ("weights", "done"): 1, ("weights", "missing"): 1,
    }  # fmt: skip
    assert found.reasons == {"ValueError: no luck": 1}
    assert (found.state, found.rate, found.idle_s) == ("never started", None, None)
    text = "\n".join(found.lines())
    assert "failed x1: ValueError: no luck" in text and "time left" not in text


def test_rate_and_time_left_are_those_of_the_last_start(store: Store) -> None:
    first = [(0.0, "started"), (1.0, "measured"), (100.0, "measured"), (101.0, "ended")]
    log(store, first)
    assert status(store, now=103.0).state == "ended"
    assert status(store, now=103.0).seconds_left is None
    second = [(200.0, "started"), *((200.0 + t, "measured") for t in (2, 4, 6, 8))]
    log(store, first + second)
    with (Path(store.uri) / "log.jsonl").open("a") as stream:
        stream.write('{"time": 3')  # a line that is being written
    found = status(store, now=210.0)
    assert found.state == "running" and found.rate == pytest.approx(0.5)
    assert found.seconds_left == pytest.approx(2 / 0.5) and found.idle_s == pytest.approx(2.0)


def test_a_line_torn_by_a_killed_run_does_not_hide_the_rest(store: Store) -> None:
    log(store, [(1.0, "started"), (2.0, "measured")])
    with (Path(store.uri) / "log.jsonl").open("a") as stream:
        stream.write('{"time": 3.0, "eve')  # killed; the next run goes on in the same line
        stream.write('{"time": 4.0, "event": "started"}\n{"time": 5.0, "event": "ended"}\n')
    assert [e["time"] for e in read_events(store)] == [1.0, 2.0, 5.0]
    assert status(store, now=6.0).state == "ended"


NO_EVENTS = [
    b"null", b"3", b"[1]", b'"started"', b"{}", b'{"time": 1}', b'{"event": "ended"}',
    b'{"time": NaN, "event": "ended"}', b'{"time": 1e999, "event": "ended"}',
    b'{"time": "9", "event": "ended"}', b'{"time": true, "event": "ended"}',
    b'{"time": 9, "event": null}', b'{"time": 9, "event": ["ended"]}', b"\xff\xfe\x00", b"",
    b'{"time": ' + b"9" * 5000 + b', "event": "ended"}', b"[" * 100_000,
    b'{"time": 1' + b"0" * 400 + b', "event": "ended"}',
]  # fmt: skip


@pytest.mark.parametrize("line", NO_EVENTS)
def test_a_line_that_is_no_event_is_passed_over(line: bytes, store: Store) -> None:
    log(store, [(1.0, "started"), (2.0, "measured")])
    with (Path(store.uri) / "log.jsonl").open("ab") as stream:
        stream.write(line + b'\n{"time": 5.0, "event": "measured"}\n')
    assert [e["time"] for e in read_events(store)] == [1.0, 2.0, 5.0]
    assert status(store, now=6.0).state == "running"


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(store: Store) -> None:
    log(store, [(1e9, "started"), (2e9, "measured"), (3e9, "measured")])
    with alone(store):
        found = status(store, now=1.0)
    assert found.state == "running" and found.seconds_left is not None
    assert found.idle_s == 0.0, "the clock of the run was ahead"
    found = status(store, now=1.0)
    assert found.state == "stopped" and found.seconds_left is None
    assert found.lines()[-1] == "state: stopped, last event 0 s ago"


def test_damaged_and_foreign_files_are_named(store: Store) -> None:
    folder = Path(store.path("measurements"))
    (folder / "k0.parquet").write_bytes(b"")
    (folder / f"k1{FAILED}").write_bytes(b"PAR1")
    (folder / "notes.txt").touch()
    found = status(store, now=0.0)
    assert found.by_kind["cloud", "missing"] == 3 and not found.reasons
    text = "\n".join(found.lines())
    for name in ("k0.parquet", f"k1{FAILED}", "notes.txt"):
        assert f"measurements/{name}" in text
    (folder.parent / "plan.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"plan\.parquet: 4 bytes, empty, truncated or no"):
        status(store, now=0.0)


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without plan.parquet"):
        status(Store(tmp_path), now=0.0)


MEASURED = {"failed": 0, "queue": 3, "bytes_read": 10}


@pytest.mark.ray
def test_an_event_is_a_line_and_a_metric(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, Any]] = []
    from ray.util import metrics

    monkeypatch.setattr(
        metrics.Counter,
        "inc",
        lambda self, value=1.0, tags=None: seen.append((self.info["name"], value, tags)),
    )
    monkeypatch.setattr(
        metrics.Gauge,
        "set",
        lambda self, value, tags=None: seen.append((self.info["name"], value, tags)),
    )
    telemetry = Telemetry(Store(tmp_path), captures=1, measurements=2)
    telemetry("captured", tokens=640, queue=0)
    telemetry("measured", **MEASURED)
    telemetry("measured", **MEASURED | {"failed": 1})
    telemetry.close()
    events = list(read_events(Store(tmp_path)))
    assert [e["event"] for e in events] == ["captured", "measured", "measured"]
    assert telemetry.counts["failed_measurements"] == 1
    assert ("scaleinv_tokens", 640, None) in seen and ("scaleinv_bytes_read", 10, None) in seen
    done = [tags["status"] for name, _, tags in seen if name == "scaleinv_units_done"]
    assert done == ["ok", "failed"] and ("scaleinv_queue", 3, None) in seen


@pytest.mark.ray
def test_an_object_store_gets_the_log_in_parts(tmp_path: Path, ray_session: None) -> None:
    store = Store(tmp_path)
    store.local = None  # as s3:// has none
    assert isinstance(store._fs, fs.LocalFileSystem)
    (tmp_path / "log").mkdir()
    for _ in range(2):
        telemetry = Telemetry(store, captures=0, measurements=1)
        telemetry("started")
        telemetry("measured", **MEASURED)
        telemetry.close()
    assert len(store.names("log")) == 2
    assert [e["event"] for e in read_events(store)] == ["started", "measured"] * 2
