"""The directions of imports (DESIGN: layout). A planted import turns this red."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "scaleinv_ray"
PURE = {"numpy", "scipy", "gudhi", "sklearn", "statsmodels"}
BASE = {"wording", "reading", "paths"}  # the standard library alone; everything may use them
CORE = {"estimate", "records", "protocols", "resample", "contract", "bounds"}
TORCH = {"torch", "transformers", "accelerate", "safetensors", "tokenizers", "huggingface_hub"}
ALL_THIRD = PURE | TORCH | {"ray", "pyarrow", "pydantic", "plotly", "tqdm", "threadpoolctl"}
# layer -> (third-party packages allowed, own modules allowed beside the layer's own)
RULES: dict[str, tuple[set[str], set[str]]] = {
    "wording": (set(), set()),
    "reading": (set(), set()),
    "paths": (set(), set()),
    "entry": (set(), set()),
    "bounds": (set(), set()),
    "estimate": ({"numpy"}, set()),
    "records": ({"numpy"}, set()),
    "protocols": (set(), set()),
    "resample": ({"numpy"}, {"estimate"}),
    "contract": ({"numpy"}, {"estimate", "records", "bounds"}),
    "tables": ({"pyarrow"}, set()),
    "kernels": (PURE, CORE),
    "invariants": (PURE, CORE | {"kernels"}),
    "singularities": (PURE, CORE),
    "conservation": (PURE | {"pandas"}, CORE),
    "probes": (PURE, CORE),
    "attention_only": ({"torch", "transformers"}, set()),
    "capture": (TORCH | {"numpy"}, CORE | {"probes", "attention_only", "series"}),
    "ladder": (TORCH | {"numpy"}, CORE | {"probes", "attention_only", "series"}),
    "patience": (set(), set()),
    "litter": (set(), set()),
    "seal": ({"pyarrow"}, set()),
    "sealed_tables": ({"pyarrow"}, {"seal", "tables"}),
    "store": (
        {"numpy", "pyarrow"},
        {"litter", "patience", "records", "seal", "sealed_tables"},
    ),
    "states": ({"numpy", "pyarrow"}, {"seal", "store"}),
    "series": ({"huggingface_hub", "numpy", "safetensors"}, {"tables", "records"}),
    "config": (
        {"pydantic", "pydantic_core", "yaml"},
        {"tables", "records", "protocols", "contract", "invariants", "probes", "series"},
    ),
    "costs": (set(), {"records", "protocols", "series"}),
    "cost_model": (set(), {"records", "contract", "series", "costs", "plan", "config"}),
    "plan": (
        {"numpy", "pyarrow", "tokenizers"},
        CORE | {"tables", "invariants", "probes", "series", "config", "costs"},
    ),
    "cluster": (
        ALL_THIRD,
        CORE
        | {"tables", "invariants", "singularities", "conservation", "probes", "capture", "ladder"}
        | {"series", "config", "costs", "cost_model", "plan", "store", "states", "report"}
        | {"patience", "seal", "litter"},
    ),
    "report": ({"plotly", "numpy", "scipy", "pyarrow"}, {"tables", "conservation", "store"}),
    "cli": (
        {"typer"},
        {"cluster", "report", "config", "costs", "cost_model", "plan", "store", "contract"}
        | {"invariants", "entry", "series"},
    ),
}
FREE = {"", "__init__", "__main__"}


def _layer_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(source: str) -> set[str]:
    """Dotted names of everything imported, wherever it stands in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            module = node.module or ""
            found |= (
                {f"{module}.{a.name}" for a in node.names} if module == "scaleinv_ray" else {module}
            )
    return found


def violations(layer: str, source: str) -> list[str]:
    """What `source` imports that its layer must not."""
    third, own = RULES[layer]
    bad = []
    for name in sorted(_imports(source)):
        top, _, rest = name.partition(".")
        if top == "scaleinv_ray":
            target = rest.partition(".")[0]
            if target not in own | BASE | {layer} | FREE:
                bad.append(name)
        elif top not in third and top not in sys.stdlib_module_names:
            bad.append(name)
    return bad


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if _layer_of(p) not in FREE]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_imports_only_what_its_layer_may(path: Path) -> None:
    assert violations(_layer_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("layer", "planted"),
    [
        ("invariants", "import ray"),
        ("invariants", "def f():\n    from scaleinv_ray.capture import forward\n"),
        ("conservation", "import torch"),
        ("conservation", "import pyarrow as pa"),
        ("capture", "from scaleinv_ray.ladder import train"),
        ("ladder", "from scaleinv_ray import capture"),
        ("config", "import torch"),
        ("series", "import transformers"),
        ("invariants", "import joblib"),
        ("conservation", "import ruptures"),
    ],
)
def test_a_planted_import_is_found(layer: str, planted: str) -> None:
    assert violations(layer, planted)


def test_no_utils_and_short_files() -> None:
    names = [p.name for p in PACKAGE.rglob("*.py")]
    assert "utils.py" not in names
    long = {str(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_importing_the_pure_layers_loads_neither_torch_nor_ray() -> None:
    import subprocess

    code = (
        "import sys, scaleinv_ray.invariants, scaleinv_ray.config, scaleinv_ray.plan;"
        "print([m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
