"""Folders that are whole, and folders that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scaleinv_ray.capture.session import Session, Source
from scaleinv_ray.checkpoints.weights.loading import LoadOptions, load_model
from scaleinv_ray.checkpoints.weights.whole import check_whole
from tests.capture.conftest import LAYERS, PROTOCOL


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder("llama"), tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def sharded(folder, tmp_path):
    load_model(folder("llama")).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


def test_loads_in_eval_mode_and_keeps_the_stored_dtype(folder):
    model = load_model(folder("gpt2"))
    assert not model.training
    assert model.dtype == torch.float32
    assert load_model(folder("gpt2"), LoadOptions(dtype=torch.float64)).dtype == torch.float64


def test_sharded_loads_as_the_single_file_does(folder, sharded):
    assert len(list(sharded.glob("*.safetensors"))) > 1
    single = load_model(folder("llama")).state_dict()
    for name, tensor in load_model(sharded).state_dict().items():
        torch.testing.assert_close(tensor, single[name], rtol=0, atol=0)


def test_no_config(copy):
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json: missing"):
        check_whole(copy)


def test_config_that_is_no_json(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        check_whole(copy)


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has neither model\.safetensors nor"):
        load_model(copy)


def test_pickle_weights_only(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle weights \['pytorch_model.bin'\]"):
        load_model(copy)


def test_truncated_file(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or damaged"):
        load_model(copy)


def test_missing_shard(sharded):
    victim = sorted(sharded.glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(ValueError, match=rf"{victim.name}: missing, named by"):
        load_model(sharded)


def test_truncated_shard(sharded):
    victim = sorted(sharded.glob("*.safetensors"))[1]
    victim.write_bytes(victim.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{victim.name}: truncated or damaged"):
        load_model(sharded)


def test_index_that_names_an_absent_tensor(sharded):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.absent.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lacks tensors \['model.absent.weight'\]"):
        load_model(sharded)


def test_weights_that_the_model_needs_are_not_drawn_at_random(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing keys \['model.layers.1.mlp.up_proj.weight'\]"):
        load_model(copy)


def _captured(folder: Path, tokens_ST: np.ndarray, options: LoadOptions, kind: str) -> list:
    session = Session.open(Source(folder, options=options))
    return session.records(tokens_ST, PROTOCOL, kinds=frozenset({kind}), batch_size=48)[kind]


@pytest.mark.parametrize(
    ("device_map", "max_memory", "offloaded"),
    [
        ({"": "cpu"}, None, False),
        ("auto", {"cpu": 50_000}, True),  # Accelerate puts on disk what is over
    ],
)
def test_a_placed_model_is_captured_as_a_plain_one_and_gradients_need_it_whole(
    device_map, max_memory, offloaded, folder, tokens_ST
):
    options = LoadOptions(device_map=device_map, max_memory=max_memory)
    plain = _captured(folder("llama"), tokens_ST, LoadOptions(), "cloud")
    for a, b in zip(plain, _captured(folder("llama"), tokens_ST, options, "cloud"), strict=True):
        np.testing.assert_array_equal(a.x_TD, b.x_TD)
    if offloaded:
        with pytest.raises(ValueError, match="got an offloaded model, whose backward passes"):
            _captured(folder("llama"), tokens_ST, options, "jacobians")
    else:
        assert len(_captured(folder("llama"), tokens_ST, options, "jacobians")) == LAYERS
