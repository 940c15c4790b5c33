"""A network that breaks while both sides go on."""

import shutil
from pathlib import Path

import pytest

from tests.cluster.nodes.test_nodes import isolated, namespaces

assert namespaces, "a fixture"
pytestmark = [pytest.mark.ray, pytest.mark.root, pytest.mark.slow]


def test_a_cut_link_costs_what_was_under_way_and_nothing_else(
    namespaces: Path, ladder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ladder / "d16-s0" / "step-000006", tmp_path / "model")
    found = isolated("cut_link", tmp_path, namespaces, program="isolated_link")
    assert found["nodes"] == 2 and found["lost"] and found["twice"] >= 1
    assert found["addresses"] == ["10.77.0.1"], "the other node is up, and out of reach"
    assert found["completed"] == found["jobs"]
    assert found["failed"] == found["redone"] == []
