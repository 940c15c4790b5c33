"""Sweeps and watches: what is new is measured, what is half-written waits."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from scaleinv_ray.runs import sweep as sweep_module
from scaleinv_ray.runs import watch as watch_module
from scaleinv_ray.runs.analysis import Run
from scaleinv_ray.runs.starting.run_lock import alone
from scaleinv_ray.runs.sweep import SKIPPED, sweep
from scaleinv_ray.runs.watch import fetched, look, watch
from scaleinv_ray.store import Store
from tests.cluster.driving.test_faults import small_config

pytestmark = pytest.mark.ray


def checkpoint(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


@pytest.fixture
def last(ladder: Path) -> Path:
    return ladder / "d16-s0" / "step-000006"


def test_a_half_written_checkpoint_is_left_alone_until_it_is_whole(
    last: Path, tmp_path: Path
) -> None:
    folder = checkpoint(last, tmp_path / "run" / "step-000006")
    whole = (folder / "model.safetensors").read_bytes()
    assert look(str(tmp_path), settled_s=0).whole == ["run/step-000006"]
    for cut in (len(whole) - 1, len(whole) // 2, 9, 0):
        (folder / "model.safetensors").write_bytes(whole[:cut])
        assert look(str(tmp_path), settled_s=0).whole == [], cut
    (folder / "model.safetensors").write_bytes(whole)
    assert look(str(tmp_path), settled_s=3600).whole == [], "still being written"
    (folder / "config.json").rename(folder / "later.json")
    assert look(str(tmp_path), settled_s=0).whole == []
    (folder / "later.json").rename(folder / "config.json")
    assert look(str(tmp_path), settled_s=0).whole == ["run/step-000006"]


def test_a_sharded_checkpoint_is_whole_with_its_last_shard(last: Path, tmp_path: Path) -> None:
    folder = checkpoint(last, tmp_path / "run")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert look(str(tmp_path), settled_s=0).whole == []
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    assert look(str(tmp_path), settled_s=0).whole == ["run"]


def test_an_absent_folder_has_no_arrivals(tmp_path: Path) -> None:
    assert look(str(tmp_path / "none")).whole == []


def test_watching_runs_once_for_what_is_new(
    last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(options: Any, *, address: str | None) -> Any:
        del address
        asked.append([Path(m["path"]).name for m in options["models"]])
        if len(asked) == 2:
            raise ValueError("two of a kind")
        return "ran"

    folder = tmp_path / "in"
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump({"name": "w", "out": str(tmp_path / "out")}))
    monkeypatch.setattr(watch_module, "run", run)
    looks = watch(file, str(folder), every=0.0, rounds=6, settled_s=0)
    checkpoint(last, folder / "a")
    assert next(looks) == "ran"
    half = checkpoint(last, folder / "b") / "model.safetensors"
    whole = half.read_bytes()
    half.write_bytes(whole[:-4])
    checkpoint(last, folder / "c")
    assert next(looks) == "error: two of a kind"
    half.write_bytes(whole)
    assert next(looks) == "ran"
    assert list(looks) == [] and asked == [["a"], ["a", "c"], ["a", "b", "c"]]


def test_a_watch_really_measures(text_folder: Path, ladder: Path, tmp_path: Path) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out")
    del config["models"]
    config["invariants"] = {"weights.weight_tail": {"num_null": 2}}
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(config))
    arriving = tmp_path / "in"
    checkpoint(ladder / "d16-s0" / "step-000003", arriving / "d16-s0" / "step-000003")
    looks = watch(file, str(arriving), every=0.0, rounds=3, settled_s=0)
    first = next(looks)
    assert isinstance(first, Run) and (first.computed, first.failed) == (1, 0)
    checkpoint(ladder / "d16-s0" / "step-000006", arriving / "d16-s0" / "step-000006")
    second = next(looks)
    assert isinstance(second, Run) and second.computed == 1, "the old one is not measured again"
    assert len(second.plan.measurements) == 2 and list(looks) == []


def tiny(folder: Path) -> Path:
    """What looks like a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": []}'),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
        ("model.safetensors", b'\x09\0\0\0\0\0\0\0{"w": []}'),
        ("model.safetensors", b'\x17\0\0\0\0\0\0\0{"w":{"data_offsets":[]}}'),
        ("model.safetensors", (30_000).to_bytes(8, "little") + b"[" * 30_000),
        ("config.json", "[" * 30_000),
        ("model.safetensors.index.json", '{"a":' * 30_000),
    ],
)
def test_json_of_another_form_is_no_checkpoint_and_hides_no_other(
    name: str, text: str | bytes, tmp_path: Path
) -> None:
    tiny(tmp_path / "good")
    bad = tiny(tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    (bad / name).write_bytes(text.encode() if isinstance(text, str) else text)
    assert look(str(tmp_path), settled_s=0).whole == ["good"]


def test_links_are_not_followed_in_circles_nor_count_twice(tmp_path: Path) -> None:
    tiny(tmp_path / "in" / "a")
    (tmp_path / "in" / "itself").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "loop").symlink_to("loop")
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    assert look(str(tmp_path / "in"), settled_s=0).whole == ["a"]
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert look(str(tmp_path / "link"), settled_s=0).whole == ["a"], "the folder may be one"


def test_a_name_that_is_no_text_hides_no_checkpoint(tmp_path: Path) -> None:
    tiny(tmp_path / "a")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff/config.json")).write_text("{}")
    assert look(str(tmp_path), settled_s=0).whole == ["a"]


def dated(folder: Path, ahead: float) -> None:
    for file in folder.iterdir():
        os.utime(file, (time.time() + ahead, time.time() + ahead))


