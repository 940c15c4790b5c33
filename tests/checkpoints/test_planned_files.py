"""Between plan and measurement: what the plan can know, and files exchanged after it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from scaleinv_ray.checkpoints import write_records_manifest
from scaleinv_ray.config import load_run_config
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.measuring import rows_of
from scaleinv_ray.plan import Plan, make_plan
from scaleinv_ray.plan.jobs import MeasureJob
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.records import WeightMatrix
from scaleinv_ray.store import write_records

D = 16
SIZES: dict[str, Any] = {
    "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 257,
    "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 48,
}  # fmt: skip
PROTOCOL = {
    "sequences": 32, "length": 32, "position": 24, "tokens_per_dim": 8, "blocks": 4,
    "stream_units": 8, "jacobian_positions": 2, "attention_sequences": 2, "vocab_rows": 16,
}  # fmt: skip
COUNTS = "holomorphy.resolvent_counts"
TAIL, PARTICIPATION = "weights.weight_tail", "representation.participation"


def _model(folder: Path, kind: str = "llama", **more: Any) -> Path:
    torch.manual_seed(0)
    settings = AutoConfig.for_model(kind, **(SIZES | more))
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(f"{i} a fox and a hound walked on and on. " * 80)
    return folder


def _config(model: dict[str, str], *invariants: str, **protocol: int) -> dict[str, Any]:
    return {
        "name": "t", "models": [model], "variants": ["trained"], "out": "nowhere",
        "protocol": PROTOCOL | protocol, "invariants": list(invariants), "probes": ["prose"],
    }  # fmt: skip


def _plan(folder: Path, corpus: Path, *invariants: str, **protocol: int) -> Plan:
    config = _config({"path": str(folder)}, *invariants, **protocol)
    return make_plan(load_run_config(config | {"corpus": [str(corpus)]}))


def _job(config: dict[str, Any], plan: Plan, tmp_path: Path) -> MeasureJob:
    checked = load_run_config(config)
    work = jobs_for(plan, plan.measurements, checked, scratch=tmp_path, run_id="r")
    (job,) = work.measurements
    return job


def _errors(job: MeasureJob) -> set[str]:
    rows = rows_of(job).values
    assert {row["status"] for row in rows} == {"failed"}
    return {row["error"] for row in rows}


# ------------------------------------------------------------------ what a plan can know


@pytest.mark.parametrize(
    ("invariant", "protocol", "said"),
    [
        (
            COUNTS,
            {"vocab_rows": 258},
            r"vocab_rows: got 258, allowed 1\.\.257",
        ),
        (COUNTS, {"jacobian_positions": 33}, "jacobian_positions: got 33"),
        ("attention.attention_decay", {"attention_sequences": 33}, r"attention_sequences: got 33"),
        (PARTICIPATION, {"length": 49}, r"protocol\.length: got 49, allowed 1\.\.48"),
        (PARTICIPATION, {"blocks": 5}, r"protocol\.blocks: got 5, allowed 1\.\.4 "),
    ],
)
def test_captures_that_could_not_be_made_are_refused(
    tmp_path: Path, corpus: Path, invariant: str, protocol: dict[str, int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _plan(_model(tmp_path / "m"), corpus, invariant, **protocol)


def test_an_architecture_of_which_only_weights_are_known(tmp_path: Path, corpus: Path) -> None:
    folder = _model(tmp_path / "m", "stablelm")
    with pytest.raises(ValueError, match="model_type: got 'stablelm', allowed for it: invariants"):
        _plan(folder, corpus, PARTICIPATION)
    assert len(_plan(folder, corpus, TAIL).measurements) == 1


def test_a_model_that_cannot_be_built_gives_its_weights_alone(tmp_path: Path, corpus: Path) -> None:
    folder = _model(tmp_path / "m")
    file, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    save_file(load_file(file) | {name: torch.zeros(24, D + 1)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{name}: shape \(24, 17\), config.json says .*alone"):
        _plan(folder, corpus, PARTICIPATION)
    plan = _plan(folder, corpus, TAIL)
    config = _config({"path": str(folder)}, TAIL)
    rows = rows_of(_job(config, plan, tmp_path)).values
    refused = [row for row in rows if row["status"] == "refused" and name in row["error"]]
    assert {(row["layer"], row["role"]) for row in refused} == {(1, "mlp_in")}
    assert sum(row["status"] == "failed" for row in rows) == 0
    assert len({(row["layer"], row["role"]) for row in rows}) == 2 * 7 + 2


# ------------------------------------------------------------------ exchanged after the plan


def _exchange(file: Path, content: bytes) -> None:
    """As cp -p does: the same inode, size and times of modification."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_checkpoint_exchanged_after_the_plan_is_not_measured(
    tmp_path: Path, corpus: Path, name: str
) -> None:
    folder = _model(tmp_path / "m")
    file = folder / name
    os.utime(file, (1e9, 1e9))
    job = _job(_config({"path": str(folder)}, TAIL), _plan(folder, corpus, TAIL), tmp_path)
    assert {row["status"] for row in rows_of(job).values} <= {"ok", "refused"}
    old = file.read_bytes()
    if name == "config.json":
        told = json.loads(old)
        _exchange(file, json.dumps(told | {"rms_norm_eps": 2e-6}).encode())
    else:
        _exchange(file, old[:-4] + bytes(4))
    assert file.stat().st_mtime == 1e9
    (error,) = _errors(job)
    assert "changed since" in error and str(folder) in error
    _exchange(file, old)
    assert {row["status"] for row in rows_of(job).values} <= {"ok", "refused"}


def test_a_record_exchanged_after_the_plan_is_not_measured(tmp_path: Path) -> None:
    folder, rng = tmp_path / "records", np.random.default_rng(0)

    def write(name: str) -> Path:
        matrix = WeightMatrix(w_OI=rng.normal(size=(40, 40)), layer=0, num_layers=1)
        write_records(folder / name, [matrix], kind="weights", facts={})
        return folder / name

    file = write("w.arrow")
    unit = {
        "seed": 0, "step": 0, "variant": "trained", "train_tokens": None, "eval_loss": None,
        "captures": [{"kind": "weights", "probe": None, "file": file.name}],
    }  # fmt: skip
    write_records_manifest(
        folder, units=[unit], model="m", architecture="linear", n_params=1600, n_layers=1,
        d_model=40,
    )  # fmt: skip
    config = _config({"records": str(folder)}, TAIL)
    job = _job(config, make_plan(load_run_config(config)), tmp_path)
    assert {row["status"] for row in rows_of(job).values} <= {"ok", "refused"}
    other = write("other.arrow")
    assert other.stat().st_size == file.stat().st_size
    _exchange(file, other.read_bytes())
    (error,) = _errors(job)
    assert error.startswith(f"ValueError: {file}: changed since it was planned")
