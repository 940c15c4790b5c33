"""What breaks on the way becomes failed rows or is done again; the rest of the run goes on."""

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scaleinv_ray import tables
from scaleinv_ray.checkpoints import from_folder
from scaleinv_ray.cluster.scratch.disk import clean
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import WeightSource
from scaleinv_ray.runs.analysis import Run, run
from scaleinv_ray.store import Store
from tests.cluster.conftest import run_config
from tests.cluster.synthetic_work import execute, of_weights

pytestmark = pytest.mark.ray
INVARIANTS = {
    "weights.weight_tail": {"num_null": 2},
    "topology.persistence": {"num_points": 30, "num_subsamples": 3, "max_dimension": 1},
    "holomorphy.resolvent_counts": {},
}


def small_config(text: Path, models: Path, out: Path, **changes: Any) -> dict[str, Any]:
    config = run_config(text, models, out)
    config["models"] = [{"ladder": str(models), "steps": "last"}]
    return config | {"variants": ["trained"], "invariants": dict(INVARIANTS)} | changes


def events(out: Path) -> list[dict[str, Any]]:
    log = out / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def failed(result: Run) -> list[dict[str, Any]]:
    return [r for r in tables.decode(result.measurements) if r["status"] == "failed"]


def test_a_model_that_gives_nan_fails_alone_and_is_tried_again(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(ladder, models)
    file = models / "d32-s1" / "step-000006" / "model.safetensors"
    weights = load_file(file)
    name = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, file, metadata={"format": "pt"})
    config = small_config(text_folder, models, tmp_path / "out")

    first = run(config)
    assert first.failed == 2, "the two measurements that need a forward pass through the block"
    assert {r["model"] for r in failed(first)} == {"d32-s1"}
    assert all("finite" in r["error"] for r in failed(first))
    refused = {
        r["role"]
        for r in tables.decode(first.measurements)
        if r["status"] == "refused" and r["family"] == "weights"
    }
    assert refused == {"mlp_out"}, "the other matrices of the model are measured"
    assert len(take_inventory(first.store).done) == len(first.plan.measurements) - 2
    assert first.verdicts.num_rows > 0

    second = run(config)
    assert (second.computed, second.failed) == (2, 2)
    assert tables.decode(second.measurements, ["key", "status", "value"]) == tables.decode(
        first.measurements, ["key", "status", "value"]
    )


def test_a_killed_actor_is_replaced_and_nothing_is_lost(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_the_first_actor() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            found = [e["pid"] for e in events(out) if e["event"] == "actor"]
            if found:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.01)

    killer = threading.Thread(target=kill_the_first_actor)
    killer.start()
    result = run(small_config(text_folder, ladder, out))
    killer.join()
    kinds = [e["event"] for e in events(out)]
    assert killed and kinds.count("lost") >= 1 and kinds.count("actor") >= 2
    assert result.failed == 0 and not failed(result)
    assert take_inventory(result.store).done == {m.key for m in result.plan.measurements}


@pytest.mark.slow
def test_what_runs_beyond_the_deadline_is_given_up_with_the_reason(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out", cluster={"deadline": 0.001})
    config["models"] = [{"path": str(ladder / "d16-s0"), "steps": "last"}]
    # both wait for a capture, which takes a new actor seconds
    names = ("topology.persistence", "holomorphy.resolvent_counts")
    config["invariants"] = {name: INVARIANTS[name] for name in names}
    result = run(config)
    assert result.computed == result.failed == 2
    assert all("deadline: got more than 0.001 s" in r["error"] for r in failed(result))
    assert take_inventory(result.store).done == set()
    again = run({**config, "cluster": {}})
    assert (again.computed, again.failed) == (2, 0)
    assert not [n for n in Store(tmp_path / "out").names("measurements") if "failed" in n]


def test_cleaning_removes_what_a_killed_run_left_behind(tmp_path: Path) -> None:
    for name in ("_part-1-a.arrow", "a.arrow", "b.arrow"):
        (tmp_path / name).write_bytes(b"x")
    clean(tmp_path, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.arrow", "b.arrow"]
    for name in ("_part-of-others", "x.arrow", "states-x"):
        (tmp_path / name).mkdir()
    clean(tmp_path, {str(tmp_path / "a.arrow")})
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["_part-of-others", "a.arrow", "x.arrow"], "folders are none of its own"


def test_more_gpus_than_a_node_has_are_refused_in_seconds(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out", cluster={"gpus_per_model": 2})
    with pytest.raises(ValueError, match="gpus_per_model: got 2, no node has more than 0 GPUs"):
        run(config)


def test_a_killed_worker_costs_the_measurement_that_it_was_at(
    text_folder: Path, ladder: Path, ray_session: None, tmp_path: Path
) -> None:
    (checkpoint,) = from_folder(ladder / "d16-s0", steps="last", cache_dir=tmp_path / "cache")
    log = tmp_path / "log"

    class Slow(WeightSource):  # defined here, so that workers get it by value
        def folder(self) -> Path:
            import os
            import time

            with log.open("a") as stream:
                stream.write(f"{self.checkpoint.seed} {os.getpid()}\n")
            time.sleep(1)
            return super().folder()

    sources = [Slow(replace(checkpoint, seed=i), "trained") for i in range(6)]

    def kill_the_first_worker() -> None:
        limit = time.monotonic() + 120
        while not (log.exists() and log.read_text()) and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(int(log.read_text().split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first_worker)
    killer.start()
    found = execute(
        Store(tmp_path / "out"), [of_weights(f"k{i}", s) for i, s in enumerate(sources)]
    )
    killer.join()
    assert take_inventory(Store(tmp_path / "out")).done == {f"k{i}" for i in range(6)}
    assert [e["tries"] for e in found if e["event"] == "lost"] == [1]
    assert len(log.read_text().splitlines()) == 7, "one of them ran twice"
