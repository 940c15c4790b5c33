"""Circuits inside a run: how they are planned, what is refused, how they end in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import scaleinv_ray as si
from scaleinv_ray.config import load_run_config
from scaleinv_ray.cost_model import price
from scaleinv_ray.ladder.architectures import build_model
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import Plan, make_plan


def series(folder: Path, **given: Any) -> dict[str, Any]:
    return {
        "name": "x", "models": [{"ladder": str(folder / "models"), "steps": "all"}],
        "variants": ["trained", "random_init", "shuffled_tokens"], "probes": ["induction"],
        "protocol": {"sequences": 16, "length": 16, "position": 8},
        "circuits": {"sequences": 8, "probes": ["induction", "induction.last"]},
        "invariants": {"circuits.concentration": {}, "circuits.strength": {},
                       "circuits.onset": {}, "behaviour.capabilities": {}},
        "out": str(folder / "out"),
    } | given  # fmt: skip


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    for width in (16, 24, 32):
        spec = TrainSpec(
            name="x", architecture="attention_only", widths=(width,), depth=2, head_dim=8, length=16
        )
        for seed in (0, 1):
            model = build_model(spec, Rung(width, 2, seed))
            for step in (0, 1, 2):
                facts = {"step": step, "seed": seed, "train_tokens": step, "eval_loss": 1.0}
                at = folder / "models" / f"d{width}-s{seed}" / f"step-{step:06d}"
                write_checkpoint(at, model, byte_tokenizer(), facts)
                with torch.no_grad():
                    for p in model.parameters():
                        p.mul_(1.1)
    return folder


def planned(folder: Path, **given: Any) -> Plan:
    return make_plan(load_run_config(series(folder, **given)))


def keys(plan: Plan, kind: str) -> set[str]:
    return {m.capture_key for m in plan.measurements if m.kind == kind}


def test_settings_are_in_the_keys_of_effects_alone(ladder: Path) -> None:
    plan = planned(ladder)
    ours = [m for m in plan.measurements if m.kind == "effects"]
    assert {m.probe for m in ours} == {"induction", "induction.last"}
    assert {m.unit.variant for m in ours} == {"trained", "random_init"}, "shuffled pairs are none"
    other = planned(ladder, circuits={"sequences": 9, "probes": ["induction"]})
    assert not keys(plan, "effects") & keys(other, "effects")
    assert keys(plan, "token_losses") == keys(other, "token_losses")
    cost = price(plan, plan.measurements)
    assert cost.at_least == ("effects",)
    assert "circuits.concentration" in cost.unpriced


def test_readings_take_two_runs_and_no_effects(ladder: Path) -> None:
    plan = planned(ladder, invariants={"circuits.probes": {}, "circuits.rules": {}})
    assert {m.kind for m in plan.measurements} == {"readings"}
    effects = planned(ladder, invariants={"circuits.concentration": {}})
    ours, theirs = (price(p, p.measurements) for p in (plan, effects))
    assert ours.at_least == ("readings",)
    assert {"circuits.probes", "circuits.rules"} == set(ours.unpriced)
    assert ours.device_seconds < theirs.device_seconds


def test_edges_and_random_sets_are_paid_for(ladder: Path) -> None:
    asked = {"sequences": 8, "probes": ["induction"]}
    seconds = []
    for edges in (False, True):
        plan = planned(
            ladder, circuits=asked | {"edges": edges}, invariants={"circuits.strength": {}}
        )
        seconds.append(price(plan, plan.measurements).device_seconds)
    assert seconds[1] > 1.5 * seconds[0]


def test_what_cannot_be_measured_is_refused_by_the_plan(ladder: Path) -> None:
    for given, said in (
        ({"circuits": {"probes": ["inductoin"]}}, "circuits.probes: probe in pairs .*induction"),
        ({"probes": ["counting"], "circuits": {}}, "circuits: got probes counting, none can be"),
        ({"cluster": {"load": "streamed"}}, "cluster.load: got 'streamed' with circuits"),
        ({"circuits": {"nodes": ["neurons"]}}, r"circuits.nodes: got \['neurons'\], allowed"),
        ({"circuits": {"edges": True, "ablation": "zero"}}, "circuits.edges: got true with abl"),
        ({"circuits": {"sequences": 4}}, "circuits.sequences: got 4, allowed: greater than .* 5"),
        ({"circuits": {"budget": 4}}, "circuits.budget: got 4, allowed: greater than .* 5"),
        ({"circuits": {"budget": 44, "edges": True}}, "circuits.budget: got 44, allowed >= 45"),
        ({"circuits": {"edges": "yes"}}, "circuits.edges: got 'yes', allowed: true or false"),
    ):
        with pytest.raises(ValueError, match=said):
            load_run_config(series(ladder, **given))
    with pytest.raises(ValueError, match="probe induction of d16-s0: metric: got 'prob_diff'"):
        planned(ladder, circuits={"metric": "prob_diff"})
    without = {k: v for k, v in series(ladder).items() if k != "circuits"}
    with pytest.raises(ValueError, match="needs a section 'circuits' in the config"):
        make_plan(load_run_config(without))


@pytest.mark.slow
def test_circuits_of_a_ladder_from_config_to_report(ladder: Path, ray_session: None) -> None:
    every = ("circuit_areas", "modules", "concentration", "strength", "together", "depth", "onset",
             "probes", "rules")  # fmt: skip
    run = si.run(
        series(
            ladder,
            circuits={"sequences": 8, "probes": ["induction", "induction.last"], "edges": True},
            invariants={f"circuits.{name}": {} for name in every} | {"behaviour.capabilities": {}},
        )
    )
    assert run.failed == 0
    rows = run.measurements.to_pandas()
    ours = rows[rows.family == "circuits"]
    assert set(ours.status) <= {"ok", "refused"}
    refused = ours[(ours.status == "refused") & (ours.variant == "trained")]
    assert refused.error.str.contains("does not do the task").any()
    nulls = ours[ours.variant == "random_init"]
    assert not nulls.error.fillna("").str.contains("task").any()
    assert (ours[ours.quantity == "top_effect"].status == "ok").all()
    # what is read needs no task done, and stands beside untrained models
    read = ours[ours.quantity.isin(["previous_accuracy", "repeated_selectivity", "rules_told"])]
    assert {*read.variant} == {"trained", "random_init"}
    assert (read.status == "ok").mean() > 0.9
    assert read[read.status == "ok"].stderr.notna().all()
    verdicts = run.verdicts.to_pandas()
    named = {"participation_fraction", "top_effect", "cpr", "modularity_excess", "rules_told"}
    assert named <= set(verdicts.quantity)
    assert "participation_fraction" in run.store.read_bytes("report.html").decode()
