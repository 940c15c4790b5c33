"""The page of circuits: what it says first, and that it draws what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import scaleinv_ray as si
from scaleinv_ray.circuitry.compiled import compile_program
from scaleinv_ray.circuitry.writing import dot, graph_of, written
from scaleinv_ray.report.circuits import circuits_page
from scaleinv_ray.report.circuits.lead import lead


@pytest.fixture(scope="module")
def told() -> dict[str, object]:
    compiled = compile_program("majority", constant=1e4).model
    rng = np.random.default_rng(0)
    a = rng.integers(1, 3, size=(12, 9))
    ones = (a == 1).sum(1) > 4
    answers = (np.where(ones, 1, 2), np.where(ones, 2, 1))
    found = si.circuits(compiled, a, 3 - a, answers=answers, edges=True, analyses="positions")
    return found.as_json()


def test_the_first_sentence_names_components_with_errors(told: dict[str, object]) -> None:
    first, jointly, *_ = lead(told)
    assert first.startswith("On given tokens, GPT2LMHeadModel hangs on h0.0 (−")
    assert " ± " in first
    assert jointly.startswith("h0.0, replaced alone, does 90 % of what replacing all 3 does")
    assert any("→" in sentence for sentence in lead(told))


def test_the_graph_joins_what_a_head_reads(told: dict[str, object]) -> None:
    graph = graph_of(told)
    assert graph.number_of_nodes() == 5
    # query, key and value of a head are one node, their estimates add up
    assert sorted(graph["embed"]["h0.0"]["through"]) == ["k0.0", "q0.0", "v0.0"]
    exact = {edge["name"]: edge["effect"] for edge in told["edges"]}
    assert graph["h0.0"]["logits"]["effect"] == pytest.approx(exact["h0.0->logits"])
    lines = dot(graph).splitlines()
    assert lines[0] == "digraph circuit {"
    assert sum("->" in line for line in lines) == graph.number_of_edges()


def test_what_is_written_can_be_read_again(told: dict[str, object], tmp_path: Path) -> None:
    files = [file.name for file in written(tmp_path, [told])]
    assert files == ["report.html", "circuits.json", "graph.json", "graph.dot"]
    assert json.loads((tmp_path / "circuits.json").read_text())["model"] == "GPT2LMHeadModel"
    graph = json.loads((tmp_path / "graph.json").read_text())
    assert {"source", "target", "estimate"} <= set(graph["edges"][0])
    several = [file.name for file in written(tmp_path, [told, told])]
    assert "graph-1.dot" in several


def test_a_name_that_reads_like_a_mark_stays_a_name(told: dict[str, object]) -> None:
    page = circuits_page([told | {"model": "%%DATA%%</script>"}])
    assert "<h1>Circuits of %%DATA%%&lt;/script&gt;" in page
    assert page.count("</script>") == 3  # theme, data, script
    with pytest.raises(ValueError, match="models: got none"):
        circuits_page([])
