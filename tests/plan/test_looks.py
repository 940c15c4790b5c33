"""A look before the work: in the plan at the text, in the run at what models pay for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scaleinv_ray import tables
from scaleinv_ray.cli import app
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.conclude.concluding import conclude
from scaleinv_ray.conclude.sanity import Sanity, sanity_notes
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.plan import make_plan, plan_rows
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.plan.look import look_lines
from scaleinv_ray.store import Store
from tests.plan.document_models import (
    by_labels,
    config,
    documents,
    given,
    json_file,
    losses,
    token_files,
)


def test_the_plan_shows_what_models_are_given(
    tmp_path: Path, texts: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    ids = {"name": "ids", "tokens": str(token_files(tmp_path)["a.npy"])}
    plan = make_plan(config(model(), probe, tmp_path, probes=[probe, ids]))
    head, shares, first, second, said, of_ids, *_ = look_lines(plan)
    assert head.startswith("tokenizer ") and "3.50 (vocabulary 33)" in head
    assert shares.startswith("  mine: 1 tokens a character, 0 % unknown, 0 % special")
    text = "".join(first.split("|")[1:])
    assert first.startswith("    [BOS]|") and text in texts.read_text() and first != second
    assert said.strip() == plan.tokens["mine", next(iter(plan.tokens))[1]].said[0]
    assert of_ids.startswith("  ids: token ids as they are")


def test_sequences_that_repeat_another_are_said(tmp_path: Path, model: Callable[..., Path]) -> None:
    file = json_file(tmp_path / "a.jsonl", documents(4, seed=2) * 12)
    probe = {"name": "mine", "file": str(file), "layout": "documents"}
    lines = look_lines(make_plan(config(model(), probe, tmp_path)))
    assert lines[-1] == "    36 of 40 sequences repeat another: no replicates"


def test_the_command_shows_it(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    chosen = config(model(), probe, tmp_path / "run")
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(chosen.model_dump(mode="json", exclude_none=True)))
    shown = CliRunner().invoke(app, ["plan", str(file)])
    assert shown.exit_code == 0
    assert "\n".join(look_lines(make_plan(chosen))) in shown.output


def test_the_head_of_the_report_says_that_a_model_does_not_know_its_text(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    chosen = config(model(), probe, tmp_path / "run")
    plan, store = make_plan(chosen), Store(chosen.out)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    outcome = Capturer(num_threads=1, num_gpus=0).capture(work.captures[0], work.tokens)
    for job in work.measurements:
        measure(job, store)
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, set()), tables.PLAN))
    (checkpoint,) = plan.last
    line = "w16 on mine: this model does not know this text: "
    for factor in (1, 2):  # untrained, it pays chance; then more than that
        said: list[str] = []
        paid = {name: factor * loss for name, loss in outcome.losses.items()}
        Sanity(store, plan, lambda event, text, said=said: said.append(text))(checkpoint, paid)
        conclude(store, chosen)
        assert (line in store.read_bytes("report.html").decode()) == bool(said)
        assert factor == 1 or said[0].startswith(line)


def test_controls_streams_and_models_without_losses_are_not_asked(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    probes = [probe, "induction"]
    variants = ["trained", "random_init", "shuffled_tokens"]
    chosen = config(model(), probe, tmp_path, probes=probes, variants=variants)
    plan = make_plan(chosen)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    asked = [
        (job.weights.variant, t.probe, t.shuffle_seed)
        for job in work.captures
        for t in job.wanted
        if t.sanity
    ]
    assert asked == [("trained", "mine", None)]


def test_each_model_is_asked_once(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    """Chains and curvature have jobs of their own, each of which loads the model again."""
    names = ["degeneracy.learning_coefficient", "curvature.ggn_density", "behaviour.capabilities"]
    sampling = {"sequences": 8, "batch": 4, "draws": 20, "burn_in": 8}
    more = {"invariants": names, "curvature": {"sequences": 4}, "sampling": sampling}
    chosen = config(model(), probe, tmp_path, **more)
    plan = make_plan(chosen)
    work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path, run_id="r")
    asked = {frozenset(t.paths): t.sanity for job in work.captures for t in job.wanted}
    assert asked == {
        frozenset({"token_losses"}): True, frozenset({"chains"}): False, frozenset({"ggn"}): False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["behaviour.capabilities", "representation.participation", "attention.attention_topology"],
)
def test_streamed_models_are_asked_while_they_are_captured(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path], name: str
) -> None:
    found = {}
    for load in ("resident", "streamed"):
        asked = {"invariants": [name], "cluster": {"load": load}}
        chosen = config(model(), probe, tmp_path / load, **asked)
        plan = make_plan(chosen)
        work = jobs_for(plan, plan.measurements, chosen, scratch=tmp_path / load, run_id="r")
        (job,) = work.captures
        outcome = Capturer(num_threads=1, num_gpus=0).capture(job, work.tokens)
        assert outcome.load == load
        assert {*outcome.written, *outcome.failed} == {*job.paths()}
        found[load] = outcome.losses
    if name == "attention.attention_topology":  # it needs the whole model
        assert found["streamed"] == {}
    else:
        assert found["streamed"] == pytest.approx(found["resident"], abs=1e-6)


@pytest.mark.slow
def test_a_series_that_knows_its_text_and_one_that_does_not(
    tmp_path: Path, probe: dict[str, Any], model: Callable[..., Path]
) -> None:
    """As documents a larger model is better; packed, or without its first token, each is lost."""
    found: dict[tuple[str, int], float] = {}
    store = Store(tmp_path / "run")
    packed = probe | {"layout": "packed"}
    for width in (8, 32):
        folder = model(width, 400, unknown=False)
        for name, asked, more in (
            ("documents", probe, {}),
            ("packed", packed, {}),
            ("bare", probe, {"special_tokens": "none"}),
        ):
            chosen = config(folder, asked, tmp_path / f"{name}{width}", **more)
            plan = make_plan(chosen)
            loss_ST, outcome = losses(plan, chosen)
            found[name, width] = float(loss_ST.mean())
            assert outcome.losses["mine"] == pytest.approx(loss_ST[:32].mean(), abs=1e-6)
            if name == "documents":
                tokens = given(plan)
                expected = by_labels(folder, tokens.tokens_ST, tokens.left_out)
                np.testing.assert_allclose(loss_ST.mean(axis=1), expected, atol=1e-6)
            said: list[str] = []
            (checkpoint,) = plan.last
            Sanity(store, plan, lambda event, text, said=said: said.append(text))(
                checkpoint, outcome.losses
            )
            notes = sanity_notes(store, [(f"w{width}", "mine")])
            assert notes == said
            assert bool(notes) == (name != "documents")
            assert all("this model does not know this text" in line for line in notes)
    assert found["documents", 32] < found["documents", 8]
    for width in (8, 32):
        assert found["packed", width] > found["documents", width] + 1
        assert found["bare", width] > found["documents", width]