def test_what_no_waiting_mends_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text("name: w")
    monkeypatch.setattr(watch_module, "run", lambda options, address: len(options["models"]))
    for name in ("good", "future", "odd", "cut", "young", "adapter"):
        tiny(tmp_path / "in" / name)
    (tmp_path / "in" / "odd" / "config.json").write_text("[" * 30_000)
    (tmp_path / "in" / "adapter" / "model.safetensors").rename(
        tmp_path / "in" / "adapter" / "adapter_model.safetensors"
    )
    (tmp_path / "in" / "adapter" / "adapter_config.json").write_text("{}")
    for name in ("cut", "young"):
        weights = tmp_path / "in" / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4])
    for name in ("good", "odd", "cut", "adapter"):
        dated(tmp_path / "in" / name, -10_000)
    dated(tmp_path / "in" / "future", 10_000)
    *said, ran = watch(file, str(tmp_path / "in"), every=0.0, rounds=3, settled_s=0)
    assert ran == 1
    assert [str(line).split(": ")[1] for line in said] == ["adapter", "cut", "future", "odd"]
    text = "\n".join(map(str, said))
    for part in ("a PEFT adapter", "its header says", "ahead of this machine's clock", "too deep"):
        assert part in text, text


def test_a_last_model_beside_its_steps_is_one_of_them(
    last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text("name: w")
    monkeypatch.setattr(watch_module, "run", lambda options, address: options["models"])
    run = tmp_path / "in" / "run"
    for step in (3, 6):
        checkpoint(last.with_name(f"step-{step:06d}"), run / f"step-{step:06d}")
    for path in last.iterdir():
        shutil.copy(path, run)  # of step 6, as it says itself
    said, models = watch(file, str(tmp_path / "in"), every=0.0, rounds=2, settled_s=0)
    assert said == "passed over: run: step 6 is step-000006"
    assert [m["path"] for m in models] == [str(run / f"step-00000{s}") for s in (3, 6)]
    (run / "training.json").write_text('{"step": 9}')
    (models,) = watch(file, str(tmp_path / "in"), every=0.0, rounds=1, settled_s=0)
    assert models[0] == {"path": str(run), "steps": [9]} and len(models) == 3


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(tmp_path / "a"), tiny(tmp_path / "b")  # of a run that keeps its newest few
    read = watch_module._bytes_of

    def gone(filesystem: Any, info: Any) -> bytes:
        if Path(info.path).parent.name == "a":
            shutil.rmtree(tmp_path / "a", ignore_errors=True)
        return read(filesystem, info)

    monkeypatch.setattr(watch_module, "_bytes_of", gone)
    assert look(str(tmp_path), settled_s=0).whole == ["b"]


def test_a_bucket_that_has_a_bad_moment_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text("{name: w, conservation: {margin: 2e-1}}")
    tiny(tmp_path / "in" / "a")
    bad, look, asked = ["503: slow down"], watch_module.look, []

    def look_at(uri: str, *, settled_s: float) -> watch_module.Look:
        if bad:
            raise OSError(bad.pop())
        return look(uri, settled_s=settled_s)

    monkeypatch.setattr(watch_module, "look", look_at)
    monkeypatch.setattr(watch_module, "run", lambda options, address: asked.append(options))
    looks = list(watch(file, str(tmp_path / "in"), every=0.0, rounds=3, settled_s=0))
    assert looks == ["error: 503: slow down", None] and len(asked) == 1
    assert asked[0]["conservation"] == {"margin": 0.2}, "numbers as in any other config"


@pytest.mark.parametrize(
    ("text", "said"), [("- w", "got list, allowed: a mapping"), ("out: x", "valid string")]
)
def test_a_config_that_is_none_is_said_before_anything_is_looked_at(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        next(watch(file, str(tmp_path)))


def test_what_lies_in_a_folder_is_not_copied(last: Path, tmp_path: Path) -> None:
    assert fetched(str(last.parent), last.name, tmp_path) == last
    assert not list(tmp_path.iterdir())


def event(out: Path, name: str, age: float) -> None:
    out.mkdir(exist_ok=True)
    line = json.dumps({"time": time.time() - age, "event": name}) + "\n"
    (out / "log.jsonl").write_text(line)


def test_a_sweep_leaves_a_series_to_the_run_that_is_at_it(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(config))
    bad.write_text(yaml.safe_dump(config | {"nmae": "x"}))
    called: list[str] = []

    def run(checked: Any, *, address: str | None) -> Any:
        called.append(checked.name)
        return type("Result", (), {"computed": 4, "failed": 0})

    monkeypatch.setattr(sweep_module, "run", run)
    with alone(Store(tmp_path / "out")):
        assert sweep([good])[str(good)] == SKIPPED and not called
    found = sweep([bad, good])
    assert found[str(bad)].startswith("error") and "did you mean 'name'" in found[str(bad)]
    assert found[str(good)] == "4 measurements made" and called == ["tiny"]


@pytest.mark.parametrize("age", [1.0, 1e9, -864_000.0])
def test_the_lock_knows_whether_a_run_is_alive_and_no_clock_does(
    age: float, text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(small_config(text_folder, ladder, tmp_path / "out")))
    result = type("Result", (), {"computed": 1, "failed": 0})
    monkeypatch.setattr(sweep_module, "run", lambda checked, address: result)
    event(tmp_path / "out", "measured", age)  # of a run that was killed, or by another clock
    assert sweep([file])[str(file)] == "1 measurements made"
    with alone(Store(tmp_path / "out")):
        event(tmp_path / "out", "ended", age)
        assert sweep([file])[str(file)] == SKIPPED
