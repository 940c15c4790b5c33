"""What a GPU is asked, rehearsed on the CPU, and asked where there is one."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scripts import gpu_check
from scripts.gpu_check import CHECKS, Check, Finding, Place
from scripts.tiny_models import tiny_tokens

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "gudhi", "pyarrow", "pydantic", "statsmodels", "plotly"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import scaleinv_ray.capture.session, scaleinv_ray.capture.posterior.language_models
import scaleinv_ray.ladder.train, scaleinv_ray.invariants, scaleinv_ray.probes
"""


def test_captures_training_and_invariants_load_where_only_torch_is_installed() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_gpu_gives_what_a_cpu_gives(check: Check, tmp_path: Path) -> None:
    wrong = [one for one in check(Place("cuda:0", True, tmp_path)) if one.ok is False]
    assert not wrong


def test_training_is_the_same_where_it_is_stopped(tmp_path: Path) -> None:
    found = list(gpu_check.training(Place("cpu", True, tmp_path)))
    assert [one.ok for one in found] == [True] * 3
    assert [one.found for one in found[:2]] == ["0", "0"], "on one device bit by bit"


def test_a_changed_model_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("cpu", True, tmp_path)
    kinds = frozenset({"cloud", "token_losses"})
    folder, options = place.model("llama"), gpu_check.options_for("llama")
    ours = gpu_check.captured(folder, options, kinds)
    monkeypatch.setattr(gpu_check, "tiny_tokens", lambda: (tiny_tokens() + 1) % 50)
    theirs = gpu_check.captured(folder, options, kinds)
    for kind in kinds:
        found = gpu_check.difference(ours[kind], theirs[kind])
        assert gpu_check.within(kind, found, gpu_check.FLOAT32).ok is False
        assert gpu_check.difference(ours[kind], ours[kind]) == 0
    assert gpu_check.within("no number", float("nan"), 1.0).ok is False


def test_a_check_that_breaks_off_is_a_finding_and_the_others_run(tmp_path: Path) -> None:
    def broken(_: Place) -> Iterator[Finding]:
        raise RuntimeError("CUDA error: out of memory")
        yield

    def fine(_: Place) -> Iterator[Finding]:
        yield gpu_check.within("zero", 0.0, 1.0)

    found = list(gpu_check.findings(Place("cpu", True, tmp_path), (broken, fine)))
    assert [one.ok for one in found] == [False, None, True, None]
    assert found[0].found == "RuntimeError: CUDA error: out of memory"


@pytest.mark.slow
def test_the_command_is_rehearsed_without_a_gpu(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts" / "gpu-check"), "--cpu", "--tiny", "--json", "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    judged = [one["ok"] for one in found if one["ok"] is not None]
    assert done.stdout.splitlines()[-1] == f"{len(judged)} of {len(judged)} as expected"
    for check in CHECKS:
        assert f"time of {check.__name__}" in done.stdout


@pytest.fixture
def gpu_ladder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "experiments"))
    return importlib.import_module("gpu_ladder")


def test_tokens_and_widths_follow_the_speed(gpu_ladder: ModuleType) -> None:
    full = gpu_ladder.FULL
    widths, seconds = full.spec.widths, dict.fromkeys(full.spec.widths, 0.01)
    assert gpu_ladder.chosen(full, seconds) == (widths, full.spec.steps)
    training = 60 * full.total * gpu_ladder.TRAINING_SHARE
    slow = seconds | {512: 0.1}
    kept, steps = gpu_ladder.chosen(full, slow)
    assert kept == widths and steps == int(training / (4 * 0.14)) < full.spec.steps
    kept, steps = gpu_ladder.chosen(full, seconds | {1024: 10.0})
    assert kept == (128, 256, 384, 512) and steps == full.spec.steps
    kept, steps = gpu_ladder.chosen(full, dict.fromkeys(widths, 100.0))
    assert kept == (128, 256) and steps == full.least_steps


def test_a_late_call_trains_a_step_and_the_next_goes_on(
    gpu_ladder: ModuleType, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"A line of text, number {i}." for i in range(3000)))
    tiny = gpu_ladder.TINY.spec
    spec = replace(tiny, widths=(16,), seeds=(0,), corpus=(str(text),))
    calls = iter([False, False, True])  # before the run, after an update, after the next
    assert gpu_ladder.trained(spec, tmp_path, "cpu", lambda: next(calls)) == []
    assert (tmp_path / "d16-s0" / "resume" / "state.safetensors").exists()
    assert len(gpu_ladder.trained(spec, tmp_path, "cpu", lambda: False)) == 1
    assert not (tmp_path / "d16-s0" / "resume").exists()


@pytest.mark.slow
def test_the_gpu_ladder_stops_goes_on_and_measures(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "experiments" / "gpu_ladder.py"
    asked = ["--tiny", "--device", "cpu", "--workers", "1", "--out", str(tmp_path)]

    def call(minutes: float) -> dict:
        command = [sys.executable, str(script), *asked, "--minutes", str(minutes)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first = call(0)
    assert not first["finished"] and first["runs"] == 0 and first["values"] == 0
    second = call(10)
    assert second["finished"] and second["runs"] == second["of"] == 4
    assert second["plan"] == first["plan"]
    rows = json.loads((tmp_path / "values.json").read_text())
    assert {row["quantity"] for row in rows} >= {"chi", "spectral_radius", "rankme", "spikes"}
    assert {(row["width"], row["seed"], row["step"]) for row in rows} == {
        (width, seed, step) for width in (16, 32) for seed in (0, 1) for step in (0, 8)
    }
