"""Pickled checkpoints: refused with the command that converts them, and what it makes of them."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BertConfig
from typer.testing import CliRunner

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints.weights import unpickling
from scaleinv_ray.checkpoints.weights.converting import convert
from scaleinv_ray.checkpoints.weights.loading import load_model
from scaleinv_ray.checkpoints.weights.unpickling import converted
from scaleinv_ray.cli import app

State = dict[str, torch.Tensor]


def gpt2(folder: Path, save: Callable[[State, Path], object]) -> State:
    """A tied GPT-2 of pickles, with the tokenizer files of old."""
    config = AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=2, vocab_size=6)
    config.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = AutoModelForCausalLM.from_config(config).state_dict()
    (folder / "vocab.json").write_text(
        json.dumps({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "c": 4, "<|endoftext|>": 5})
    )
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    save(state, folder / "pytorch_model.bin")
    return state


def nested(state: State, file: Path) -> None:
    torch.save({"state_dict": state, "epoch": 3}, file)


def of_old(state: State, file: Path) -> None:
    torch.save(state, file, _use_new_zipfile_serialization=False)


def wrapped(state: State, file: Path) -> None:
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, file)


def sharded(state: State, file: Path) -> None:
    names, placed = sorted(state), {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"pytorch_model-{i:05d}-of-00002.bin"
        torch.save({n: state[n] for n in part}, file.with_name(shard))
        placed |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": placed}
    file.with_name("pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "save", [torch.save, nested, of_old, sharded, wrapped], ids=lambda f: f.__name__
)
def test_every_way_of_pickling_gives_the_same_checkpoint(
    save: Callable[[State, Path], object], tmp_path: Path
) -> None:
    state = gpt2(tmp_path / "old", save)
    with pytest.raises(ValueError, match=r"pickled weights.*`scaleinv convert FOLDER OUT`"):
        checkpoints.from_folder(tmp_path / "old")
    said = converted(tmp_path / "old", tmp_path / "new")
    written = {n: t for f in sorted((tmp_path / "new").glob("*.safetensors"))
               for n, t in load_file(f).items()}  # fmt: skip
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    (found,) = checkpoints.from_folder(tmp_path / "new", cache_dir=tmp_path / "cache")
    tied = state["lm_head.weight"].numel()
    assert found.n_params == sum(t.numel() for t in state.values()) - tied
    loaded = load_model(tmp_path / "new").state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert tokenizer("ab c").input_ids == [2, 3, 4]
    assert found.tokenizer_file == tmp_path / "new" / "tokenizer.json"
    assert "tokenizer.json: made by transformers" in "\n".join(said)
    assert ("left out: epoch" in "\n".join(said)) == (save is nested)
    taken = "taken off every name: module._orig_mod." in "\n".join(said)
    assert taken == (save is wrapped)
    assert not [p.name for p in tmp_path.iterdir() if p.name not in {"old", "new", "cache"}]


class Harm:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.file}",))


def test_a_pickle_that_asks_for_code_runs_none(tmp_path: Path) -> None:
    gpt2(tmp_path / "old", torch.save)
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    before = sorted(p.name for p in (tmp_path / "old").iterdir())
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "old"), str(tmp_path / "new")])
    assert isinstance(done.exception, ValueError) and done.exit_code != 0
    assert str(done.exception).startswith(f"{tmp_path}/old/pytorch_model.bin: not read with")
    assert len(str(done.exception).splitlines()) == 1
    assert not (tmp_path / "harm").exists() and not (tmp_path / "new").exists()
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == before


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": Harm(Path("harm"))}, r"it calls posix\.system, allowed: tensors alone"),
        ({"a": np.zeros(3)}, r"it calls numpy\.\w+\.multiarray\._reconstruct, allowed"),
        (b"hello", "damaged, or none of torch"),
        (b"", "pytorch_model.bin: got an empty file, allowed: pickled weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "got a pointer of Git LFS, .*pull",
        ),
        (b"PK\x03\x04 as of a download", "cut off after 21 B: its end is missing; allowed: all"),
        ({"a": torch.empty(1, device="meta")}, "a: got .*, on meta, allowed: plain numbers"),
        ({"net": {"a": torch.ones(1)}}, "got no tensors but net; allowed: .* under state_dict"),
    ],
)
def test_a_refusal_says_what_was_asked_for_and_advises_nothing(
    held: Any, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "pytorch_model.bin"
    if isinstance(held, bytes):
        file.write_bytes(held)
    else:
        torch.save(held, file)
    with pytest.raises(ValueError, match=said) as refused:
        unpickling._tensors(file)
    assert "trust" not in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    gpt2(tmp_path / "old", torch.save)
    (tmp_path / "old" / "modeling_own.py").write_text("raise SystemExit")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "old"), str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("pytorch_model.bin -> model.safetensors: ")
    assert "not copied: modeling_own.py" in lines
    assert lines[-1] == f"written: {tmp_path / 'new'}"
    assert "read with weights_only=True in a process " in lines[-2]
    assert not (tmp_path / "new" / "modeling_own.py").exists()


def test_sockets_and_programs_are_refused_in_the_process() -> None:
    for event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
        with pytest.raises(PermissionError, match=f"{event}: not allowed where a pickle is read"):
            unpickling._forbid(event, ())
    unpickling._forbid("open", ())


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    state = gpt2(old, torch.save)
    torch.save(state, old / "model.pt")
    with pytest.raises(ValueError, match=r"old: got several \[model\.pt, pytorch_model\.bin\]"):
        converted(old, new)
    (old / "model.pt").unlink()
    torch.save([1, 2], old / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: got a list, allowed: tensors"):
        converted(old, new)
    (old / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: cut off after 12 B"):
        converted(old, new)
    (old / "pytorch_model.bin").unlink()
    (old / "pytorch_model.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: got a link that leads nowhere"):
        converted(old, new)
    (old / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="old: got no pickled weights, allowed: pytorch_model"):
        converted(old, new)
    (old / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="old: got safetensors already"):
        converted(old, new)
    assert not new.exists()
    new.mkdir()
    (new / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="out: got .*new', which is there; allowed: a new folder"):
        convert(old, new)
    with pytest.raises(ValueError, match="folder: got .*nowhere', no such folder"):
        convert(tmp_path / "nowhere", new)


def test_a_tokenizer_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(folder)
    torch.save({"a": torch.zeros(2)}, folder / "pytorch_model.bin")
    said = converted(folder, tmp_path / "new")
    assert "tokenizer.json: none (no vocabulary file)" in said
    (folder / "vocab.json").write_text("{}")
    said = converted(folder, tmp_path / "again")
    assert "tokenizer.json: none (transformers finds no vocabulary of it)" in said
