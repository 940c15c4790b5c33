"""Designs of real models: found, certified on seeds that were never seen, refused with reasons."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.cluster.designing import Trial, try_one
from scaleinv_ray.config import ConfigError, load_design_config
from scaleinv_ray.design.closed_forms import (
    UnreachableError,
    chi_of_layers,
    initialised,
)
from scaleinv_ray.design.theory import Asked
from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec
from scaleinv_ray.runs.designs.designing import design
from scaleinv_ray.runs.designs.evaluations import FIRST_UNSEEN, TABLE, EvaluationRow
from scaleinv_ray.store import Store

RANK = {"invariant": "weights.weight_tail", "quantity": "stable_rank", "role": "query"}
CHI = {"invariant": "stability.order_chaos", "quantity": "chi", "layer": 0}


def of(out: Path, **more: Any) -> dict[str, Any]:
    target = {**RANK, "value": 17.3, "margin": 0.1}
    given = {"name": "made", "out": str(out), "target": target, "over": {"width": [32, 64]}}
    model = {"depth": 1, "length": 16}
    budget = {"evaluations": 4, "random": 2}
    seeds = {"search": 2, "certify": 3}
    return given | {"model": model, "budget": budget, "seeds": seeds} | more


def rows_of(out: Path) -> list[dict[str, Any]]:
    return tables.decode(Store(str(out)).read_table(TABLE, schema=tables.schema_of(EvaluationRow)))


def test_theory_is_measured_and_certified_on_seeds_never_seen(
    ray_session: None, tmp_path: Path
) -> None:
    config = load_design_config(of(tmp_path))
    found = design(config)
    assert found.point == {"width": 64}
    assert found.certified
    assert "the closed form puts the target at width 64" in found.lines()[0]
    rows = rows_of(tmp_path)
    last = [row for row in rows if row["purpose"] == "certificate"]
    assert {row["seed"] for row in last} == set(range(FIRST_UNSEEN, FIRST_UNSEEN + 3))
    assert all(row["seed"] < FIRST_UNSEEN for row in rows if row["purpose"] != "certificate")
    assert not {row["seed"] for row in last} & {row["seed"] for row in rows if row not in last}
    assert all(abs(row["value"] - 17.3) < 2 for row in last)
    # a width that no list allows has no random configuration
    assert {row["point"] for row in rows if row["purpose"] == "default"} == {"{}"}
    again = design(config)
    assert again.lines() == found.lines()
    assert rows_of(tmp_path) == rows


def test_what_no_model_has_is_refused_before_one_is_made(tmp_path: Path) -> None:
    asked = of(tmp_path, target={**CHI, "value": 1.0}, over={"init_scale": [0.3, 3.0, "log"]})
    with pytest.raises(UnreachableError, match="a pre-LayerNorm block adds to the stream"):
        design(load_design_config(asked))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"target": {**CHI, "value": -1.0}}, r"target\[0\].value"),
        ({"target": {**CHI, "quantity": "chy", "value": 1.5}}, "the nearest is 'chi'|chi"),
        ({"over": {"wdth": [1, 2]}}, "unknown dimension 'wdth'.*width"),
        ({"over": {"width": [32, 128, "log"]}}, r"over.width: got .* allowed: \[low, high, log\]"),
        ({"over": {"init_scale": [3.0, 0.3, "log"]}}, "with 0 < low < high"),
        ({"over": {"depth": [2, 2]}}, "distinct values"),
        ({"over": {"lr": [0.01, 0.1, "log"]}}, "got a learning rate at init, allowed: at a step"),
        ({"over": {"width": [40]}}, r"model.head_dim: got 16, allowed: divisors of widths \[40\]"),
        ({"at": "end"}, "allowed: init, or a step >= 1"),
        ({"seeds": {"certify": 1}}, "seeds.certify"),
        ({"seeds": {"certify": 10**12}}, "seeds.certify: got 10{12}, allowed: less than"),
        ({"budget": {"evaluations": 10**12}}, "budget.evaluations: got 10{12}, allowed: less than"),
        ({"target": {**CHI, "value": 1.5, "layer": 1}}, r"target\[0\].layer: got 1, allowed: 0..0"),
        (
            {"target": {**CHI, "value": 1.5, "site": "resid_pst"}},
            r"site: got .*'resid_post'.*order_c",
        ),
        (
            {"target": {"invariant": "circuits.strength", "quantity": "task_gap", "value": 1.5}},
            "invariant: got circuits.strength, allowed those of one causal model .* circuits",
        ),
        ({"target": {**CHI, "value": 1.5, "role": "query"}}, "role: got 'query', allowed .*: none"),
        ({"target": [{**CHI, "value": 1.5}] * 2}, "target: got one twice, allowed: each once"),
        ({"over": {"width": [[64]]}}, "width: got .*64.*, allowed: a valid integer"),
    ],
)
def test_a_wrong_design_is_told_its_field(tmp_path: Path, more: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_design_config(of(tmp_path, **more))


def test_the_job_is_a_design() -> None:
    config = load_design_config(Path(__file__).parents[2] / "jobs" / "design.yaml")
    assert config.over == {"init_scale": (0.5, 2.0, "log")}
    assert config.at == 0


def measured(invariant: str, quantity: str, spec: TrainSpec, step: int, out: Path) -> float:
    asked = Asked(invariant, quantity, 1.0, 0.05, layer=0 if quantity == "chi" else None)
    text, sequences = ("train", 1) if step else ("held_out", 16)
    tried = try_one(Trial("x", spec, step, (asked,), text, sequences, str(out)))
    assert tried.error is None
    return tried.values[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "init_scale"), [("gpt2", 0.7), ("gpt2", 1.0), ("gpt_neox", 0.3)]
)
def test_the_closed_form_of_chi_is_that_of_real_models(
    architecture: str, init_scale: float, tmp_path: Path
) -> None:
    values = []
    for seed in range(6):
        shape: dict[str, Any] = {"widths": (128,), "depth": 3, "length": 64, "seeds": (seed,)}
        spec = TrainSpec(name="x", architecture=architecture, init_scale=init_scale, **shape)
        values.append(measured("stability.order_chaos", "chi", spec, 0, tmp_path))
    said = chi_of_layers(initialised(architecture, width=128, depth=3, init_scale=init_scale))[0]
    error = np.std(values, ddof=1) / np.sqrt(6)
    assert abs(np.mean(values) - said) < 0.01 * said + 2 * error


@pytest.mark.slow
@pytest.mark.parametrize("target", [1.2, 1.5])
def test_a_wanted_chi_is_certified(target: float, ray_session: None, tmp_path: Path) -> None:
    found = design(load_design_config(of(
        tmp_path, target={**CHI, "value": target, "margin": 0.05},
        over={"init_scale": [0.4, 1.6, "log"]},
        model={"width": 128, "depth": 3, "length": 64},
        budget={"evaluations": 12, "random": 4}, seeds={"search": 3, "certify": 8},
    )))  # fmt: skip
    assert found.certified, found.lines()
    assert not found.default.passes


def corpus_of_one_sequence(folder: Path, length: int) -> Path:
    """Text of two files, of which one is trained on and is one window: gradient descent is full."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz "), length + 1)
        (folder / f"{name}.txt").write_text("".join(letters))
    return folder


