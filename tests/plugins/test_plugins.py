"""Invariants from outside: found, sent to the workers, keyed by their source, refused in words."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray import tables
from scaleinv_ray.cli import main
from scaleinv_ray.config import ConfigError, RunConfig, load_run_config
from scaleinv_ray.contract import REGISTRY, Measured, forget
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.measure.written_config import config_of
from scaleinv_ray.plan import make_plan
from scaleinv_ray.plugins import loading
from scaleinv_ray.plugins.template import write_new
from scaleinv_ray.runs.analysis import notes_of
from scaleinv_ray.runs.starting.fitting import idle_plugins

WEIGHTS = '''
import numpy as np
from scaleinv_ray.contract import Measured, Quantity, invariant
from scaleinv_ray.estimate import exact
from scaleinv_ray.records import WeightMatrix

@invariant(quantities={"norm": Quantity(law="none", meaning="Frobenius norm")})
def size(w: WeightMatrix, *, rng: np.random.Generator) -> Measured:
    """Frobenius norm."""
    return Measured({"norm": RETURNED})
'''
EXACT = WEIGHTS.replace("RETURNED", "exact(np.linalg.norm(w.w_OI))")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "adding-an-invariant.md"


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Plugins of a test are gone after it."""
    known = set(REGISTRY)
    yield
    forget([REGISTRY[n].function.__module__ for n in set(REGISTRY) - known])
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, loading._Finder)]
    for plugin in loading._LOADED.values():
        for source in plugin.sources:
            sys.modules.pop(source.name, None)
    loading._LOADED.clear()
    loading._INSTALLED.clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    small = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=257, n_positions=16)
    GPT2LMHeadModel(small).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def config(model: Path, plugin: Path | str, out: Path, **more: Any) -> RunConfig:
    name = f"{Path(plugin).stem}.size"
    return load_run_config({
        "name": "x", "models": [{"path": str(model)}], "variants": ["trained"],
        "plugins": [str(plugin)], "invariants": {name: {}}, "out": str(out), **more,
    })  # fmt: skip


def written(path: Path, text: str = EXACT) -> Path:
    path.write_text(text)
    return path


def test_the_source_is_in_the_key(model: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "mine.py")
    keys = [make_plan(config(model, file, tmp_path)).measurements[0].key for _ in range(2)]
    written(file, EXACT.replace("Frobenius norm.", "Another."))
    other = make_plan(config(model, file, tmp_path)).measurements[0].key
    assert keys[0] == keys[1] != other
    assert REGISTRY["mine.size"].summary == "Another.", "the newer text is the one that counts"


def test_a_module_of_a_package_brings_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lab_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    written(package / "numbers.py", "TWO = 2\n")
    written(package / "sizes.py", "from lab_of_mine.numbers import TWO\n" + EXACT)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = loading.read("lab_of_mine.sizes")
    assert {s.name for s in plugin.sources} >= {"lab_of_mine.numbers", "lab_of_mine.sizes"}
    monkeypatch.undo()  # a worker has the text alone
    plugin.load()
    assert loading.plugin_of("sizes.size") is plugin


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mine.py", "import nothing_of_this_name\n",
         r"ModuleNotFoundError: .*_name' \(line 1\); allowed: installed packages, or a package of"),
        ("mine.py", "x = 1\n\ny = x +\n", r"SyntaxError: invalid syntax.* \(line 3\)"),
        ("mine.py", "1 / 0\n", r"ZeroDivisionError: division by zero \(line 1\)"),
        ("mine.py", "x = 1\n", r"no function in it is decorated with @invariant"),
        ("mine.py", "raise SystemExit(3)\n", r"SystemExit: 3 \(line 1\)"),
        ("my-own.py", EXACT, "allowed: a name of letters, digits and '_'"),
        ("weights.py", EXACT.replace("def size", "def weight_tail"),
         r"weights.weight_tail: got it twice"),
        ("mine.py", b"\x80\x81", "allowed: Python source in UTF-8"),
    ],
    ids=lambda v: str(v)[:20],
)  # fmt: skip
def test_what_does_not_load_is_said_in_a_line(
    name: str, text: str | bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = dict(REGISTRY)
    with pytest.raises(ConfigError, match=said) as caught:
        load_run_config(
            {"name": "x", "models": [{"path": "m"}], "plugins": [name]}, folder=tmp_path
        )
    assert str(caught.value).startswith("plugins[0]: got '") and len(str(caught.value)) < 300
    assert before == dict(REGISTRY)


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("none.py", "got '.*/none.py', no such file"),
        ("none_of_this_name", "no module of that name; allowed: a file.py, or a module"),
        ("none_of_this_name", "beside the config in 'FOLDER', installed or on PYTHONPATH"),
        ("yaml.nothing", "yaml has no such module"),
        ("json", "got 'json', allowed: a module from outside of it and of Python"),
        ("scaleinv_ray.kinds", "allowed: a module from outside of it and of Python"),
        ("a/b", "allowed: a file.py or package.module"),
    ],
)
def test_a_plugin_that_is_not_there(plugin: str, said: str, tmp_path: Path) -> None:
    given = {"name": "x", "models": [{"path": "m"}], "plugins": [plugin]}
    known = sys.modules["json"]
    with pytest.raises(ConfigError, match=said.replace("FOLDER", str(tmp_path))) as caught:
        load_run_config(given, folder=tmp_path)
    assert len(str(caught.value)) < 300 and sys.modules["json"] is known


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "mine.py")
    given = {"name": "x", "models": [{"path": "m"}], "plugins": ["a/mine.py", "b/mine.py"]}
    with pytest.raises(ConfigError, match=r"^plugins: got .*/a/mine.py and .*/b/mine.py, allowed"):
        load_run_config(given, folder=tmp_path)


