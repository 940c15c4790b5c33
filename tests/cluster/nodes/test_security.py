"""Who may use the cluster, what code runs, and where files may come to lie."""

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs
from safetensors.numpy import load_file, save_file

from scaleinv_ray.cluster import session
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.config import load_run_config
from scaleinv_ray.runs import watch as watch_module
from scaleinv_ray.runs.watch import fetched, look
from tests.cluster.test_loading import one_model, the_job

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [*(ROOT / "scaleinv_ray").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]
PROGRAMS = [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "tests").rglob("[!t]*.py")]
"""For the tests themselves, tests/conftest.py has said it."""


# ------------------------------------------------------------------ authentication


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a token, where token mode is on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_file_is_made_once_and_closed_to_others(home: Path) -> None:
    session.secure_token()
    token = home / ".ray" / "auth_token"
    secret = token.read_text()
    assert mode(token) == 0o600 and len(secret) == 64 and int(secret, 16)
    token.chmod(0o644)  # as Ray itself writes it
    session.secure_token()
    assert mode(token) == 0o600 and token.read_text() == secret


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_AUTH_TOKEN", "t"), ("RAY_AUTH_TOKEN_PATH", "/x"), ("RAY_AUTH_MODE", "disabled")],
)
def test_a_token_given_otherwise_is_the_users_affair(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    session.secure_token()
    assert not (home / ".ray").exists()


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and module of what is imported at the top of a file."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def test_whoever_imports_ray_has_said_how_it_authenticates() -> None:
    seen = set()
    for file in [*SOURCES, *PROGRAMS]:
        text = file.read_text()
        lines = [at for at, name in imports(ast.parse(text)) if name.partition(".")[0] == "ray"]
        if not lines:
            continue
        seen.add(file)
        said = [i for i, line in enumerate(text.splitlines(), 1) if '"RAY_AUTH_MODE"' in line]
        assert said and said[0] < lines[0], f"{file}: imports ray in line {lines[0]}"
    ours = {ROOT / "scaleinv_ray/cluster/session.py", ROOT / "tests/cluster/isolated/isolated.py"}
    assert ours <= seen


@pytest.mark.ray
def test_token_mode_is_what_holds_where_nothing_is_said() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_MODE"}
    code = (
        "from scaleinv_ray.cluster import session; import os; print(os.environ['RAY_AUTH_MODE']);"
        "from ray._private.authentication import authentication_utils as a;"
        "print(a.is_token_auth_enabled())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["token", "True"]


# ------------------------------------------------------------------ code


def called(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load",
    "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "torch.load", "yaml.unsafe_load",
    "yaml.full_load", "joblib.load", "np.load",
}  # fmt: skip
HARMLESS = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
"""What of the forbidden runs nothing where it is called so."""


def offences(text: str) -> list[str]:
    """Calls by which a file, or a value of a config, could run code."""
    found = []
    for name, node in called(ast.parse(text)):
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        loader = given.get("Loader", "none")
        keyword, value = HARMLESS.get(name, ("", ""))
        if keyword and given.get(keyword) == value:
            continue
        if name in FORBIDDEN or given.get("shell") == "True":
            found.append(name)
        elif name == "yaml.load" and not loader.endswith("_Loader"):
            found.append(name)
        elif given.get("trust_remote_code") == "True" or given.get("use_safetensors") == "False":
            found.append(name)
    return found


def test_no_value_is_ever_evaluated_and_no_pickle_read() -> None:
    assert {str(f): found for f in SOURCES if (found := offences(f.read_text()))} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "eval(config['x'])",
        "subprocess.run(text, shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=asked)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
    ],
)
def test_a_planted_call_is_found(planted: str) -> None:
    assert offences(planted)


CODE = """
from pathlib import Path
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

Path({marker!r}).write_text("ran")


class OwnConfig(GPTNeoXConfig):
    pass


class OwnModel(GPTNeoXForCausalLM):
    config_class = OwnConfig
"""


@pytest.mark.ray
def test_code_of_a_checkpoint_runs_only_where_the_config_names_the_model(
    text_folder: Path, ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    model, marker = tmp_path / "own", tmp_path / "marker"
    shutil.copytree(ladder / "d32-s0" / "step-000006", model)
    (model / "own.py").write_text(CODE.format(marker=str(marker)))
    file = model / "config.json"
    told = json.loads(file.read_text())
    told["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    file.write_text(json.dumps(told))
    sources = [{"path": str(model), "name": "own", "step": 6}]

    def capture(**changes: object) -> None:
        config = one_model(text_folder, ladder, tmp_path / "out", models=sources, **changes)
        job, tokens = the_job(load_run_config(config))
        assert Capturer(num_threads=1, num_gpus=0).capture(job, tokens).written

    capture()
    assert not marker.exists(), "the architecture is known here: nobody needs its code"
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("embed_out.weight")  # as that class calls it
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    capture(trust_remote_code=["own"])
    assert marker.read_text() == "ran"


# ------------------------------------------------------------------ paths


def test_what_arrives_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = fs._MockFileSystem()
    monkeypatch.setattr(watch_module, "_open", lambda _: (bucket, "bucket/in"))
    monkeypatch.setattr(watch_module, "_fault", lambda *_: None)
    names = ("a/model.safetensors", "a/../../outside.txt", "../over/config.json", "a/b/extra.json")
    for name in names:
        bucket.create_dir(f"bucket/in/{Path(name).parent}", recursive=True)
        with bucket.open_output_stream(f"bucket/in/{name}") as stream:
            stream.write(b"x")
    assert look("memory", settled_s=0).whole == ["a", "a/b"]
    mirror = tmp_path / "run" / "arrived"
    copy = fetched("memory", "a", mirror)
    assert [p.name for p in copy.iterdir()] == ["model.safetensors"]
    for folder in ("../over", "/over", "a/../../over"):
        with pytest.raises(ValueError, match="allowed: below memory"):
            fetched("memory", folder, mirror)
    files = [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()]
    assert files == [Path("run/arrived/a/model.safetensors")]


def test_a_checkpoint_at_the_top_of_a_bucket_lies_beside_those_in_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = fs._MockFileSystem()
    monkeypatch.setattr(watch_module, "_open", lambda _: (bucket, "bucket/in"))
    for name in ("step-5/config.json", "config.json"):
        bucket.create_dir(f"bucket/in/{Path(name).parent}", recursive=True)
        with bucket.open_output_stream(f"bucket/in/{name}") as stream:
            stream.write(name.encode())
    for folder, name in (("step-5", "step-5/config.json"), (".", "config.json")):
        (file,) = (p for p in fetched("memory", folder, tmp_path).iterdir() if p.is_file())
        assert file.read_text() == name


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", ".."])
def test_a_name_is_no_way_out_of_the_runs(tmp_path: Path, name: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({"name": name, "out": "s3://bucket/run"}))
    with pytest.raises(ValueError, match="names a folder"):
        next(watch_module.watch(file, str(tmp_path)))
