"""What no model can be built of is refused before anything starts, from headers alone."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from scaleinv_ray.capture.streaming.partial import StreamedModel
from scaleinv_ray.checkpoints import read_tensors
from scaleinv_ray.checkpoints.files.needed import check_tensors, needed_of
from scaleinv_ray.checkpoints.weights.fits import answers, needed_by
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.checkpoints.weights.matrices import iter_weights
from scaleinv_ray.checkpoints.weights.nulls import materialise
from scaleinv_ray.cli import main
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from tests.capture.conftest import CONFIGS

PROTOCOL = {
    "sequences": 32, "length": 32, "position": 8, "tokens_per_dim": 2, "blocks": 2,
    "stream_units": 4, "jacobian_positions": 2, "attention_sequences": 2, "vocab_rows": 8,
}  # fmt: skip
NORM = "model.norm.weight"


@pytest.fixture
def llama(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder("llama"), tmp_path / "m"))


def tell(folder: Path, **told: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))


def fits(folder: Path) -> bool:
    """Whether the files hold all of the many tensors that the class needs; raises where not."""
    needed = needed_by(folder)
    check_tensors(folder, read_tensors(folder), needed)
    return len(needed.shapes) > 10


@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_saved_fits(name: str, folder: Callable[[str], Path]) -> None:
    assert fits(folder(name))


def test_names_without_a_prefix_and_of_the_first_files_fit(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(folder("gpt2"), tmp_path / "m"))
    file = target / "model.safetensors"
    save_file({n.removeprefix("transformer."): t for n, t in load_file(file).items()}, file)
    assert fits(target)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"hidden_act": "swoosh"}, r"hidden_act: got 'swoosh'; transformers .* builds no model"),
        ({"rope_parameters": {"rope_type": "spiral"}}, r"rope_type: got 'spiral'; transformers"),
        ({"num_attention_heads": None}, "Field 'num_attention_heads' expected int, got NoneType"),
        ({"rms_norm_eps": "1e-5"}, "Field 'rms_norm_eps' expected float, got str"),
        ({"dtype": "float9"}, "AttributeError: .*float9"),
        ({"pad_token_id": 10**6}, "Padding_idx must be within num_embeddings"),
        ({"layer_types": 3}, "builds no model of it .*'int' object is not iterable"),
        ({"id2label": 3}, r"builds no model of it .*\bint\b"),
        ({"model_type": "of_next_year"}, "model type `of_nex"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_of_which_no_model_is_built(told: dict, said: str, llama: Path) -> None:
    tell(llama, **told)
    with pytest.raises(ValueError, match=said) as caught:
        needed_by(llama)
    assert str(llama / "config.json") in str(caught.value)
    assert len(str(caught.value)) < 250 + len(str(llama))


@pytest.mark.parametrize(
    ("told", "tensors", "said"),
    [
        ({}, {NORM: None}, "norm.weight: absent"),
        ({}, {NORM: torch.ones(3)}, r"norm.weight: got shape \(3,\), the class has"),
        ({"attention_bias": True}, {}, r"self_attn\.\w_proj\.bias and \d+ more: absent"),
    ],
)
def test_files_that_lack_a_parameter(
    told: dict, tensors: dict[str, torch.Tensor | None], said: str, llama: Path
) -> None:
    tell(llama, **told)
    file = llama / "model.safetensors"
    held = load_file(file) | tensors
    save_file({n: t for n, t in held.items() if t is not None}, file)
    with pytest.raises(ValueError, match=said):
        fits(llama)


@pytest.mark.slow
def test_another_process_gives_the_same_answers(folder: Callable[[str], Path], llama: Path) -> None:
    tell(llama, hidden_act="swoosh")
    folders = [folder("gpt2"), llama]
    needed, refused = needed_of(folders)
    assert [needed, refused] == answers(folders)
    assert "hidden_act: got 'swoosh'" in str(refused)


@pytest.mark.slow
def test_a_plan_of_captures_leaves_torch_to_another_process(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(folder("gpt2"), tmp_path / "m"))
    byte_tokenizer().save_pretrained(model)
    config = {
        "name": "x", "models": [{"path": str(model)}], "variants": ["trained"],
        "protocol": PROTOCOL, "probes": ["induction"], "invariants": ["behaviour.capabilities"],
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    code = (
        "import sys; from scaleinv_ray.cli import app; app(['plan', 'c.yaml'], "
        "standalone_mode=False); print('loaded', 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "behaviour.capabilities" in done.stdout or "token_losses" in done.stdout
    assert done.stdout.endswith("loaded False\n")


@pytest.mark.parametrize("told", [{"hidden_act": "swoosh"}, {"mlp_bias": True}])
def test_the_plan_says_it_and_weights_need_none_of_it(
    told: dict, llama: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = [r.w_OI.shape for r in iter_weights(llama)]
    tell(llama, **told)
    byte_tokenizer().save_pretrained(llama)
    assert [r.w_OI.shape for r in iter_weights(llama)] == whole
    config = {
        "name": "x", "models": [{"path": str(llama)}], "variants": ["trained"],
        "protocol": PROTOCOL, "out": str(tmp_path / "run"), "probes": ["induction"],
    }  # fmt: skip
    file = tmp_path / "c.yaml"
    for invariants, code in (("weights.weight_tail", 0), ("behaviour.capabilities", 2)):
        file.write_text(json.dumps(config | {"invariants": [invariants]}))
        monkeypatch.setattr("sys.argv", ["scaleinv", "plan", str(file)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr().err
        assert stop.value.code == code, said
    assert said.count("\n") == 1 and len(said) < 300
    assert re.search("error: models: .*; weights alone can be measured", said), said
    assert not (tmp_path / "run").exists()


def test_a_type_of_next_year_has_weights(llama: Path) -> None:
    tell(llama, model_type="of_next_year")
    records = list(iter_weights(llama))
    assert {r.role for r in records} == {"other"} and not any(r.odd for r in records)
    assert [r for r in iter_weights(llama, variant="shuffled_weights")]


SETTINGS: dict[str, Any] = {"return_dict": False, "output_attentions": True, "dtype": "float16"}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_who_saved_it_are_not_obeyed(name: str, llama: Path) -> None:
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        plain = load_model(llama)(tokens).logits
    tell(llama, **{name: SETTINGS[name]})
    for variant in ("trained", "random_init"):
        model: tf.PreTrainedModel = materialise(llama, variant, 0).model
        assert model.dtype == torch.float32
        with torch.no_grad():
            out = model(tokens)
        assert out.attentions is None
        if variant == "trained":
            torch.testing.assert_close(out.logits, plain, rtol=0, atol=0)
    assert StreamedModel.open(llama).model.dtype == torch.float32
    assert all(r.dtype == "float32" for r in iter_weights(llama, variant="random_init"))
