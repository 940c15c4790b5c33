"""The table of invariants is the registry's; the doctest of the README runs as such."""

import re
from pathlib import Path

import scaleinv_ray.invariants
from scaleinv_ray.contract import REGISTRY, markdown_table

ROOT = Path(__file__).resolve().parents[1]
README, TABLE = ROOT / "README.md", ROOT / "docs" / "invariants.md"
assert scaleinv_ray.invariants


def test_the_table_of_invariants_is_the_registry() -> None:
    found = re.search(
        r"<!-- invariants.*?-->\n(.*?)\n<!-- end of invariants -->", TABLE.read_text(), re.S
    )
    assert found, "docs/invariants.md has lost the markers of its table"
    assert found.group(1).strip() == markdown_table(), (
        "paste the output of `scaleinv invariants` between the markers"
    )
    assert all(f"`{name}`" in found.group(1) for name in REGISTRY)


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target
