"""`scaleinv circuits` as its user meets it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from scaleinv_ray.circuitry.compiled.programs import induction
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
