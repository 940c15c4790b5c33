"""A run folder with several tokenizers, from its plan to its report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from scaleinv_ray import tables
from scaleinv_ray.cli import app
from scaleinv_ray.conclude.concluding import conclude
from scaleinv_ray.conclude.tokenized import tokenized, write_tokens
from scaleinv_ray.config import load_run_config
from scaleinv_ray.plan import make_plan, plan_rows, token_rows
from scaleinv_ray.store import Store
from tests.plan.test_tokenizer import byte_level

BYTES = {"aaaa": 1.0, "bbbb": 4.0}
SIZES = {"d10": "aaaa", "d20": "aaaa", "d40": "bbbb", "d80": "bbbb"}
RANK = ("representation.participation", "participation_ratio")
LOSS = ("behaviour.capabilities", "loss")
GAIN = ("behaviour.capabilities", "in_context_gain")


def row_of(model: str, seed: int, what: tuple[str, str], value: float) -> dict[str, Any]:
    width = int(model[1:])
    name, quantity = what
    return dict.fromkeys(tables.MEASUREMENTS.names) | {
        "key": f"{model}-{seed}-{name}", "unit": f"s/{model}/1/{seed}/trained", "series": "s",
        "model": model, "architecture": "a", "n_params": width**2, "n_layers": 1, "d_model": width,
        "seed": seed, "step": 1, "train_tokens": 1000, "eval_loss": 3.0, "variant": "trained",
        "probe": "prose", "protocol": "p", "family": name.split(".")[0], "invariant": name,
        "version": 1, "quantity": quantity, "value": value, "stderr": 0.001, "params": "{}",
        "status": "ok", "site": "logits", "layer": 0, "depth": 1.0, "law": "none", "flags": {},
        "error_kind": "none", "code_version": "c", "capture": "token_losses",
    }  # fmt: skip


def folder_with(store: Store, tokenizer_of: dict[str, str]) -> None:
    """Measurements of losses that are all half a nat a byte, their curves, and the plan."""
    rng = np.random.default_rng(0)
    rows, plan, curves = [], {}, []
    for model, name in tokenizer_of.items():
        for seed in range(3):
            factor = BYTES[name] * (1 + 0.002 * rng.normal())
            mine = [row_of(model, seed, LOSS, 0.5 * factor), row_of(model, seed, GAIN, 0.1)]
            rows += mine
            base = {k: v for k, v in mine[0].items() if k in tables.CURVES.names}
            curves.append(
                base | {"curve": "loss_by_position", "x": [1.0, 2.0, 3.0],
                        "y": [3.0, 2.0 + 0.1 * rng.normal(), 1.0], "y_stderr": [0.1] * 3}
            )  # fmt: skip
            plan[mine[0]["key"]] = dict.fromkeys(tables.PLAN.names) | {
                "key": mine[0]["key"], "probe": "prose", "tokenizer": name,
            }  # fmt: skip
    store.write_table("measurements/all-x.parquet", tables.encode(rows, tables.MEASUREMENTS))
    store.write_table("curves/all-x.parquet", tables.encode(curves, tables.CURVES))
    store.write_table("plan.parquet", tables.encode(plan.values(), tables.PLAN))
    spelled = [
        {"tokenizer": name, "probe": "prose", "bytes_per_token": size, "stderr": 0.0}
        for name, size in BYTES.items()
    ]
    store.write_table("tokens.parquet", tables.encode(spelled, tables.TOKENS))


CONFIGURED = load_run_config({"name": "s", "models": [{"ladder": "x"}], "out": "y"})


def test_a_conclusion_mixes_no_tokens_of_two_tokenizers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder_with(store, SIZES)
    rows = tables.decode(conclude(store, CONFIGURED))
    of = {(r["quantity"], r["comparison"]): r for r in rows if r["depth_bin"] == "all"}
    loss = of["loss", "equal_steps"]
    assert loss["verdict"] == "conserved" and "in nats a byte of text" in loss["reason"]
    assert "no other unit" in of["in_context_gain", "equal_steps"]["reason"]
    equal_loss = of["loss", "equal_loss"]
    assert equal_loss["verdict"] == "undetermined"
    assert "held-out losses are in nats a token of 2 tokenizers" in equal_loss["reason"]
    collapses = tables.decode(store.read_table("collapses.parquet"))
    assert not [r for r in collapses if r["curve"] == "loss_by_position"]
    predicted = tables.decode(store.read_table("predictions.parquet"))
    assert {round(r["observed"], 1) for r in predicted if r["quantity"] == "loss"} == {0.5}
    page = store.read_bytes("report.html").decode()
    assert "2 tokenizers in one series: aaaa (d10, d20); bbbb (d40, d80)" in page
    assert "it is no mean over text" in page  # among what has no value
    # what was measured stays what it is
    kept = store.read_table("measurements/all-x.parquet")
    assert max(kept["value"].to_pylist()) > 1.9


def test_a_conclusion_of_one_tokenizer_is_as_without_any(tmp_path: Path) -> None:
    found = []
    for name, columns in (("new", tables.PLAN.names), ("old", tables.PLAN.names[:-1])):
        store = Store(tmp_path / name)
        folder_with(store, dict.fromkeys(SIZES, "bbbb"))
        plan = store.read_table("plan.parquet")
        store.write_table("plan.parquet", plan.select(columns))
        found.append(conclude(store, CONFIGURED).replace_schema_metadata(None))
        assert "tokenizers in one series" not in store.read_bytes("report.html").decode()
    assert found[0].equals(found[1])
    loss = [r for r in tables.decode(found[0]) if r["quantity"] == "loss"]
    assert loss and not any("tokenizer" in r["reason"] for r in loss)
    # a plan from before tokenizers were written down
    assert not tokenized(Store(tmp_path / "old")).of_key


def models(root: Path, *merges: int) -> list[dict[str, str]]:
    """Models of one architecture, each with a tokenizer of so many merges."""
    config = transformers.GPTNeoXConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    made = []
    for i, count in enumerate(merges):
        torch.manual_seed(i)
        folder = root / f"m{i}"
        transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
        text = json.loads(byte_level(merges=count).to_str())
        (folder / "tokenizer.json").write_text(json.dumps(text, indent=i))
        made.append({"path": str(folder)})
    return made


def config_of(root: Path, *merges: int, **more: Any) -> dict[str, Any]:
    return {
        "name": "s", "models": models(root, *merges), "variants": ["trained"],
        "protocol": {"sequences": 32, "length": 24, "position": 8, "tokens_per_dim": 8},
        "invariants": ["behaviour.capabilities"], "out": str(root / "out"),
    } | more  # fmt: skip


def test_a_plan_says_which_models_have_which_tokenizer(tmp_path: Path) -> None:
    config = config_of(tmp_path, 40, 40, 8)
    plan = make_plan(load_run_config(config))
    names = [plan.tokenizer_of(unit) for unit in plan.units]
    assert names[0] == names[1] != names[2]
    assert [row["tokenizer"] for row in plan_rows(plan, set())] == names
    sizes = {row["tokenizer"]: row["bytes_per_token"] for row in token_rows(plan)}
    assert sizes[names[0]] > sizes[names[2]] >= 1  # more merges, longer tokens
    store = Store(tmp_path / "run")
    write_tokens(store, plan)
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, set()), tables.PLAN))
    found = tokenized(store)
    assert {name: found.bytes_of["prose", name].mean for name in set(names)} == sizes
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(config))
    said = CliRunner().invoke(app, ["plan", str(file)]).output
    assert f"2 tokenizers in one series: {names[0]} (m0, m1); {names[2]} (m2)" in said


def test_weights_alone_have_tokenizers_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, 40, 8, invariants=["weights.weight_tail"])
    (tmp_path / "m1" / "tokenizer.json").write_text("{}")  # none needs to be read
    plan = make_plan(load_run_config(config))
    assert len({plan.tokenizer_of(unit) for unit in plan.units}) == 2


def test_one_tokenizer_in_two_layouts_is_one(tmp_path: Path) -> None:
    plan = make_plan(load_run_config(config_of(tmp_path, 40, 40)))
    assert len(set(plan.tokenizers)) == 2 and len(set(plan.tokenizers.values())) == 1
    assert not token_rows(plan)
    assert len({tokens.digest for tokens in plan.tokens.values()}) == 1


def test_evaluations_are_told_by_the_plan(tmp_path: Path) -> None:
    results = {"results": {"piqa": {"acc,none": 0.5}}}
    file = tmp_path / "r.json"
    file.write_text(json.dumps(results | {"config": {"model_args": "pretrained=lab/other"}}))
    config = config_of(tmp_path, 40, capabilities=[{"file": str(file)}])
    yaml = tmp_path / "s.yaml"
    yaml.write_text(json.dumps(config))
    said = CliRunner().invoke(app, ["plan", str(yaml)]).output
    assert "evaluations: 0 of 1 values joined with runs" in said
    assert "1 not joined: the series has no model of this name: lab/other, piqa acc in" in said
    file.write_text(json.dumps({"results": [1]}))
    with pytest.raises(ValueError, match=rf"capabilities: {file}: results: got \[1\]"):
        CliRunner().invoke(app, ["plan", str(yaml)], catch_exceptions=False)
