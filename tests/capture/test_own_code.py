"""Code of a repository: every reader runs it for a trusted model, and none for another."""

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scaleinv_ray.capture.session import Session, Source
from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.checkpoints.weights.nulls import materialise

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).write_text("ran")


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that no library knows, with code that leaves a trace beside it."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))  # an answer is no trust
    target = tmp_path / "own"
    shutil.copytree(folder("llama"), target)
    (target / "own.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    name(target, {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"})
    return target


def name(target: Path, classes: object) -> None:
    file = target / "config.json"
    told = json.loads(file.read_text()) | {"model_type": "own", "auto_map": classes}
    file.write_text(json.dumps(told))


def _options(trusted: bool) -> LoadOptions:
    return LoadOptions(trust_remote_code=trusted)


def _session(target: Path, trusted: bool) -> None:
    source = Source(target, "shuffled_weights", options=_options(trusted))
    Session.open(source)


READERS: dict[str, Callable[[Path, bool], object]] = {
    "weights": lambda f, t: list(iter_weights(f, trusted=t)),
    "null": lambda f, t: list(iter_weights(f, variant="random_init", trusted=t)),
    "step 0": lambda f, t: list(iter_weights(f, variant="random_init", init_folder=f, trusted=t)),
    "session": _session,
    "model": lambda f, t: load_model(f, _options(t)),
    "model of a null": lambda f, t: materialise(f, "random_init", 0, options=_options(t)),
}


@pytest.mark.parametrize("reader", READERS)
def test_code_runs_for_a_trusted_model_alone(reader: str, own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"auto_map: got 'own\.OwnConfig'.*trust_remote_code"):
        READERS[reader](own, False)
    assert not (tmp_path / "marker").exists()
    READERS[reader](own, True)
    assert (tmp_path / "marker").read_text() == "ran"


def test_a_streamed_model_obeys_too(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        StreamedModel.open(own, _options(False))
    assert not (tmp_path / "marker").exists()
    with pytest.raises(ValueError, match="model_type: got 'own', allowed"):
        StreamedModel.open(own, _options(True))  # knows where no block of it is


def test_weights_are_those_of_the_known_class(own: Path, folder: Callable[[str], Path]) -> None:
    trusted = [r.w_OI for r in iter_weights(own, trusted=True)]
    plain = [r.w_OI for r in iter_weights(folder("llama"))]
    assert sum(w.size for w in trusted) == sum(w.size for w in plain)


def test_trust_covers_no_other_repository(own: Path, tmp_path: Path) -> None:
    name(own, {"AutoConfig": "lab/other--own.OwnConfig"})
    with pytest.raises(ValueError, match=re.escape("'lab/other--own.OwnConfig', code of another")):
        list(iter_weights(own, trusted=True))
    name(own, ["own.OwnConfig"])
    with pytest.raises(ValueError, match="auto_map: got .*allowed: a mapping"):
        list(iter_weights(own, trusted=True))
    assert not (tmp_path / "marker").exists()
