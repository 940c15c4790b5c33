"""`scaleinv circuits` as its user meets it."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import scaleinv_ray as si
from scaleinv_ray.circuitry import folders
from scaleinv_ray.circuitry.commands import Request, command
from scaleinv_ray.circuitry.compiled.programs import induction
from scaleinv_ray.circuitry.writing import written
from scaleinv_ray.cli import app

EDGES = {"embed->v0.0", "h0.0->k1.0", "embed->q1.0", "embed->v1.0", "h1.0->logits"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("models") / "known"
    induction(dtype=torch.float32).model.save_pretrained(where)
    return where


def test_the_command_names_the_five_edges_of_the_induction_program(
    folder: Path, tmp_path: Path
) -> None:
    asked = ["circuits", str(folder), "--edges", "--sequences", "12", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("edge "))
    assert {line.split()[0] for line in lines[at + 1 : at + 6]} == EDGES
    assert lines[at].endswith("of 110 edges")
    components = next(n for n, line in enumerate(lines) if line.startswith("component"))
    assert [line.split()[0] for line in lines[components + 1 : components + 3]] == ["h1.0", "h0.0"]
    assert "forwards" in found.output
    assert max(map(len, lines[: at + 6])) <= 100
    written = json.loads((tmp_path / "circuits.json").read_text())
    assert {edge["name"] for edge in written["edges"][:5]} == EDGES
    assert 1 <= written["quantities"]["participation"]["value"] < 2.5


def test_a_budget_is_kept_and_json_is_json(folder: Path) -> None:
    asked = ["circuits", str(folder), "--budget", "7f", "--json", "--no-null"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert told["forwards"] <= 7
    assert not all(component["exact"] for component in told["components"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--probe", "inducton"], "probe: got 'inducton' .did you mean 'induction'.., allowed: ar"),
        (["--probe", "names"], "tokenizer: got none"),
        (["--budget", "soon"], "budget: got 'soon', allowed a number of forwards, as 200f"),
        (["--budget", "1f"], "budget: got 1 forwards, allowed >= 5"),
        (["--step", "3"], "step: got 3 of a folder with one checkpoint, allowed: a run"),
        (["--ablation", "noise"], "ablation: got 'noise', allowed"),
        (["--nodes", "heads,neurons"], "nodes: got 'heads,neurons', allowed one or more of heads"),
        (["--nodes", "heads,heads"], "nodes: got 'heads,heads', allowed .* each once"),
        (["--nodes", ""], "nodes: got '', allowed one or more of heads, mlp, embed"),
        (["--probe", "nonsense"], "probe: got 'nonsense', allowed: arithmetic, brackets, code"),
        (["--with", "positons"], "with: got 'positons' .did you mean 'positions'.., allowed: dir"),
        (["--metric", "KL"], "metric: got 'KL', allowed logit_diff, prob_diff, loss, kl"),
        (["--edges", "--ablation", "zero"], "ablation: got 'zero' with edges, allowed resample"),
        (["--out", ""], "out: got '', allowed: a folder of this machine"),
        (["--out", "s3://bucket/x"], "out: got 's3://bucket/x', allowed: a folder of this machine"),
        (["--out", "/proc/x"], "out: got '/proc/x', No such file .* in proc; allowed: a folder"),
    ],
)
def test_options_that_cannot_be_are_refused(folder: Path, more: list[str], says: str) -> None:
    found = CliRunner().invoke(app, ["circuits", str(folder), *more])
    with pytest.raises(ValueError, match=says):
        raise found.exception or AssertionError(found.output)


def test_models_of_one_name_are_told_apart_and_one_twice_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "known"
    shutil.copytree(folder, other)
    asked = ["circuits", str(folder), str(other), "--json", "--no-null", "--sequences", "6"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    first, second = json.loads(found.output)
    assert [first["model"], second["model"]] == [
        f"{path.parent.name}/known" for path in (folder, other)
    ]
    assert first["components"] == second["components"]  # identical models
    twice = CliRunner().invoke(app, ["circuits", str(folder), f"{folder}/../known"])
    assert re.search("models: got .*known' more than once, allowed", str(twice.exception))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "models: got '.*nowhere', no such folder; allowed: a folder of a checkpoint"),
        ("known/config.json", "models: got '.*config.json', a file; allowed: a folder"),
    ],
)
def test_a_model_that_is_not_there_is_named_before_any_is_measured(
    folder: Path, name: str, says: str
) -> None:
    found = CliRunner().invoke(app, ["circuits", str(folder), str(folder.parent / name)])
    assert re.search(says, str(found.exception)), found.exception
    assert not found.output


def test_a_name_of_the_hub_is_told_how_to_be_had(folder: Path) -> None:
    found = CliRunner().invoke(app, ["circuits", "EleutherAI/pythia-70m"])
    assert "of the hub: hf download EleutherAI/pythia-70m --local-dir" in str(found.exception)


def test_of_several_models_the_one_that_is_refused_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "unable"
    model = induction(dtype=torch.float32).model
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(other)
    asked = ["circuits", str(folder), str(other), "--no-null", "--sequences", "6"]
    said = str(CliRunner().invoke(app, asked).exception)
    assert re.search("unable: refused: the model does not do the task", said), said


def test_an_architecture_without_captures_is_refused_before_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"model_type": "mamba"}))
    said = str(CliRunner().invoke(app, ["circuits", str(tmp_path / "other")]).exception)
    assert re.search("model_type 'mamba', allowed causal models of gemma2, gpt2", said), said


def test_a_model_larger_than_memory_is_refused_before_it_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "available_memory", lambda: 1000)
    said = str(CliRunner().invoke(app, ["circuits", str(folder)]).exception)
    assert re.search("needed, 1.00 KB of memory.*, allowed one that is whole in memory", said), said


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_a_person_is_told_how_far_it_is_and_json_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr("sys.stderr", said := Terminal())
    request = Request([folder], "induction", None, "heads", "resample", True, None, 6, 24,
                      True, "modularity", None, None, None)  # fmt: skip
    lines = list(command(request, as_json=as_json))
    told = [part.strip() for part in said.getvalue().split("\r")]
    if as_json:
        assert said.getvalue() == ""
        assert json.loads(lines[-1])["forwards"] > 0
        return
    stages = ("exact effects", "edges", "untrained, joint game", "modularity")
    assert all(any(line.startswith(f"known: {stage}") for line in told) for stage in stages)
    assert any(re.match(r"known: edges, \d+ forwards \[00:\d\d\]", line) for line in told)
    assert told[-1] == ""


def test_of_a_model_without_any_effect_json_has_null_and_never_nan(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = induction(dtype=torch.float32).model
    a_ST, b_ST = np.random.default_rng(0).integers(1, 13, size=(2, 8, 12))
    answers = np.ones((8, 1), dtype=int), np.full((8, 1), 2)
    for zeroed in ("attn.c_proj.weight", "wte.weight"):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith((zeroed, "mlp.c_proj.weight")):
                    p.zero_()
        found = si.circuits(
            model, a_ST, b_ST, answers=answers, must_do=False, edges=True, analyses="all"
        )
        assert not found.effects.effect_NS.any()
        told = json.loads(json.dumps(found.as_json(), allow_nan=False))
        assert "refused" in told["quantities"]["cpr"]
        assert told["estimator"]["r"] is None
        assert told["game"] is None
        assert "nan" not in "\n".join(found.lines())
        assert all(file.stat().st_size for file in written(tmp_path / zeroed, [told]))
    assert told["faithfulness"] is None
