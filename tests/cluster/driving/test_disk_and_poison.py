"""A full disk leaves nothing under a final name; what kills its worker is put aside."""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scaleinv_ray import tables
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.cluster.driving.driver import TRIES
from scaleinv_ray.config import load_run_config
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED, WeightSource
from scaleinv_ray.store import Store, is_complete
from tests.cluster.synthetic_work import capture_file, execute, good, of_weights
from tests.cluster.test_loading import one_model, the_job

pytestmark = pytest.mark.ray


@contextmanager
def largest_file(num_bytes: int) -> Generator[None]:
    """Writes beyond this size fail with an OSError, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("load", ["resident", "streamed"])
def test_a_full_disk_fails_the_captures_and_leaves_no_file(
    load: str, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = one_model(text_folder, ladder, tmp_path / "out", cluster={"load": load})
    job, tokens = the_job(load_run_config(config))
    actor = Capturer(num_threads=1, num_gpus=0)
    with largest_file(4096):
        outcome = actor.capture(job, tokens)
    assert not outcome.written and set(outcome.failed) == set(job.paths())
    of_disk = [e for e in outcome.failed.values() if "File too large" in e]
    assert len(of_disk) == len(job.paths()) - (load == "streamed"), "but for the jacobians"
    assert not list((tmp_path / "out" / "captures").iterdir())
    again = actor.capture(job, tokens)
    assert len(again.written) == len(of_disk)
    assert all(is_complete(Path(path)) for path in again.written)


def test_a_table_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = tables.MEASUREMENTS.empty_table()
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        store.write_table("measurements/k.parquet", table)
    assert store.names("measurements") == [] and not list((tmp_path / "measurements").iterdir())
    store.write_table("measurements/k.parquet", table)
    assert take_inventory(store).done == {"k"}


def test_what_kills_its_worker_becomes_a_failed_row_after_three_tries(
    text_folder: Path, ladder: Path, ray_session: None, tmp_path: Path
) -> None:
    config = load_run_config(one_model(text_folder, ladder, tmp_path / "unused"))
    checkpoint = the_job(config)[0].weights.checkpoint
    log = tmp_path / "log"

    class Poison(WeightSource):  # defined here, so that workers get it by value
        def folder(self) -> Path:
            import os

            with log.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            os._exit(1)

    jobs = good(12, capture_file(tmp_path))
    jobs.insert(1, of_weights("poison", Poison(checkpoint, "trained")))
    store = Store(tmp_path / "out")
    events = execute(store, jobs)
    assert take_inventory(store).done == {f"good{i}" for i in range(12)}, "the rest goes on"
    assert store.exists(f"measurements/poison{FAILED}")
    errors = store.read_table(f"measurements/poison{FAILED}", ["error"])["error"].to_pylist()
    assert all("WorkerCrashedError" in e for e in errors)
    pids = log.read_text().split()
    assert len(pids) == len(set(pids)) == TRIES
    assert [e["tries"] for e in events if e["event"] == "lost"] == [1, 2, 3]
