"""The documentation: every key and column is described, pages are listed, what they show runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import CONCLUSIONS
from scaleinv_ray.config import (
    DesignConfig,
    ProgramsConfig,
    RunConfig,
    TrainConfig,
    load_run_config,
    load_train_config,
)
from scaleinv_ray.config.described import described
from scaleinv_ray.config.entering import options_of
from scaleinv_ray.config.fields import Options
from scaleinv_ray.config.loading import load
from scaleinv_ray.config.reader import read_yaml
from scaleinv_ray.records import Protocol
from scaleinv_ray.singularities import singularities

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SERIES, DEMO = ROOT / "jobs" / "series", ROOT / "scaleinv_ray" / "demo"
CONFIGS = (RunConfig, TrainConfig)


def _below(of: type[Options]) -> Iterator[type[Options]]:
    for child in of.__subclasses__():
        yield child
        yield from _below(child)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/site/reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OURS = [of for of in _below(Options) if of.__module__.startswith("scaleinv_ray.")]


@pytest.mark.parametrize("options", [*OURS, options_of(Protocol)], ids=lambda of: of.__name__)
def test_every_key_is_described_in_the_docstring(options: type[Options]) -> None:
    assert set(options.model_fields) - set(described(options)) == set()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_schema_says_what_docstrings_say(config: type[Options]) -> None:
    schema = config.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, field in model.get("properties", {}).items():
            assert len(field["description"]) > 5, f"{model['title']}.{name}"
    said = schema["properties"]["name"]["description"]
    assert said == described(config)["name"] and said in (config.__doc__ or "")


def test_a_field_of_a_dataclass_is_described_by_its_docstring() -> None:
    found = RunConfig.model_json_schema()["$defs"]["Protocol"]["properties"]
    assert found["sequences"]["description"].startswith("probe sequences")


def test_every_column_has_a_meaning(reference: ModuleType) -> None:
    schemas = {name: schema for name, (schema, _) in reference.MEASURED.items()}
    schemas |= {of.file: of.schema for of in CONCLUSIONS}
    for table, schema in schemas.items():
        for field in schema:
            said = tables.meaning(field)
            assert len(said.split()) > 1 or said == field.name == "layer" or len(said) > 4, field
            named = field.name in tables.WORDS or field.metadata
            assert named, f"{table}: {field.name} is described nowhere"


def test_the_dictionary_lists_every_singularity_and_what_computes_it(reference: ModuleType) -> None:
    page = reference.dictionary()
    for entry in singularities():
        assert f"| {entry.name} |".replace("4 |w|", "4 \\|w\\|") in page, entry.name
    assert "| (E_8)^2 | 4/15 | 1 | 8/15 |  | 14 | (5, 3) | 1 2 4 5 7 " in page


def test_the_reference_has_every_key_and_column(reference: ModuleType) -> None:
    keys, columns = reference.configuration(), reference.columns()
    for config in CONFIGS:
        for name in config.model_fields:
            assert f"| `{name}` |" in keys
    for name in ("tokens_per_dim", "num_probes", "gpus_per_model", "base_width", "hub"):
        assert f"| `{name}` |" in keys
    assert "| `sequences` | probe sequences; a cloud has one row for each. | integer >= 1" in keys
    for name in (*tables.MEASUREMENTS.names, "certified_change", "bytes_per_token"):
        assert f"| `{name}` |" in columns
    for of in CONCLUSIONS:
        assert f"## `{of.file}`" in columns
    for page in (keys, columns, reference.glossary()):
        assert "None |" not in page and "$ref" not in page


def test_the_glossary_is_that_of_the_report(reference: ModuleType) -> None:
    page = reference.glossary()
    for word in ("Conserved", "Scales", "Undetermined", "Trivial", "Fragile"):
        assert f"<dt>{word}</dt>" in page


def test_the_navigation_lists_every_page() -> None:
    class Loader(yaml.SafeLoader):
        """Of mkdocs.yml, which names a Python function."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)
    listed = re.findall(
        r"[\w-]+\.md", json.dumps(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    )
    hooks = (ROOT / "scripts/site/hooks.py").read_text()
    made = set(re.findall(r'"([\w-]+\.md)"(?=[,:])', hooks)) - {"README.md"}
    written = {path.name for path in DOCS.glob("*.md")}
    assert len(listed) == len(set(listed))
    assert written - set(listed) == set()
    assert set(listed) - written <= made


def test_configs_of_the_tutorial_are_configs() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "first_series.md").read_text(), re.S)
    loaded: list[Any] = [yaml.safe_load(block) for block in blocks]
    assert len(loaded) == 3
    for config in loaded:
        load = load_train_config if "widths" in config else load_run_config
        assert load(config).name == "mine"


def test_the_config_of_evaluations_is_one(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", (DOCS / "evaluations.md").read_text(), re.S)
    assert block
    given = yaml.safe_load(block[1]) | {"name": "x", "models": [{"path": str(tmp_path)}]}
    assert [of.fewshot for of in load_run_config(given).capabilities] == ["zero-shot", "five-shot"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(DOCS / "notebooks/first_series.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep it without outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    made = client.NotebookClient(notebook, timeout=500, resources=resources).execute()
    shown = [
        output["data"]
        for cell in made.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in {"execute_result", "display_data"}
    ]
    html = "".join(data.get("text/html", "") for data in shown)
    for words in ("first at ", "beside_nulls", "stable_rank", "series, 95 %", "error over"):
        assert words in html, words
    assert any("application/vnd.plotly.v1+json" in data for data in shown)
    assert (tmp_path / "runs/first/report.html").exists()


SHIPPED = {
    RunConfig: [
        DEMO / "series.yaml",
        *(file for file in sorted(SERIES.glob("*.yaml")) if "widths:" not in file.read_text()),
    ],
    TrainConfig: [DEMO / "ladder.yaml", SERIES / "gpt2_ladder_models.yaml"],
    DesignConfig: [SERIES.parent / "design.yaml"],
    ProgramsConfig: [SERIES.parent / "programs.yaml"],
}


@pytest.mark.parametrize("config", SHIPPED, ids=lambda of: of.__name__)
def test_the_schema_allows_what_is_shipped_and_what_a_config_says_of_itself(
    config: type[Options],
) -> None:
    schema = Draft202012Validator(config.model_json_schema())
    for file in SHIPPED[config]:
        for said in (
            read_yaml(file),
            load(config, file).model_dump(mode="json", exclude_none=True),
        ):
            assert [error.message for error in schema.iter_errors(said)] == [], file.name


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "auto"},
        {"protocol": {"length": "auto", "sequences": 64}},
        {"invariants": ["circuits.depth"]},
        {"invariants": {"circuits.depth": None, "topology.persistence": {"num_points": "auto"}}},
        {"cluster": {"deadline": "30min", "memory": "4GB"}},
        {"corpus": "texts"},
        {"out": "elsewhere"},
    ],
    ids=str,
)
def test_the_schema_allows_what_a_run_may_say(change: dict[str, Any]) -> None:
    said = {"name": "x", "models": [{"path": "m"}]} | change
    load(RunConfig, said)
    errors = Draft202012Validator(RunConfig.model_json_schema()).iter_errors(said)
    assert [error.message for error in errors] == []


@pytest.mark.parametrize(
    "change", [{"protocol": {"length": "long"}}, {"protocol": {"length": 0}}, {"margin": 0.1}]
)
def test_the_schema_refuses_what_a_run_may_not_say(change: dict[str, Any]) -> None:
    said = {"name": "x", "models": [{"path": "m"}]} | change
    assert not Draft202012Validator(RunConfig.model_json_schema()).is_valid(said)
