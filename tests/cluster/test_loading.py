"""A model that does not fit is streamed, and the run is the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.cluster import actors
from scaleinv_ray.cluster.actors import Capturer, states_of
from scaleinv_ray.cluster.scratch.disk import clean
from scaleinv_ray.conclude.concluding import read_folder
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.plan import costs, make_plan
from scaleinv_ray.plan.jobs import CaptureJob
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.runs import analysis as run_module
from scaleinv_ray.runs.analysis import run
from scaleinv_ray.store import Store, read_records
from tests.cluster.driving.test_faults import small_config

pytestmark = pytest.mark.ray
INVARIANTS: dict[str, dict[str, Any]] = {
    "renormalization.critical_exponents": {},
    "topology.persistence": {"num_points": 30, "num_subsamples": 3, "max_dimension": 1},
    "representation.covariance_decay": {},
    "holomorphy.resolvent_counts": {},
}


def one_model(text: Path, ladder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    config = small_config(text, ladder, out, invariants=INVARIANTS, captures="keep")
    config["models"] = [{"path": str(ladder / "d32-s0"), "steps": "last"}]
    return config | changes


def the_job(config: RunConfig) -> tuple[CaptureJob, Any]:
    plan = make_plan(config)
    scratch = Path(config.out) / "captures"
    work = jobs_for(plan, plan.missing(set()), config, scratch=scratch, run_id="r")
    (job,) = work.captures
    return job, work.tokens


@pytest.mark.parametrize(
    ("memory", "gpu", "how"),
    [(131, 0, "resident"), (129, 0, "streamed"), (10**6, 129, "streamed"), (1, 131, "resident")],
)
def test_what_fits_is_loaded_whole(memory: int, gpu: int, how: str) -> None:
    assert costs.choose_loading(100, memory=memory, gpu_memory=gpu).how == how


def test_available_memory_is_that_of_a_machine() -> None:
    assert 2**20 < costs.available_memory() < 2**50


@pytest.mark.slow
def test_a_streamed_run_has_the_same_rows_and_says_what_it_cannot_give(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is concluded from the rows is tested elsewhere
    monkeypatch.setattr(run_module, "conclude", lambda *_: SCHEMAS["verdicts"].empty_table())

    def rows(load: str) -> list[dict[str, Any]]:
        out = tmp_path / load
        run(one_model(text_folder, ladder, out, cluster={"load": load}))
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [e["load"] for e in log if e["event"] == "captured"] == [load]
        found = tables.decode(read_folder(Store(out), "measurements"))
        return [{k: v for k, v in r.items() if k not in {"run_id", "wall_s"}} for r in found]

    resident, streamed = rows("resident"), rows("streamed")
    needs_whole = [r for r in streamed if r["family"] == "holomorphy"]
    assert needs_whole and all(r["status"] == "failed" for r in needs_whole)
    assert all("['jacobians'] of a streamed model" in r["error"] for r in needs_whole)
    assert [r for r in resident if r["family"] != "holomorphy"] == [
        r for r in streamed if r["family"] != "holomorphy"
    ]


def test_an_actor_streams_what_does_not_fit_into_its_share_and_leaves_no_states(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tokens = the_job(load_run_config(one_model(text_folder, ladder, tmp_path / "out")))
    size = costs.model_bytes(job.weights.checkpoint)
    monkeypatch.setattr(actors, "available_memory", lambda: 2 * size)
    whole = Capturer(num_threads=1, num_gpus=0).capture(job, tokens)
    kept = {path: Path(path).read_bytes() for path in whole.written}
    half = Capturer(num_threads=1, num_gpus=0, sharing=2).capture(job, tokens)
    assert (whole.load, half.load) == ("resident", "streamed") and not whole.failed
    assert {Path(p).read_bytes() for p in half.written} <= set(kept.values())
    assert {e.split(":")[0] for e in half.failed.values()} == {"ValueError"}
    assert not list((tmp_path / "out" / "captures").glob("states-*"))


def streamed_cloud(text: Path, ladder: Path, out: Path) -> tuple[CaptureJob, Any]:
    """A job of one cloud, layer by layer, and its tokens."""
    name = "topology.persistence"
    changes = {"cluster": {"load": "streamed"}, "invariants": {name: INVARIANTS[name]}}
    return the_job(load_run_config(one_model(text, ladder, out, **changes)))


def test_an_actor_goes_on_where_a_killed_one_stopped(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tokens = streamed_cloud(text_folder, ladder, tmp_path / "o")
    (of,) = job.wanted

    class Killed(BaseException):
        pass

    states = states_of(job, of, frozenset({"cloud"}))
    original = type(states).write
    blocks: list[int] = []

    def write(self: Any, level: int) -> Any:
        blocks.append(level)
        if level == 2:
            raise Killed
        return original(self, level)

    monkeypatch.setattr(type(states), "write", write)
    monkeypatch.setattr(actors.shutil, "rmtree", lambda *_a, **_k: None)  # it was killed
    with pytest.raises(Killed):
        Capturer(num_threads=1, num_gpus=0).capture(job, tokens)
    monkeypatch.undo()
    assert blocks == [0, 1, 2] and states.latest() == 1
    read: list[int] = []
    put = StreamedModel._put
    monkeypatch.setattr(
        StreamedModel, "_put", lambda self, *a: (read.append(a[2].nbytes), put(self, *a))
    )
    outcome = Capturer(num_threads=1, num_gpus=0).capture(job, tokens)
    assert not outcome.failed and not states.folder.exists()
    assert sum(read) < 0.75 * costs.model_bytes(job.weights.checkpoint), "one of two blocks"
    other, tokens = streamed_cloud(text_folder, ladder, tmp_path / "p")
    Capturer(num_threads=1, num_gpus=0).capture(other, tokens)
    for a, b in zip(job.paths(), other.paths(), strict=True):
        for x, y in zip(read_records(Path(a)), read_records(Path(b)), strict=True):
            np.testing.assert_array_equal(x.x_TD, y.x_TD)


def test_a_pass_that_kept_no_lower_levels_begins_again(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tokens = streamed_cloud(text_folder, ladder, tmp_path / "o")
    (of,) = job.wanted
    usage = actors.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(actors.shutil, "disk_usage", lambda _: usage._replace(free=1))
    states = states_of(job, of, frozenset({"cloud"}))
    for level in range(2):  # as a pass leaves them that was killed in its second block
        with states.write(level) as write:
            write(np.zeros((96, 48, 16), np.float32))
    assert [states.complete(n) for n in range(3)] == [False, True, False]
    outcome = Capturer(num_threads=1, num_gpus=0).capture(job, tokens)
    assert not outcome.failed and len(outcome.written) == 1


def test_cleaning_keeps_the_states_of_wanted_captures_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"states-{name}").mkdir()
    clean(tmp_path, {str(tmp_path / "a.arrow")})
    assert [p.name for p in tmp_path.iterdir()] == ["states-a"]
