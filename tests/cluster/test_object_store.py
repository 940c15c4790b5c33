"""A run into an S3-compatible store on loopback, and checkpoints that arrive in a bucket."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from scaleinv_ray import tables
from scaleinv_ray.cluster.conclude import completed, read_folder
from scaleinv_ray.cluster.run import run
from scaleinv_ray.cluster.status import status
from scaleinv_ray.cluster.watch import arrivals, fetched
from scaleinv_ray.store import Store
from tests.cluster.buckets import bucket_server
from tests.cluster.test_faults import small_config

pytestmark = pytest.mark.ray
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
    assert store.local is None and completed(store) == completed(here.store)

    def rows(of: Store) -> list[dict[str, object]]:
        found = tables.decode(read_folder(of, "measurements"))
        return [{k: v for k, v in r.items() if k not in {"run_id", "wall_s"}} for r in found]

    assert rows(store) == rows(here.store)
    for name in ("config.yaml", "plan.parquet", "verdicts.parquet", "report.html"):
        assert store.exists(name)
    found = status(store, now=time.time())
    assert found.state == "ended" and sum(found.by_kind.values()) == 3
    assert run(config, out=uri).computed == 0


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
    assert arrivals(uri, settled_s=0) == []
    put(files[0], files[0].read_bytes())
    assert arrivals(uri, settled_s=0) == ["d16-s0/step-000006"]
    copy = fetched(uri, "d16-s0/step-000006", tmp_path)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {
        p.name: p.read_bytes() for p in files
    }