@pytest.mark.slow
def test_sharpness_is_designed_by_the_learning_rate(ray_session: None, tmp_path: Path) -> None:
    # at the edge of stability it is 2 / lr, whatever the model; a hard target keeps it there
    found = design(load_design_config(of(
        tmp_path / "out",
        target={
            "invariant": "curvature.hessian_density", "quantity": "lambda_max", "value": 100.0,
            "margin": 0.1,
        },
        over={"lr": [0.01, 0.04, "log"]}, at=500, text="train", sequences=1,
        model={
            "width": 64, "depth": 1, "length": 256, "batch": 1,
            "corpus": [str(corpus_of_one_sequence(tmp_path / "text", 256))],
            "optimizer": {"name": "sgd", "schedule": "constant", "lr": 0.04},
        },
        budget={"evaluations": 4, "random": 0}, seeds={"search": 2, "certify": 4},
    )))  # fmt: skip
    assert "puts the target at lr 0.02" in found.theory
    assert found.certified, found.lines()
    assert found.point is not None
    assert found.point["lr"] == pytest.approx(0.02, rel=0.15)
    assert not found.default.passes


@pytest.mark.slow
def test_a_run_that_diverges_is_no_value(tmp_path: Path) -> None:
    spec = TrainSpec(
        name="x", architecture="gpt2", widths=(16,), depth=1, length=16, steps=20,
        checkpoints=(20,), optimizer=OptimizerSpec(name="sgd", lr=1e9, schedule="constant"),
    )  # fmt: skip
    asked = (Asked("weights.weight_tail", "stable_rank", 4.0, 0.05),)
    tried = try_one(Trial("x", spec, 20, asked, "train", 4, str(tmp_path)))
    assert not tried.values
    assert "diverged" in str(tried.error)
    assert not (tmp_path / "models" / "x").exists()
