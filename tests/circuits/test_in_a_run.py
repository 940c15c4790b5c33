"""Circuits inside a run: how they are planned, what is refused, how they end in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import scaleinv_ray as si
from scaleinv_ray.capture.by_kind.effects import effects_of
from scaleinv_ray.checkpoints.files.roles import NORMED_AFTER
from scaleinv_ray.circuitry.compiled import compile_program
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.config import load_run_config
from scaleinv_ray.contract import Refused
from scaleinv_ray.cost_model import price
from scaleinv_ray.invariants.circuits.graph import circuit_areas
from scaleinv_ray.ladder.architectures import build_model
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import Plan, make_plan
from scaleinv_ray.probes.corrupted import Pairs
from scaleinv_ray.protocols import CircuitsProtocol


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
        (
            {"circuits": {"probes": ["inductoin"]}},
            "circuits.probes: unknown probe in .*induction",
        ),
        ({"probes": ["counting"], "circuits": {}}, "circuits: got probes counting, none can be"),
        ({"cluster": {"load": "streamed"}}, "cluster.load: got 'streamed' with circuits"),
        ({"circuits": {"nodes": ["neurons"]}}, r"circuits.nodes: got \['neurons'\], allowed"),
        ({"circuits": {"edges": True, "ablation": "zero"}}, "circuits.edges: got true with abl"),
        ({"circuits": {"sequences": 4}}, "circuits.sequences: got 4, allowed: greater than .* 5"),
        ({"circuits": {"budget": 4}}, "circuits.budget: got 4, allowed: greater than .* 5"),
        ({"circuits": {"budget": 44, "edges": True}}, "circuits.budget: got 44, allowed >= 45"),
        (
            {"circuits": {"budget": 12, "metric": "kl"}},
            "circuits.budget: got 12, allowed >= 13 with metric kl",
        ),
        ({"circuits": {"edges": "yes"}}, "circuits.edges: got 'yes', allowed: true or false"),
    ):
        with pytest.raises(ValueError, match=said):
            load_run_config(series(ladder, **given))
    with pytest.raises(ValueError, match="probe induction of d16-s0: metric: got 'prob_diff'"):
        planned(ladder, circuits={"metric": "prob_diff"})
    with pytest.raises(ValueError, match=r"circuits.nodes: got \['mlp'\], and model d16-s0 has no"):
        planned(ladder, circuits={"nodes": ["mlp"]})
    with pytest.raises(ValueError, match="circuits.edges: got false with .*circuit_areas, allowed"):
        planned(ladder, invariants={"circuits.circuit_areas": {}})
    without = {k: v for k, v in series(ladder).items() if k != "circuits"}
    with pytest.raises(ValueError, match="needs a section 'circuits' in the config"):
        make_plan(load_run_config(without))


def _alone(folder: Path, model: tf.PreTrainedModel, **circuits: Any) -> Plan:
    model.eval().save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    return planned(
        folder, models=[{"path": str(folder / "model")}], variants=["trained"],
        invariants={"circuits.strength": {}}, circuits={"sequences": 8} | circuits,
    )  # fmt: skip


SMALL = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "pad_token_id": None}  # fmt: skip


@pytest.mark.parametrize("architecture", sorted(NORMED_AFTER))
def test_edges_of_normalised_sums_are_refused_by_the_plan(
    architecture: str, tmp_path: Path
) -> None:
    config = tf.AutoConfig.for_model(architecture, **SMALL, num_key_value_heads=1, head_dim=8)
    config.bos_token_id = config.eos_token_id = None
    model = tf.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=f"circuits.edges: got true with .*{architecture}.*false"):
        _alone(tmp_path, model, edges=True)
    assert len(_alone(tmp_path, model).measurements) == 1
    with pytest.raises(ValueError, match="which normalises after its heads"):
        Anatomy.of(model).check_edges()


def test_an_encoder_alone_has_no_circuits(tmp_path: Path) -> None:
    model = tf.BertForMaskedLM(tf.BertConfig(**SMALL))
    with pytest.raises(ValueError, match="circuits.strength: got encoders alone .model., which"):
        _alone(tmp_path, model)


def test_a_model_that_answers_nothing_has_effects_and_no_circuit_of_edges() -> None:
    model = compile_program("majority", dtype=torch.float32).model
    with torch.no_grad():
        model.lm_head.weight.zero_()  # as of a model that has not begun to learn
    tokens = np.array([[0, 1, 2, 1, 2 - n % 2, 1 + n // 2] for n in range(4)] * 2)
    tokens[4:, 1:3] = [[2, 2], [1, 1], [2, 2], [1, 1]]
    at, one = np.full((8, 1), 5), np.ones((8, 1), dtype=np.int64)
    pairs = Pairs(tokens, np.where(tokens, 3 - tokens, 0), at, one, 2 * one)
    record = effects_of(Anatomy.of(model), pairs, CircuitsProtocol(edges=True))
    assert record.num_edges
    assert not record.effect_NS.any()
    with pytest.raises(Refused, match="does not do the task"):
        circuit_areas(record, rng=np.random.default_rng(0))


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
