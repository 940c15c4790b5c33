"""The directions of imports, as ARCHITECTURE.md draws them. A planted import turns this red."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "scaleinv_ray"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
WORDS = {"estimate", "records", "protocols", "kinds", "resample", "contract", "bounds"}
FREE = {"", "__init__", "__main__"}
MAX_FILES = 12
MAX_BODY = 50


@cache
def arrows() -> dict[str, set[str]]:
    """Room -> the rooms that an arrow of the drawing leads to."""
    drawing = re.search(r"```mermaid\n(.*?)```", ARCHITECTURE, re.DOTALL)
    assert drawing
    found: dict[str, set[str]] = {}
    for start, end in re.findall(r"^ +(\S+) --> (\S+)$", drawing[1], re.MULTILINE):
        found.setdefault(start, set()).add(end)
        found.setdefault(end, set())
    return found


@cache
def outside() -> dict[str, set[str]]:
    """Room -> the packages of others that it may import, from the table."""
    rows = re.findall(r"^\| `(\S+)` \|[^|]*\|([^|]*)\|$", ARCHITECTURE, re.MULTILINE)
    return {room: set(re.findall(r"\w+", names)) for room, names in rows}


@cache
def reachable(room: str) -> frozenset[str]:
    """The room and all that arrows lead to from it."""
    return frozenset({room}).union(*(reachable(end) for end in arrows()[room]))


def room_of(parts: tuple[str, ...]) -> str:
    """The innermost room of a dotted name inside the package."""
    if parts[0] in WORDS:
        return "words"
    return next(
        (name for i in (2, 1) if (name := "/".join(parts[:i])) in arrows()), "/".join(parts)
    )


def room_of_file(path: Path) -> str:
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(source: str) -> set[str]:
    """Dotted names of everything imported, wherever it stands in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            module = node.module or ""
            ours = module.split(".")[0] == "scaleinv_ray"
            found |= {f"{module}.{a.name}" for a in node.names} if ours else {module}
    return found


def violations(room: str, source: str) -> list[str]:
    """What `source` imports that its room must not."""
    bad = []
    for name in sorted(imported(source)):
        top, *rest = name.split(".")
        if top == "scaleinv_ray":
            if rest and rest[0] not in FREE and room_of(tuple(rest)) not in reachable(room):
                bad.append(name)
        elif top not in outside()[room] and top not in sys.stdlib_module_names:
            bad.append(name)
    return bad


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.relative_to(PACKAGE).stem not in FREE]
FILES = [p for p in FILES if p.parent != PACKAGE or p.stem not in FREE]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_imports_only_what_its_room_may(path: Path) -> None:
    assert violations(room_of_file(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("invariants", "import ray"),
        ("invariants", "def f():\n    from scaleinv_ray.capture import forward\n"),
        ("conclude/conservation", "import torch"),
        ("conclude/aggregation", "import pyarrow as pa"),
        ("conclude/aggregation", "from scaleinv_ray.conclude.training import onsets"),
        ("capture", "from scaleinv_ray.ladder import train"),
        ("capture", "from scaleinv_ray.store import Store"),
        ("ladder", "from scaleinv_ray import capture"),
        ("conclude", "import ray"),
        ("measure", "from scaleinv_ray.cluster import session"),
        ("config", "import torch"),
        ("checkpoints", "import transformers"),
        ("checkpoints", "from scaleinv_ray.checkpoints.weights import loading"),
        ("invariants", "import joblib"),
    ],
)
def test_a_planted_import_is_found(room: str, planted: str) -> None:
    assert violations(room, planted)


def test_the_drawing_and_the_table_name_every_room_once() -> None:
    assert set(arrows()) == set(outside())
    assert {room_of_file(path) for path in FILES} == set(arrows())
    for room in arrows():
        assert all(room not in reachable(end) for end in arrows()[room]), f"a circle at {room}"


def test_folders_can_be_taken_in_at_a_glance() -> None:
    folders = {p.parent for p in FILES}
    crowded = {
        str(folder.relative_to(ROOT)): names
        for folder in sorted(folders)
        if len(names := sorted(p.name for p in folder.iterdir() if p.is_file())) > MAX_FILES
    }
    assert not crowded
    assert not list(PACKAGE.rglob("utils.py"))
    long = {str(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function below its signature and docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_can_be_taken_in_at_a_glance() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": lines
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := body_lines(node)) > MAX_BODY
    }
    assert not long


@pytest.mark.parametrize(
    ("rooms", "without"),
    [
        ("invariants config plan conclude.concluding", "torch transformers ray"),
        ("cli runs.analysis runs.status runs.watch runs.printing", "torch transformers ray"),
        ("cluster.driving.driver cluster.nodes.preflight cluster.train", "torch transformers"),
        ("inspection runs.designs.designing runs.programs", "torch transformers"),
    ],
)
def test_what_waits_for_workers_loads_neither_torch_nor_what_it_does_not_drive(
    rooms: str, without: str
) -> None:
    code = (
        f"import sys, {', '.join(f'scaleinv_ray.{room}' for room in rooms.split())};"
        f"print([m for m in {without.split()} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
