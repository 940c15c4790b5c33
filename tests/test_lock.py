"""requirements.lock against pyproject.toml and against what is installed here."""

import ast
import importlib.metadata
import re
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*==[a-z0-9.]+(?: ; [^;@+:]+)?")
PYTHONS = ("3.11", "3.12", "3.13")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def misread(text: str) -> list[str]:
    """Lines that name anything but a package, one exact public version and where it applies."""
    return [line for line in lines(text) if not LINE.fullmatch(line)]


LOCK = (ROOT / "requirements.lock").read_text()
PINS = [Requirement(line) for line in lines(LOCK)]


def pinned(name: str, **environment: str) -> Version | None:
    """The version that a package has here, or in another environment; None for one without."""
    of = default_environment() | environment
    found = [
        Version(specifier.version)
        for pin in PINS
        if pin.name == canonicalize_name(name) and (pin.marker is None or pin.marker.evaluate(of))
        for specifier in pin.specifier
    ]
    assert len(found) < 2, f"{name} has two versions for one environment"
    return found[0] if found else None


def declared(extras: Collection[str] | None = None) -> list[Requirement]:
    """Everything that pyproject.toml names: runtime, build, and extras (all of them by default)."""
    project = PROJECT["project"]
    named = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra, texts in project["optional-dependencies"].items():
        named += texts if extras is None or extra in extras else []
    return [Requirement(text) for text in named]


def test_every_line_is_one_exact_version_and_says_nothing_of_where_it_came_from() -> None:
    assert misread(LOCK) == []
    assert "://" not in LOCK


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.13.0+cpu",
        "torch>=2.13.0",
        "torch==2.*",
        "torch @ file:///wheels/torch.whl",
        "--index-url https://host/simple",
        "-e .",
        "torch==2.13.0 --hash=sha256:00",
        "torch==2.13.0 ; python_version < '3.12' # via https://host",
        "ray[default]==2.60.0",
    ],
)
def test_a_line_that_says_more_is_found(line: str) -> None:
    assert misread(f"{LOCK}{line}\n") == [line]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_what_pyproject_names_is_pinned_within_its_range(requirement: Requirement) -> None:
    for python in PYTHONS:
        version = pinned(requirement.name, python_version=python, python_full_version=f"{python}.0")
        assert version is not None and version in requirement.specifier, python


def _needed(requirement: Requirement) -> Iterator[str]:
    """The requirements of an installed package, the extras' that are asked for among them."""
    for text in importlib.metadata.requires(requirement.name) or ():
        needed = Requirement(text)
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
            yield str(needed)


def installed() -> dict[str, Version]:
    """Public versions of all that the packages need which scripts/setup-env installs."""
    found: dict[str, Version] = {}
    extras = re.search(r"--editable '\.\[(.+)\]'", (ROOT / "scripts/setup-env").read_text())
    assert extras is not None
    waiting, seen = [str(r) for r in declared(extras[1].split(","))], set()
    while waiting:
        if (text := waiting.pop()) in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        version = Version(importlib.metadata.version(requirement.name))
        found[canonicalize_name(requirement.name)] = Version(version.public)
        waiting += _needed(requirement)
    return found


def test_what_is_installed_here_is_what_the_lock_says() -> None:
    here = installed()
    assert len(here) > 100
    other = {
        name: f"{version}, not {pinned(name)}"
        for name, version in here.items()
        if pinned(name) != version
    }
    assert other == {}, "run scripts/setup-env, or scripts/lock if pyproject.toml has changed"


def _imported() -> set[str]:
    """Top names of everything that the package and its jobs import."""
    names: set[str] = set()
    for folder in ("scaleinv_ray", "jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add((node.module or "").partition(".")[0])
    return names


def test_every_dependency_is_imported() -> None:
    modules: dict[str, set[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(canonicalize_name(package), set()).add(module)
    imported = _imported()
    idle = {
        name
        for text in PROJECT["project"]["dependencies"]
        if not modules[name := canonicalize_name(Requirement(text).name)] & imported
    }
    assert idle == set()