def test_a_package_beside_the_config_needs_no_path_and_no_init(tmp_path: Path) -> None:
    (tmp_path / "lab_beside" / "deep").mkdir(parents=True)
    for name in ("one", "two"):
        written(tmp_path / "lab_beside" / "deep" / f"{name}.py")
    given = {"name": "x", "models": [{"path": "m"}],
             "plugins": ["lab_beside.deep.one", "lab_beside.deep.two"]}  # fmt: skip
    chosen = load_run_config(given, folder=tmp_path).chosen_invariants()
    assert {"one.size", "two.size"} <= set(chosen)
    files = loading.read("lab_beside.deep.one", tmp_path).files
    assert {name for name, text in files.items() if text} == {
        "lab_beside/deep/one.py", "lab_beside/deep/two.py"
    }  # fmt: skip
    assert str(tmp_path) not in sys.path


def test_all_is_what_this_config_brings(tmp_path: Path) -> None:
    written(tmp_path / "mine.py")
    scope: dict[str, Any] = {"__name__": "a_notebook"}
    exec(EXACT, scope)
    given = {"name": "x", "models": [{"path": "m"}]}
    own = load_run_config(given | {"plugins": ["mine.py"]}, folder=tmp_path).chosen_invariants()
    other = load_run_config(given, folder=tmp_path).chosen_invariants()
    assert own.keys() - other.keys() == {"mine.size"}
    (tmp_path / "copy").mkdir()
    written(tmp_path / "copy" / "mine.py")
    again = load_run_config(given | {"plugins": ["copy/mine.py"]}, folder=tmp_path)
    assert again.chosen_invariants().keys() == own.keys(), "the same text in another place"
    assert "a_notebook.size" in REGISTRY and "a_notebook.size" not in own


def test_a_worker_needs_nothing_but_the_job(tmp_path: Path) -> None:
    plugin = loading.read(str(written(tmp_path / "mine.py")))
    (tmp_path / "job").write_bytes(pickle.dumps(plugin))
    (tmp_path / "mine.py").unlink()
    code = (
        "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).load();"
        "from scaleinv_ray.contract import REGISTRY; print(*REGISTRY)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "job"], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ran.stdout.split() == ["mine.size"], ran.stderr


def test_values_are_estimates_or_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"values.norm: got 1.5, allowed: an Estimate \(exact"):
        Measured({"norm": 1.5})  # type: ignore[dict-item]


