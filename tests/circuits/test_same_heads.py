"""Heads of two models, matched beside untrained ones."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from scaleinv_ray.circuitry.compiled.programs import induction
from scaleinv_ray.circuitry.effects.measuring import Asked
from scaleinv_ray.circuitry.folders import Drawing, circuits_of
from scaleinv_ray.circuitry.same_heads import SameHeads, same_heads
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.cli import app

DRAWING = Drawing("induction", sequences=8, length=20)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Circuits]:
    where = tmp_path_factory.mktemp("models") / "known"
    induction(dtype=torch.float32).model.save_pretrained(where)
    asked = Asked(budget=5.0, game=False)
    return where, circuits_of(where, DRAWING, asked, untrained=False, analyses=("signatures",))


@pytest.fixture(scope="module")
def twins(known: tuple[Path, Circuits]) -> SameHeads:
    folder, circuits = known
    [found] = same_heads([folder, folder], [circuits, circuits], DRAWING, untrained=True)
    return found


def test_a_model_is_matched_to_itself_head_by_head(twins: SameHeads) -> None:
    told = twins.as_json()
    assert {p["head"]: p["there"] for p in told["pairs"]} == {n: n for n in twins.names[0]}
    assert told["cost_ratio"] == 0
    assert all(p["near"] for p in told["pairs"])
    # untrained models of one size have seeds of their own, else they would match at 0 too
    assert min(told["untrained"]) > 0.1
    assert told["p"] == pytest.approx(1 / 20)
    assert " ".join(twins.lines()).endswith("of untrained ones (trivial 5%)")


def test_without_untrained_models_nothing_is_said(known: tuple[Path, Circuits]) -> None:
    folder, circuits = known
    [found] = same_heads([folder, folder], [circuits, circuits], DRAWING, untrained=False)
    assert "untrained models match too" in found.as_json()["refused"]
    bare = dataclasses.replace(circuits, analyses=())
    assert same_heads([folder, folder], [circuits, bare], DRAWING, untrained=False) == []


def test_the_command_says_so_behind_the_models(
    known: tuple[Path, Circuits], tmp_path: Path
) -> None:
    twin = shutil.copytree(known[0], tmp_path / "twin")
    asked: list[Any] = ["circuits", str(known[0]), str(twin), "--with", "signatures"]
    found = CliRunner().invoke(app, [*asked, "--budget", "5f", "--sequences", "8", "--no-null"])
    assert found.exit_code == 0, found.output
    assert "refused: untrained models match too, and --no-null leaves them out" in found.output
