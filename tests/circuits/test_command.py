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
        (["--probe", "inducton"], "probe: got 'inducton', allowed .*nearest 'induction'"),
        (["--probe", "names"], "tokenizer: got none"),
        (["--budget", "soon"], "budget: got 'soon', allowed a number of forwards, as 200f"),
        (["--budget", "1f"], "budget: got 1 forwards, allowed >= 5"),
        (["--step", "3"], "step: got 3 of a folder with one checkpoint, allowed: a run"),
        (["--ablation", "noise"], "ablation: got 'noise', allowed"),
        (["--nodes", "heads,neurons"], "nodes: got .'neurons'., allowed"),
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
    assert [first["model"], second["model"]] == [f"{folder} (known)", f"{other} (known)"]
    assert first["components"] == second["components"]  # identical models
    twice = CliRunner().invoke(app, ["circuits", str(folder), f"{folder}/../known"])
    assert re.search("models: got .*known' more than once, allowed", str(twice.exception))


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