def test_plan_and_the_table_of_invariants_say_what_comes_from_outside(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "mine.py")
    given = {"name": "x", "models": [{"path": str(model)}], "variants": ["trained"],
             "invariants": ["mine.size"]}  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(given))
    monkeypatch.chdir(tmp_path)
    said = {}
    for command in (["plan", "c.yaml"], ["invariants"]):
        monkeypatch.setattr("sys.argv", ["scaleinv", *command, "--plugin", "mine.py"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code in {0, None}
        said[command[0]] = capsys.readouterr().out
    digest = loading.read(str(tmp_path / "mine.py")).digest
    assert f"from outside: mine.size, of {tmp_path}/mine.py, source {digest}\n" in said["plan"]
    assert "| `mine.size` | weights |" in said["invariants"]


def test_a_plugin_that_nothing_asks_for_is_said_before_the_run(model: Path, tmp_path: Path) -> None:
    written(tmp_path / "mine.py")
    asked = config(model, tmp_path / "mine.py", tmp_path / "out")
    assert idle_plugins(asked) == []
    others = {"weights.weight_tail": {}}
    idle = config(model, tmp_path / "mine.py", tmp_path / "out", invariants=others)
    said = "mine.py: nothing of it is measured; add mine.size to invariants"
    assert idle_plugins(idle) == [said]
    assert said in notes_of(idle, make_plan(idle))


def test_a_plugin_of_the_command_line_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "mine.py", "1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["scaleinv", "inspect", ".", "--plugin", "mine.py"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: plugin: got '{tmp_path}/mine.py', ZeroDivisionError: division")


def test_an_installed_package_names_its_invariants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "lab_installed.py")
    info = tmp_path / "lab_installed-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: lab_installed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[scaleinv_ray.invariants]\nlab = lab_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    given = {"name": "x", "models": [{"path": "m"}], "invariants": ["lab_installed.size"]}
    assert "lab_installed.size" in load_run_config(given).chosen_invariants()


def test_what_a_notebook_defines_has_no_way_to_the_workers(model: Path, tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "a_notebook"}
    exec(EXACT, scope)
    made = load_run_config({
        "name": "x",
        "models": [{"path": str(model)}],
        "invariants": ["a_notebook.size"],
    })
    with pytest.raises(ValueError, match=r"workers do not have; allowed: in a file, as 'plugins:"):
        make_plan(made)


@pytest.mark.ray
def test_a_worker_measures_it_and_what_breaks_the_contract_is_said(
    model: Path, tmp_path: Path, ray_session: None
) -> None:
    from scaleinv_ray.runs.analysis import run

    good = run(config(model, written(tmp_path / "mine.py"), tmp_path / "good"))
    rows = tables.decode(good.measurements)
    assert rows and {r["status"] for r in rows} == {"ok"} and all(r["value"] > 0 for r in rows)
    digest = loading.read(str(tmp_path / "mine.py")).digest
    assert all(r["code_version"].endswith(f" mine.py+{digest}") for r in rows)
    assert digest.encode() in (tmp_path / "good" / "report.html").read_bytes()
    assert run(config(model, tmp_path / "mine.py", tmp_path / "good")).computed == 0
    kept = tmp_path / "good" / "plugins" / digest / "mine.py"
    assert kept.read_text() == (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").unlink()
    assert config_of(good.store).plugins == (str(kept),), "a report needs what is in the folder"

    text = WEIGHTS.replace("RETURNED", "float(w.w_OI.sum())")
    bad = run(config(model, written(tmp_path / "bare.py", text), tmp_path / "bad"))
    errors = {r["error"] for r in tables.decode(bad.measurements)}
    assert bad.failed and all(re.search("norm: got .*, allowed: an Estimate", e) for e in errors)


def test_the_page_on_adding_an_invariant_is_followed_to_the_letter(tmp_path: Path) -> None:
    text = DOCS.read_text()
    name = re.search(r"^scaleinv new-invariant (\w+)$", text, re.MULTILINE)[1]  # type: ignore[index]
    invariant, truth = write_new(name, tmp_path)
    shown, checked = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    assert (shown, checked) == (invariant.read_text(), truth.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", truth.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    loading.read(str(invariant)).load()
    assert REGISTRY[f"{name}.{name}"].kind == "cloud"


@pytest.mark.parametrize("name", ["1a", "class", "a-b", "naïve"])
def test_a_new_invariant_needs_the_name_of_a_function(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed: a name of a function, as my_ratio"):
        write_new(name, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_new_invariant_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").touch()
    with pytest.raises(ValueError, match=r"test_a.py exists; allowed: a new name"):
        write_new("a", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["test_a.py"]
