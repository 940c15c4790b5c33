"""Tables beside the verdicts: files of evaluations, built-in capabilities, named predictions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaleinv_ray import invariants, tables
from scaleinv_ray.conclude.conclusions import CONCLUSIONS, SCHEMAS
from scaleinv_ray.conclude.evaluations import capability_digest, read_capabilities
from scaleinv_ray.conclude.evidence import Evidence, predicted
from scaleinv_ray.config import CapabilityFile, RunConfig, load_run_config
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.runs.analysis import run
from tests.plan.test_plan import net

assert invariants
QUANTITIES = {(s.name, n): q for s in REGISTRY.values() for n, q in s.quantities.items()}
STEPS = (1, 4, 16, 64, 256, 1024, 4096)


def config_of(**more: Any) -> RunConfig:
    return load_run_config({"name": "made", "models": [{"ladder": "x"}], "out": "y", **more})


def concluded(
    rows: list[dict[str, Any]], curves: list[dict[str, Any]], config: RunConfig
) -> dict[str, pa.Table]:
    of = Evidence.of(rows, curves, config, QUANTITIES)
    return {conclusion.name: conclusion.table(of) for conclusion in CONCLUSIONS}


def row_of(width: int, seed: int, step: int, **more: Any) -> dict[str, Any]:
    blank = dict.fromkeys(tables.MEASUREMENTS.names)
    return blank | {
        "unit": f"made/d{width}/{step}/{seed}/trained", "series": "made", "model": f"d{width}",
        "architecture": "gpt_neox", "n_params": width**2, "n_layers": 2, "d_model": width,
        "seed": seed, "step": step, "train_tokens": 1000 * step,
        "eval_loss": 4 - 0.2 * np.log(step),
        "variant": "trained", "protocol": "p", "status": "ok", "version": 1, "stderr": 0.01,
        "key": f"{width}-{seed}-{step}", "params": "{}", "law": "constant",
    } | more  # fmt: skip


def rows_of(onset: float = 64.0) -> list[dict[str, Any]]:
    """Runs in which an exponent and a capability rise at the same step."""
    rng = np.random.default_rng(0)
    rows = []
    for width in (10, 20, 40, 80):
        for seed in range(3):
            shift = rng.normal(scale=0.6)
            for step in STEPS:
                rise = 1 / (1 + np.exp(-2 * (np.log(step / onset) - shift)))
                rows.append(row_of(
                    width, seed, step, family="representation", probe="prose",
                    invariant="representation.covariance_decay", quantity="exponent",
                    value=1 + rise + 0.01 * rng.normal(), site="resid_post", layer=1, depth=1.0,
                    capture="moments",
                ))  # fmt: skip
                rows.append(row_of(
                    width, seed, step, family="behaviour", probe="induction",
                    invariant="behaviour.capabilities", quantity="copying_gain",
                    value=2 * rise + 0.01 * rng.normal(), site="logits", capture="token_losses",
                ))  # fmt: skip
    return rows


def test_a_capability_is_followed_to_its_onset() -> None:
    found = concluded(rows_of(), [], config_of())
    capabilities = tables.decode(found["capabilities"])
    assert {(r["task"], r["metric"]) for r in capabilities} == {("induction", "copying_gain")}
    assert len(capabilities) == 4 * 3 * len(STEPS)
    transitions = tables.decode(found["transitions"])
    assert {r["quantity"] for r in transitions} == {"exponent", "copying_gain"}
    emergence = tables.decode(found["emergence"])
    [row] = [r for r in emergence if r["quantity"] == "exponent" and r["depth_bin"] == "late"]
    assert row["n_runs"] == 12 and row["n_sizes"] == 4
    assert row["least_p"] <= 0.05
    # they rise together in every run: associated, and no lead to speak of
    assert row["correlation"] > 0.5 and row["p"] < 0.05
    assert abs(row["lead"]) < row["spacing"] and row["outcome"] != "predicts"


def band_of(seed: int, **more: Any) -> dict[str, Any]:
    """The curve of a band that doubles at step 64 in one run."""
    row = row_of(10, seed, STEPS[-1], family="bands", invariant="bands.ggn_bands", probe="prose")
    shared = {name: row.get(name) for name in tables.CURVES.names}
    rng = np.random.default_rng(seed)
    y = [float(1 + (step > 64) + 0.01 * rng.normal()) for step in STEPS]
    return shared | {"curve": "band_1", "x": [float(s) for s in STEPS], "y": y} | more


def test_stages_say_what_moved_when() -> None:
    curves = [band_of(seed) for seed in range(3)]
    positions = band_of(0, curve="band_2", x=[float(i) for i in range(len(STEPS))])
    found = concluded(rows_of(onset=64.0), [*curves, positions], config_of())
    transitions = tables.decode(found["transitions"])
    assert {r["quantity"] for r in transitions if r["family"] == "bands"} == {"band_1"}
    stages = [r for r in tables.decode(found["stages"]) if (r["model"], r["seed"]) == ("d10", 0)]
    moved = " ".join(name for stage in stages for name in stage["spectrum"])
    assert "bands.ggn_bands band_1 (prose): +" in moved
    for stage in stages:
        assert stage["n_coincident"] <= stage["n_events"] and len(stage["spectrum"]) == len(
            stage["spectrum_change"]
        )
    orders = tables.decode(found["orders"])
    assert {r["quantity"] for r in orders} >= {"exponent"}
    for row in orders:
        assert row["n_sigmoid"] + row["n_power_law"] <= row["n_runs"] <= 12


def test_short_runs_are_not_searched() -> None:
    few = [r for r in rows_of() if r["step"] in STEPS[:5]]
    found = concluded(few, [], config_of())
    assert found["transitions"].num_rows == 0


def test_a_named_model_is_predicted_and_nothing_observed() -> None:
    rows = [
        row_of(w, s, 10, family="representation", probe="prose", site="resid_post", layer=1,
               invariant="representation.covariance_decay", quantity="exponent", depth=1.0,
               capture="moments", value=2 * w**0.5 * (1 + 0.01 * s))
        for w in (10, 20, 40, 80) for s in range(3)
    ]  # fmt: skip
    config = config_of(conservation={"predict": [{"model": "big", "n_params": 160**2}]})
    found = predicted(rows, config, QUANTITIES)
    tables.encode(found, SCHEMAS["predictions"])
    [row] = [
        r for r in found
        if (r["depth_bin"], r["comparison"], r["form"]) == ("all", "equal_steps", "power")
    ]  # fmt: skip
    assert row["model"] == "big" and row["observed"] is None and row["error"] is None
    assert row["low"] < 2 * 160**0.5 * 1.01 < row["high"]
    assert row["predicted"] == pytest.approx(2 * 160**0.5 * 1.01, rel=0.01)


def _lm_eval(path: Path, *, new: bool) -> Path:
    scores = {"acc,none": 0.6, "acc_stderr,none": 0.01} if new else {"acc": 0.6, "acc_stderr": 0.01}
    model = "pretrained=lab/d40,revision=step64"
    path.write_text(json.dumps({"results": {"piqa": scores}, "config": {"model_args": model}}))
    return path


@pytest.mark.parametrize("new", [False, True])
def test_both_layouts_of_lm_eval(tmp_path: Path, new: bool) -> None:
    path = _lm_eval(tmp_path / "results.json", new=new)
    [row] = read_capabilities(CapabilityFile(file=str(path), tokens_per_step=1000))
    assert (row["task"], row["value"], row["stderr"]) == ("piqa", 0.6, 0.01)
    assert (row["step"], row["tokens"], row["chance"]) == (64, 64_000, 0.5)


def test_a_parquet_table_of_published_evaluations(tmp_path: Path) -> None:
    rows = [
        {"model": "pythia-160m", "fewshot": shots, "step": 1000, "task": "piqa", "metric": "acc",
         "value": value, "stderr": 0.01, "more": 1}
        for shots, value in (("zero-shot", 0.61), ("five-shot", 0.62))
    ]  # fmt: skip
    path = tmp_path / "evals.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    [row] = read_capabilities(CapabilityFile(file=str(path)))
    assert (row["value"], row["tokens"]) == (0.61, 1000 * 2_097_152)
    [row] = read_capabilities(CapabilityFile(file=str(path), fewshot="five-shot"))
    assert row["value"] == 0.62


def test_what_is_of_no_checkpoint_is_a_row_with_its_reason(tmp_path: Path) -> None:
    scores = {"acc,none": 0.6, "word_perplexity,none": float("nan")}
    files = []
    for name, args in {
        "ours": "pretrained=runs/x/d40/step-000064", "theirs": "pretrained=lab/gpt2,revision=step1",
    }.items():  # fmt: skip
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"results": {"w": scores}, "config": {"model_args": args}}))
        files.append({"file": str(file), "tokens_per_step": 1000})
    one_seed = [row for row in rows_of() if row["seed"] == 0]
    found = concluded(one_seed, [], config_of(capabilities=files))
    lost = {
        (Path(row["file"]).stem, row["metric"]): row["reason"]
        for row in tables.decode(found["unjoined"])
    }
    assert set(lost) == {
        ("ours", "word_perplexity"), ("theirs", "acc"), ("theirs", "word_perplexity"),
    }  # fmt: skip
    assert "nan, no finite number" in lost["ours", "word_perplexity"]
    assert lost["theirs", "acc"] == "the series has no model of this name"
    # the curve of another model is drawn beside those of the series
    drawn = {(r["model"], r["metric"]) for r in tables.decode(found["capabilities"])}
    assert {("d40", "acc"), ("lab/gpt2", "acc")} < drawn
    # a name of several seeds is no reason to end a conclusion
    every = concluded(rows_of(), [], config_of(capabilities=files))
    reasons = {row["reason"] for row in tables.decode(every["unjoined"]) if row["metric"] == "acc"}
    assert "the series has 3 runs of this name, and the file names no seed" in reasons


def test_files_that_are_no_evaluations(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="got no JSON"):
        read_capabilities(CapabilityFile(file=str(path)))
    table = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), table)
    with pytest.raises(ValueError, match="lacks"):
        read_capabilities(CapabilityFile(file=str(table)))
    table.write_bytes(b"nothing")
    path.write_text(json.dumps({"results": {"piqa": None}}))
    with pytest.raises(ValueError, match=rf"capabilities: {path}: results\.piqa: got None"):
        read_capabilities(CapabilityFile(file=str(path)))
    for file in (table, tmp_path, tmp_path / "absent.parquet", tmp_path / "absent.json"):
        with pytest.raises(ValueError, match=f"capabilities: {file}: got no JSON and no Parquet"):
            read_capabilities(CapabilityFile(file=str(file)))


def test_evaluations_that_cannot_be_read_are_refused_before_the_work(tmp_path: Path) -> None:
    file, out = tmp_path / "absent.parquet", tmp_path / "out"
    config = config_of(models=[net(tmp_path, 4, 0)], capabilities=[{"file": str(file)}])
    with pytest.raises(ValueError, match=f"capabilities: {file}: got no"):
        run(config, out=str(out))
    assert not out.exists()


def test_a_changed_file_is_another_conclusion(tmp_path: Path) -> None:
    path = _lm_eval(tmp_path / "results.json", new=True)
    config = config_of(capabilities=[{"file": str(path)}])
    before = capability_digest(config)
    path.write_text(path.read_text().replace("0.6", "0.7"))
    assert capability_digest(config) != before
