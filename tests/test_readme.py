"""The README's table of invariants is the registry's; the doctest of the README runs as such."""

import re
from pathlib import Path

import scaleinv_ray.invariants
from scaleinv_ray.contract import REGISTRY, markdown_table

README = Path(__file__).resolve().parents[1] / "README.md"
assert scaleinv_ray.invariants


def test_the_table_of_invariants_is_the_registry() -> None:
    found = re.search(
        r"<!-- invariants.*?-->\n(.*?)\n<!-- end of invariants -->", README.read_text(), re.S
    )
    assert found, "the README has lost the markers of its table"
    assert found.group(1).strip() == markdown_table(), (
        "paste the output of `scaleinv invariants` between the markers"
    )
    assert all(f"`{name}`" in found.group(1) for name in REGISTRY)


def test_files_that_the_readme_names_exist() -> None:
    root = README.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (root / target).exists(), target
