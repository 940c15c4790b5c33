"""A run into an S3-compatible store on loopback, and checkpoints that arrive in a bucket."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from scaleinv_ray import tables
from scaleinv_ray.conclude.concluding import read_folder
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.runs.analysis import run
from scaleinv_ray.runs.status import status
from scaleinv_ray.runs.watch import fetched, look
from scaleinv_ray.store import Store
from tests.cluster.buckets import bucket_server
from tests.cluster.driving.test_faults import small_config
from tests.cluster.driving.weather import Weather, proxied
from tests.cluster.synthetic_work import capture_file, execute, good

pytestmark = pytest.mark.ray
LAST = "good0.parquet"
pytest.importorskip("moto", reason="needs moto[server]")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of a bucket on a server of its own, with what workers need to reach it."""
    with bucket_server() as uri:
        yield uri


def test_a_run_into_a_bucket_is_that_into_a_folder_and_is_not_made_twice(
    bucket: str, text_folder: Path, ladder: Path, ray_session: None, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out", captures="discard")
    config["models"] = [{"path": str(ladder / "d16-s0"), "steps": "last"}]
    here = run(config)
    uri = bucket.format("a/run")
    there = run(config, out=uri)
    assert (there.computed, there.failed) == (here.computed, 0) == (3, 0)
    store = Store(uri)
    assert store.local is None and take_inventory(store).done == take_inventory(here.store).done

    def rows(of: Store) -> list[dict[str, object]]:
        found = tables.decode(read_folder(of, "measurements"))
        return [{k: v for k, v in r.items() if k not in {"run_id", "wall_s"}} for r in found]

    assert rows(store) == rows(here.store)
    for name in ("config.yaml", "plan.parquet", "verdicts.parquet", "report.html"):
        assert store.exists(name)
    found = status(store, now=time.time())
    assert found.state == "ended" and sum(found.by_kind.values()) == 3
    store.write_bytes("measurements/x.parquet", b"half")
    assert any("measurements/x.parquet" in note for note in status(store, now=0.0).notes)
    assert run(config, out=uri).computed == 0
    assert "x.parquet" not in store.names("measurements"), "set aside, in a bucket too"


@pytest.fixture
def weather(bucket: str) -> Iterator[tuple[Store, Weather]]:
    """A folder of the bucket behind a proxy that has bad moments."""
    port = int(re.findall(r"127\.0\.0\.1%3A(\d+)", bucket)[0])
    with proxied(port) as (front, made):
        yield Store(bucket.format(f"weather-{front}").replace(str(port), str(front))), made


def test_a_bad_moment_of_a_bucket_passes_and_a_refusal_is_said_at_once(
    weather: tuple[Store, Weather],
) -> None:
    store, sky = weather
    store.write_bytes("a", b"one")
    sky.below, sky.methods, sky.times = "/a", ("GET",), 2
    assert store.read_bytes("a") == b"one", "Arrow itself does not ask again for an object"
    assert [*sky.struck.values()] == [3]
    sky.kind, sky.methods = "denied", ("PUT", "HEAD")
    for ask in (lambda: store.write_bytes("a", b"two"), lambda: store.exists("a")):
        sky.struck.clear()
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            ask()
        assert [*sky.struck.values()] == [1], "asking again is of no use"
    sky.times = 0
    assert store.read_bytes("a") == b"one"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slow down", "reset"])
def test_a_measurement_outlives_a_bad_moment_that_is_too_long_for_arrow(
    kind: str, weather: tuple[Store, Weather], ray_session: None, tmp_path: Path
) -> None:
    store, sky = weather
    sky.below, sky.kind, sky.times = LAST, kind, 40  # Arrow gives up after about thirty
    events = execute(store, good(3, capture_file(tmp_path)))
    assert take_inventory(store).done == {f"good{i}" for i in range(3)}
    assert max(sky.struck.values()) == 41
    assert [e["event"] for e in events] == ["measured"] * 3, "and that was no try"


@pytest.mark.slow
def test_what_stays_away_is_a_failed_row_that_the_next_run_mends(
    weather: tuple[Store, Weather], ray_session: None, tmp_path: Path
) -> None:
    store, sky = weather
    jobs = good(3, capture_file(tmp_path))
    sky.below, sky.times = LAST, 10**6
    events = execute(store, jobs)
    assert take_inventory(store).done == {"good1", "good2"}
    assert [e["tries"] for e in events if e["event"] == "lost"] == [1, 2, 3]
    (row, *_) = tables.decode(store.read_table(f"measurements/good0{FAILED}"))
    assert row["status"] == "failed" and "SLOW_DOWN" in row["error"]
    sky.times = 0
    execute(store, jobs[:1])
    assert "good0" in take_inventory(store).done
    assert not [n for n in store.names("measurements") if n.endswith(FAILED)]


def test_a_store_that_refuses_costs_one_try_and_ends_nothing(
    weather: tuple[Store, Weather], ray_session: None, tmp_path: Path
) -> None:
    store, sky = weather
    sky.below, sky.kind, sky.times = ".parquet", "denied", 10**6
    (event, *more) = execute(store, good(1, capture_file(tmp_path)))
    assert event["event"] == "measured" and not more, "no second try, though it is an OSError"
    assert "ACCESS_DENIED" in event["error"] and "nor could its rows be written" in event["error"]
    assert store.names("measurements") == [], "the next run finds it missing"


def test_checkpoints_arrive_in_a_bucket_whole_or_not(
    bucket: str, ladder: Path, tmp_path: Path
) -> None:
    uri = bucket.format("arriving")
    filesystem, root = fs.FileSystem.from_uri(uri)
    source = ladder / "d16-s0" / "step-000006"
    files = sorted(source.iterdir(), key=lambda p: p.suffix != ".safetensors")

    def put(file: Path, data: bytes) -> None:
        with filesystem.open_output_stream(f"{root}/d16-s0/step-000006/{file.name}") as stream:
            stream.write(data)

    put(files[0], files[0].read_bytes()[:-8])
    for file in files[1:]:
        put(file, file.read_bytes())
    assert look(uri, settled_s=0).whole == []
    put(files[0], files[0].read_bytes())
    assert look(uri, settled_s=0).whole == ["d16-s0/step-000006"]
    copy = fetched(uri, "d16-s0/step-000006", tmp_path)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {
        p.name: p.read_bytes() for p in files
    }
