"""The experiments: each runs, its last line is JSON, and its folders can be read by a run."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from scaleinv_ray import tables
from scaleinv_ray.checkpoints import resolve
from scaleinv_ray.conclude.training.onsets import OnsetFinder
from scaleinv_ray.conclude.training.transitions import TransitionFinder
from scaleinv_ray.config import load_run_config
from scaleinv_ray.inspection.reference import At, Member
from scaleinv_ray.measure.inventory import planned_keys, take_inventory
from scaleinv_ray.measure.written_config import sealed, written_config
from scaleinv_ray.store import Store
from tests.inspection.test_inspection import measured_row

EXPERIMENTS = Path(__file__).parents[1] / "scripts" / "experiments"


def _quick(name: str, cwd: Path) -> dict[str, Any]:
    command = [sys.executable, str(EXPERIMENTS / f"{name}.py"), "--quick", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    folder = cwd / "runs" / "experiments" / name
    assert json.loads((folder / "result.json").read_text())["summary"] == summary
    assert list(folder.rglob("*.html"))
    return summary


def _units(folder: Path) -> list[tuple[str, int | None]]:
    """Model and step of everything in a folder of records, as a run would resolve it."""
    models = [{"records": str(p)} for p in sorted(folder.iterdir())]
    config = {"name": "x", "models": models, "invariants": ["curvature.ggn_density"]}
    found = resolve(load_run_config(config).models)
    return [(c.model, c.step) for c in found]


@pytest.mark.slow
def test_clusters(tmp_path: Path) -> None:
    summary = _quick("gaussian_clusters", tmp_path)
    assert summary["trained"] == [9.0] * 3
    assert 9.0 not in summary["untrained"]
    kept = _units(tmp_path / "runs/experiments/gaussian_clusters/records")
    assert kept == [(f"clusters-s{seed}", step) for seed in range(3) for step in (0, 30)]


@pytest.mark.slow
def test_known_coefficients(tmp_path: Path) -> None:
    summary = _quick("known_coefficients", tmp_path)
    # a tenth of the draws that the 5 % need: chains from a Gaussian's width, not yet relaxed
    assert summary["ratios"]["8-4-8, rank 2"] == pytest.approx(1.0, abs=0.15)
    assert summary["not_as_expected"] == []
    assert len(_units(tmp_path / "runs/experiments/known_coefficients/records")) == 3


@pytest.mark.slow
def test_induction_stages(tmp_path: Path) -> None:
    summary = _quick("induction_stages", tmp_path)
    told = summary["agreement"]  # three checkpoints say nothing
    assert set(told) == {"onset", "formation"}
    assert all(told[window]["llc"].startswith("undetermined") for window in told)
    out = tmp_path / "runs/experiments/induction_stages"
    kept = _units(out / "records")
    assert kept == [(n, s) for n in ("induction-s0", "shuffled-s0") for s in (0, 8, 64)]
    source = {"path": str(out / "models" / "induction-s0")}
    config = {"name": "x", "models": [source], "invariants": ["weights.weight_tail"]}
    checkpoints = resolve(load_run_config(config).models)
    assert [(c.step, c.seed, c.train_tokens) for c in checkpoints] == [
        (0, 0, 0), (8, 0, 8 * 8 * 24), (64, 0, 64 * 8 * 24),
    ]  # fmt: skip


def _no_number(what: str) -> float:
    raise AssertionError(f"{what} in JSON")


@pytest.mark.slow
def test_circuit_conservation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _experiment("circuit_conservation", monkeypatch)
    summary = _quick("circuit_conservation", tmp_path)
    # fifteen steps teach nothing, and three sizes decide nothing
    assert summary["conserved_beyond_init"] == "none"
    assert summary["left_out"] == ["runs/gpt2_ladder/models does not exist"]
    out = tmp_path / "runs/experiments/circuit_conservation"
    rows = json.loads((out / "result.json").read_text(), parse_constant=_no_number)["rows"]
    asked = {
        ("attention only", probe, name)
        for probe in ("induction", "induction.last")
        for names in script.QUANTITIES.values()
        for name in names
    } | {
        ("attention only, edges", "induction.last", name)
        for names in script.MORE.values()
        for name in names
    }
    assert {(r["ladder"], r["probe"], r["quantity"]) for r in rows} == asked
    by_name = {(r["probe"], r["quantity"]): r for r in rows}
    # a model that fails the task has a gap and no circuit
    assert by_name["induction.last", "participation_fraction"]["verdict"] == "refused"
    gaps = by_name["induction.last", "task_gap"]["by size"].split()
    assert len(gaps) == 3
    assert all(abs(float(gap.split("(")[0])) < 0.5 for gap in gaps)
    models = sorted(path.name for path in (out / "models").iterdir())
    assert models == [f"d{width}-s{seed}" for width in (16, 24, 32) for seed in (0, 1)]
    text = (out / "table.txt").read_text()
    assert "nan" not in text and "<NA>" not in text


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("induction_stages")


@pytest.fixture
def induction(stages: ModuleType) -> ModuleType:
    return importlib.import_module("_induction")


STEPS = (0, 20, 50, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800)


def _run(jump: float, rng: np.random.Generator) -> list[dict[str, float | None]]:
    """A score that rises at step 250, and a coefficient that jumps at `jump`."""
    rows: list[dict[str, float | None]] = []
    for step in STEPS:
        rows.append({
            "step": step,
            "prefix_matching": 0.8 / (1 + math.exp(-(step - 250) / 15)) + 0.01 * rng.normal(),
            "llc": math.exp(2 + 1.5 * (step >= jump) + 0.02 * rng.normal()),
        })  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("jump", "said"), [(250, "agrees"), (50, "undetermined: falls into it in 0 of 3")]
)
def test_agreement_is_told_from_transitions_elsewhere(
    stages: ModuleType, jump: float, said: str
) -> None:
    rng = np.random.default_rng(0)
    onsets, finder = OnsetFinder(rng), TransitionFinder(rng)
    found = []
    for _ in range(3):
        rows = _run(jump, rng)
        onset = onsets.find([r["step"] for r in rows], [r["prefix_matching"] for r in rows])
        found.append(stages.stage(rows, "llc", stages.began(onset), finder))
    assert stages.agreement(found)["verdict"].startswith(said)


def test_one_seed_and_no_onset_are_undetermined(stages: ModuleType) -> None:
    rng = np.random.default_rng(0)
    finder = TransitionFinder(rng)
    rows = _run(250, rng)
    onset = OnsetFinder(rng).find([r["step"] for r in rows], [r["prefix_matching"] for r in rows])
    wide = stages.formation(rows, onset)
    assert wide[0] < 250 <= wide[1] <= 300
    single = stages.agreement([stages.stage(rows, "llc", wide, finder)])
    assert single["verdict"].startswith("undetermined: intervals as wide would by a chance of")
    none = stages.stage(rows, "llc", "no change established", finder)
    assert none.meets is None
    few = [r | {"llc": None} for r in rows[:9]] + rows[9:]
    assert stages.stage(few, "llc", wide, finder).meets is None


def test_repeated_sequences_repeat_and_the_control_does_not(induction: ModuleType) -> None:
    plan, rng = induction.Plan(), np.random.default_rng(0)
    rows_ST, period_S1 = induction.repeated(plan, 50, rng)
    for row_T, (period,) in zip(rows_ST, period_S1, strict=True):
        np.testing.assert_array_equal(row_T[period:], row_T[:-period])
    assert set(period_S1.ravel().tolist()) == set(range(8, 17))
    text = {"prose": np.frombuffer(b"some words that are long enough " * 10, dtype=np.uint8)}
    plain, shuffled = (
        induction.mixture(plan, text, 8, seed=0, step=0, shuffled=s).numpy() for s in (False, True)
    )
    assert (plain != shuffled).any(axis=1).all()
    np.testing.assert_array_equal(np.sort(plain, axis=1), np.sort(shuffled, axis=1))


def test_ngrams_are_those_of_the_text(induction: ModuleType) -> None:
    unigram_V, bigram_VV = induction.ngrams(np.frombuffer(b"abab" * 5000, dtype=np.uint8))
    assert unigram_V.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(bigram_VV.sum(axis=1), 1.0)
    assert unigram_V[ord("a")] == pytest.approx(0.5, abs=0.01)
    assert bigram_VV[ord("a"), ord("b")] > 0.99
    np.testing.assert_allclose(bigram_VV[ord("z")], unigram_V, atol=1e-12)  # a context never seen


def _experiment(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module(name)


def test_published_numbers_are_as_near_as_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = _experiment("publish_run", monkeypatch).rounded
    numbers = np.random.default_rng(0).standard_cauchy(1000)
    given = pa.array([*numbers, 0.0, 0.75, None])
    found = rounded(given, 8).to_pylist()
    assert found[-3:] == [0.0, 0.75, None]
    assert np.abs(np.array(found[:-3]) / numbers - 1).max() <= 2.0**-8
    assert rounded(rounded(given, 8), 8).to_pylist() == found


def test_a_published_config_has_no_path_of_where_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = _experiment("publish_run", monkeypatch).moved
    config = {"models": [{"ladder": "/here/gpt2", "steps": "all"}], "margin": 0.1}
    assert moved(config, "/here") == {
        "models": [{"ladder": "runs/findings/gpt2", "steps": "all"}], "margin": 0.1,
    }  # fmt: skip


def test_a_run_is_published_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish = _experiment("publish_run", monkeypatch).publish
    store = Store(str(tmp_path / "run"))
    at, member = At("weights.weight_tail", "alpha", "query", None), Member("m", 0, 9, "w")
    row = measured_row(at, 1.0, member, 1) | {"step": None}
    store.write_bytes("config.yaml", sealed("name: x\n"))
    with pytest.raises(ValueError, match="run: got .*run' without plan.parquet"):
        publish(tmp_path / "run", tmp_path / "new")
    plan = [dict.fromkeys(tables.PLAN.names) | {"key": key} for key in (row["key"], "lost")]
    store.write_table("plan.parquet", tables.encode(plan, tables.PLAN))
    with pytest.raises(ValueError, match="run: got .*run' without measurements, allowed"):
        publish(tmp_path / "run", tmp_path / "new")
    with pytest.raises(ValueError, match="run_folder: got .*nowhere', no such folder; allowed"):
        publish(tmp_path / "nowhere", tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    store.write_table("measurements/all-x.parquet", tables.encode([row], tables.MEASUREMENTS))
    publish(tmp_path / "run", tmp_path / "new")
    made = Store(str(tmp_path / "new")).read_table("measurements/all-published.parquet")
    assert made["value"].to_pylist() == [1.0] and made["step"].to_pylist() == [None]
    for there in ("new", "run"):  # itself, or beside what was made of it
        with pytest.raises(ValueError, match=f"out: got .*{there}', which is there; allowed: a"):
            publish(tmp_path / "run", tmp_path / there)


def test_damage_is_what_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    damages = _experiment("card_calibration", monkeypatch).DAMAGES
    rng = torch.Generator().manual_seed(0)
    w_OI = torch.randn(64, 64, generator=rng)
    assert torch.equal(damages["none"](w_OI, rng), w_OI)
    eight, four = (damages[name](w_OI, rng) for name in ("int8", "int4"))
    assert max(len(row.unique()) for row in four) <= 15 < max(len(row.unique()) for row in eight)
    step = w_OI.abs().amax(dim=1) / 127
    assert ((eight - w_OI).abs().amax(dim=1) <= 0.501 * step).all()
    noise = damages["noise 20 %"](w_OI, rng) - w_OI
    assert float(noise.std() / w_OI.std()) == pytest.approx(0.2, rel=0.05)
    assert float((damages["prune 50 %"](w_OI, rng) == 0).float().mean()) == pytest.approx(
        0.5, abs=0.01
    )
    mixed = damages["one layer shuffled"](w_OI, rng)
    assert torch.equal(mixed.flatten().sort().values, w_OI.flatten().sort().values)
    assert not torch.equal(mixed, w_OI)


@pytest.mark.parametrize("series", ["gpt2", "depth", "llama"])
def test_the_findings_can_be_judged_from_what_is_published(series: str) -> None:
    folder = EXPERIMENTS.parents[1] / "docs" / "findings" / "data" / series
    store = Store(str(folder))
    assert load_run_config(written_config(store)).name == series
    assert ": /" not in (folder / "config.yaml").read_text(), "a path of one machine"
    held = take_inventory(store)
    assert held.damaged == {}
    assert set(planned_keys(store).to_pylist()) == held.done
    parts = ("*.parquet", "*/plan.parquet", "*/measurements/*", "*/curves/*")
    assert sum(p.stat().st_size for part in parts for p in folder.parent.glob(part)) < 5e6
