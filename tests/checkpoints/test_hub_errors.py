"""What goes wrong with a hub, over HTTP on loopback: one line that names the model and a way on."""

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints.files import headers
from scaleinv_ray.checkpoints.finding import hub as hub_module
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.cli import main
from tests.checkpoints.test_series import REPO, Hub, cache_layout, commit_of, offline, online, write
from tests.checkpoints.test_series import write_sharded as sharded

assert offline and online, "fixtures"


def refusal(repo: str = REPO, revision: str = "main", **options: object) -> str:
    with pytest.raises((ValueError, ConnectionError)) as refused:
        checkpoints.from_hub(repo, revision, **options)
    said = str(refused.value)
    assert "\n" not in said and len(said) < 300 and repo in said, said
    return said


@pytest.mark.parametrize(
    ("status", "headers_", "said"),
    [
        (404, {"X_Error_Code": "RepoNotFound"}, "no such model, or a private one (then hf auth"),
        (401, {}, "no access (401): no such model, or a private one (then hf auth login)"),
        (401, {"X_Error_Message": "Invalid credentials in Authorization header"}, "hf auth login"),
        (403, {"X_Error_Code": "GatedRepo"}, "a gated model: accept its terms on its page"),
        (403, {}, "the token may not read it (403); needs hf auth login"),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, "(403)"),
        (429, {}, "too many requests (429); wait, hf auth login"),
        (503, {}, "the hub answers 503; try again later, or a path, or HF_HUB_OFFLINE=1"),
        (500, {}, "the hub answers 500"),
        (418, {}, "the hub answers 418"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    status: int, headers_: dict, said: str, online: type[Hub]
) -> None:
    write(online.root / "main")
    online.fault = (status, b"{}", headers_)
    assert said in refusal()


def test_a_gate_before_the_files_alone(online: type[Hub]) -> None:
    write(online.root / "main")
    online.fault = (403, b"", {"X_Error_Code": "GatedRepo"})
    online.fault_on = "/resolve/"
    assert "a gated model" in refusal()


@pytest.mark.parametrize(
    "content", [b"<html>sign in</html>", b"[]", b"null", b"{}", b"\xff", b"[" * 30_000, b""]
)
def test_a_proxy_that_answers_something_else(content: bytes, online: type[Hub]) -> None:
    write(online.root / "main")
    online.fault = (200, content, {})
    assert "an answer of another form than a hub gives" in refusal()


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}']
)
def test_an_index_of_another_form(content: bytes, online: type[Hub]) -> None:
    folder = sharded(online.root / "main")
    (folder / headers.INDEX).write_bytes(content)
    assert "an answer of another form than a hub gives" in refusal()


def test_weights_that_are_none(online: type[Hub]) -> None:
    folder = write(online.root / "main")
    (folder / headers.WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid 0\n")
    assert "an answer of another form than a hub gives" in refusal()
    write(online.root / "main")
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: got a list, allowed: a JSON object"):
        checkpoints.from_hub(REPO)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a PEFT adapter"),
        (["tiny.gguf", "config.json"], "GGUF weights"),
        (["README.md"], "no weights"),
    ],
)
def test_what_a_repository_is(names: list[str], said: str, online: type[Hub]) -> None:
    (online.root / "main").mkdir(parents=True)
    for name in names:
        (online.root / "main" / name).write_text("{}")
    assert f"{REPO}@main: got {said}" in refusal()


def test_no_network_is_said_with_ways_on(
    online: type[Hub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from huggingface_hub import constants

    write(online.root / "main")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refusal().endswith("a path, or HF_HUB_OFFLINE=1 where the cache has it")
    file = tmp_path / "series.yaml"
    file.write_text(json.dumps({"name": "t", "models": [{"hub": REPO}], "out": str(tmp_path)}))
    monkeypatch.setattr("sys.argv", ["scaleinv", "plan", str(file)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert REPO in said


def test_a_hub_that_goes_between_plan_and_run(online: type[Hub]) -> None:
    write(online.root / "main")
    (planned,) = checkpoints.from_hub(REPO)
    online.fault = (404, b"{}", {"X_Error_Code": "RepoNotFound"})
    with pytest.raises(ValueError, match=f"{REPO}@main: the hub was not reached.*hf download"):
        checkpoints.fetch(planned)


def test_a_hub_that_never_answers(online: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(hub_module, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(online, "do_GET", lambda self: done.wait(30) and None)
    try:
        assert "no connection to http" in refusal()
    finally:
        done.set()


def test_the_nearest_of_many_revisions_are_listed(online: type[Hub]) -> None:
    for step in (*range(0, 100, 10), 1000):
        write(online.root / f"step{step}")
    said = refusal(REPO, "step{step}", steps=[31])
    assert "got 'step31', available steps [10, 20, 30, 40, 50] and 6 more" in said
    assert "'step10'" in refusal(REPO, "step11") and "and 6 more" in refusal(REPO, "step11")


def test_a_revision_names_its_step_and_tokens(online: type[Hub]) -> None:
    name = "stage1-step1000-tokens4B"
    write(online.root / name)
    (c,) = checkpoints.from_hub(REPO, name)
    assert (c.step, c.train_tokens) == (1000, 4 * 10**9)
    (c,) = checkpoints.from_hub(REPO, name, [1000], tokens_per_step=64)
    assert (c.step, c.train_tokens) == (1000, 64_000)
    (c,) = checkpoints.from_hub(REPO, "stage1-step{step}-tokens4B", [1000])
    assert (c.step, c.train_tokens) == (1000, 4 * 10**9)


def test_code_of_a_repository_comes_with_trust_alone(
    online: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = write(online.root / "main")
    told = json.loads((folder / "config.json").read_text())
    told |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "own.py").write_text(
        "from transformers import GPTNeoXConfig\n\n\nclass OwnConfig(GPTNeoXConfig):\n"
        "    model_type = 'own'\n"
    )
    (planned,) = checkpoints.from_hub(REPO)
    for trusted in (False, True):
        fetched = checkpoints.fetch(planned, remote_code=trusted)
        assert (fetched / "own.py").exists() is trusted
    with pytest.raises(ValueError, match="runs only for models that trust_remote_code names"):
        list(iter_weights(fetched))
    assert len(list(iter_weights(fetched, trusted=True))) == 2


# ------------------------------------------------------------------ the cache alone


def test_offline_without_a_cache(offline: Path) -> None:
    said = refusal()
    assert f"not in the cache {offline} (HF_HUB_OFFLINE); needs hf download {REPO}" in said


@pytest.mark.parametrize("gone", ["config.json", headers.WEIGHTS])
def test_offline_with_a_part_of_it(gone: str, offline: Path) -> None:
    cache_layout(offline, {"main": 0})
    link = offline / "models--lab--tiny-8m" / "snapshots" / commit_of("main") / gone
    blob = link.resolve()
    for lost in (blob, link):  # a blob that was cleared away, then its link too
        lost.unlink()
        said = refusal()
        assert f"{REPO}@main: " in said and f"needs hf download {REPO} --revision main" in said


def test_offline_an_empty_snapshot(offline: Path) -> None:
    cache_layout(offline, {"main": 0})
    shutil.rmtree(offline / "models--lab--tiny-8m" / "snapshots" / commit_of("main"))
    said = refusal()
    assert "not wholly in the cache; needs hf download" in said
