"""Names of steps, and folders that hold no model: each says in one line what it is."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints.files import headers
from scaleinv_ray.checkpoints.files.layouts import no_logits
from scaleinv_ray.checkpoints.finding.steps import model_of, run_of, step_of, tokens_of
from scaleinv_ray.cli import app
from tests.checkpoints.test_series import tensors, write, write_run, write_sharded

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def refusal(folder: Path, **options: object) -> str:
    """What is said of a folder: one line of bounded length beside the path."""
    with pytest.raises(ValueError) as refused:
        checkpoints.from_folder(folder, cache_dir=folder.parent / "cache", **options)
    said = str(refused.value)
    assert "\n" not in said and len(said.replace(str(folder), "")) < 300
    return said


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "step", "run", "tokens"),
    [
        ("step-000300", 300, "", None),
        ("step_300", 300, "", None),
        ("step300", 300, "", None),
        ("checkpoint-500", 500, "", None),
        ("ckpt_100", 100, "", None),
        ("global_step1000", 1000, "", None),
        ("iter_0001000", 1000, "", None),
        ("epoch=3-step=1000.ckpt", 1000, "", None),
        ("model-step-100", 100, "", None),
        ("stage1-step1000-tokens4B", 1000, "", 4 * 10**9),
        ("stage2-ingredient1-step9000-tokens38B", 9000, "", 38 * 10**9),
        ("step143000-unsharded", 143000, "", None),
        ("step-10-tokens-1.5T", 10, "", 15 * 10**11),
        ("300Btokens", None, "300Btokens", 3 * 10**11),
        ("multiberts-seed_0-step_20k", 20000, "multiberts-seed_0", None),
        ("olmo-step1000", 1000, "olmo", None),
        ("checkpoint-2-step-500", 500, "", None),
        ("pythia-70m", None, "pythia-70m", None),
        ("main", None, "main", None),
        ("timesteps-5", None, "timesteps-5", None),
        ("step-300b", None, "step-300b", None),
        ("step1.5", None, "step1.5", None),
        ("step-1-step-2", None, "step-1-step-2", None),
        ("step-" + "9" * 30, None, "step-" + "9" * 30, None),
        ("step-٣٠٠", None, "step-٣٠٠", None),
    ],
)
def test_names_say_steps(name: str, step: int | None, run: str, tokens: int | None) -> None:
    assert (step_of(name), run_of(name), tokens_of(name)) == (step, run, tokens)


def test_a_step_is_named_after_its_run() -> None:
    assert model_of(Path("runs/d64/checkpoint-500")) == "d64"
    assert model_of(Path("models/olmo-step1000")) == "olmo-step1000"


@pytest.mark.parametrize("name", ["step_{}", "step{}", "checkpoint-{}", "stage1-step{}-tokens4B"])
def test_runs_of_others_are_runs(name: str, tmp_path: Path) -> None:
    for step in (0, 20, 100):
        write(tmp_path / "run" / name.format(step), tensors(step))
    found = checkpoints.from_folder(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert [(c.model, c.step) for c in found] == [("run", 0), ("run", 20), ("run", 100)]
    assert {c.init_folder for c in found} == {found[0].folder}
    assert {c.train_tokens for c in found} == {4 * 10**9 if "tokens" in name else None}
    one = checkpoints.from_folder(tmp_path / "run" / name.format(20), cache_dir=tmp_path / "cache")
    assert one == [found[1]]


def test_two_folders_of_one_step_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("step-1", "step-0001"):
        write(tmp_path / "models" / "run" / name)
    said = refusal(tmp_path / "models" / "run")
    assert "step-0001 and step-1 are both step 1" in said
    with pytest.raises(ValueError, match="step-0001 and step-1 are both step 1"):
        checkpoints.from_ladder(tmp_path / "models")


def test_steps_of_two_runs_are_no_run(tmp_path: Path) -> None:
    for name in ("olmo-step10", "pythia-step20"):
        write(tmp_path / "mixed" / name)
    assert "steps of several runs (olmo, pythia)" in refusal(tmp_path / "mixed")
    (c,) = checkpoints.from_folder(tmp_path / "mixed" / "olmo-step10", cache_dir=tmp_path / "cache")
    assert (c.model, c.step) == ("olmo-step10", 10)


def test_of_many_steps_the_nearest_are_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tuple(range(0, 400, 10)))
    said = refusal(run, steps=[203, 1])
    assert said.endswith("steps: got [1, 203], available [0, 10, 20, 30, 40] and 35 more")


# ------------------------------------------------------------------ folders that hold no model


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a PEFT adapter"),
        (["adapter_config.json", "adapter_model.bin"], "a PEFT adapter"),
        (["model_index.json", "unet/weights.safetensors"], "a diffusers pipeline"),
        (["config.json", "model-00001-of-00002.safetensors"], "shards without"),
        (["config.json", "model.safetensors.incomplete"], "not finished"),
        (["config.json", ".cache/huggingface/download/x.incomplete"], "not finished"),
        (["zero_to_fp32.py", "global_step10/mp_rank_00_model_states.pt"], "a DeepSpeed checkpoint"),
        (["latest_checkpointed_iteration.txt"], "a Megatron checkpoint"),
        (["mp_rank_00/model_optim_rng.pt"], "a Megatron checkpoint"),
        ([".metadata", "__0_0.distcp"], "shards of torch.distributed"),
        (["tiny.Q4_K_M.gguf"], "GGUF weights"),
        (["config.json", "onnx/model.onnx"], "an ONNX export"),
        (["model.onnx"], "an ONNX export"),
        (["consolidated.00.pth", "params.json"], "its maker's own format"),
        (["tf_model.h5", "config.json"], "another framework"),
        (["snapshots/abc/config.json", "refs/main", "blobs/x"], "the hub's cache"),
        (["pytorch_model.bin", "config.json"], "pickled weights ['pytorch_model.bin']"),
        (["config.json"], "no weights; allowed"),
        (["epoch-1/config.json", "logs/x"], "no weights, but folders epoch-1/, logs/; allowed"),
        (["config.json", "optimizer.pt", "rng_state_0.pth"], "no weights; allowed"),
    ],
)
def test_a_folder_without_a_model_says_what_it_is(
    files: list[str], said: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text("{}")
    assert said in refusal(tmp_path / "x")
    write(tmp_path / "run" / "step-1")
    shutil.copytree(tmp_path / "x", tmp_path / "run" / "step-2")
    assert "step-2: got " in refusal(tmp_path / "run")


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "sharded")
    for name in ("model-00002-of-00002.safetensors", "tokenizer.json", "config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to("blobs/gone")
        assert f"{name}: a link to 'blobs/gone', which is not there" in refusal(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)
    (tmp_path / "models" / "run").mkdir(parents=True)
    (tmp_path / "models" / "run" / "step-3").symlink_to(tmp_path / "gone")
    assert "step-3: a link to " in refusal(tmp_path / "models" / "run")
    (tmp_path / "models" / "other").symlink_to("other")
    with pytest.raises(ValueError, match="other: a link to 'other'"):
        checkpoints.from_ladder(tmp_path / "models")


def test_an_index_without_its_shards_counts_them(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "half")
    weight_map = {f"w{i}": f"model-{i:05d}-of-00020.safetensors" for i in range(1, 21)}
    (folder / headers.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    part = folder / ".cache" / "huggingface" / "download" / "model-00003.abc.incomplete"
    part.parent.mkdir(parents=True)
    part.write_text("")
    said = refusal(folder)
    assert "and 18 more of the 20 in model.safetensors.index.json are missing" in said
    assert "a download has not finished: .cache/huggingface/download/model-00003" in said


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "training.json"]
)
def test_what_git_lfs_left_is_said(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "cloned", step=1)
    (folder / name).write_text(LFS)
    assert f"{name}: a git LFS pointer" in refusal(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "weight_map: got None"),
        ({"weight_map": []}, r"weight_map: got \[\]"),
        ({"weight_map": {"w": 3}}, "weight_map: 'w': got 3, allowed: the name of a file"),
        ({"weight_map": {"w": ["a"]}}, r"'w': got \['a'\]"),
    ],
)
def test_an_index_of_another_form_is_refused(index: dict, said: str, tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "odd")
    (folder / headers.INDEX).write_text(json.dumps(index))
    assert re.search(said, refusal(folder))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"step": "3"}, "step: got '3', allowed: a whole number from 0"),
        ({"step": [3]}, "step: got [3]"),
        ({"seed": 0.5}, "seed: got 0.5, allowed: a whole number"),
        ({"train_tokens": -5}, "train_tokens: got -5"),
        ({"eval_loss": "low"}, "eval_loss: got 'low', allowed: a finite number"),
        ({"eval_loss": float("nan")}, "eval_loss: got nan, allowed: finite numbers"),
        ({"eval_loss": 10**400}, "eval_loss: got 1000"),
        ({"eval_loss": True}, "eval_loss: got True"),
    ],
)
def test_a_training_json_of_other_values_is_refused(
    training: dict, said: str, tmp_path: Path
) -> None:
    assert f"training.json: {said}" in refusal(write(tmp_path / "odd", **training))


# ------------------------------------------------------------------ models without logits


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["BertModel"]}, "an encoder (BertModel)"),
        ({"model_type": "distilbert"}, "an encoder (distilbert)"),
        ({"model_type": "roberta"}, None),
        ({"model_type": "bert", "architectures": ["BertModel"]}, None),
        ({"model_type": "esm", "architectures": ["EsmForMaskedLM"]}, None),
        ({"model_type": "bert", "architectures": ["BertForTokenClassification"]}, "a model with"),
        ({"architectures": ["T5Model"], "is_encoder_decoder": True}, "an encoder and decoder"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "a model with another head"),
        ({"architectures": ["BertLMHeadModel"], "is_decoder": True}, None),
        ({"architectures": ["BertForMaskedLM"]}, None),
        ({"architectures": ["LlamaForCausalLM"]}, None),
        ({"architectures": ["AlbertaForCausalLM"]}, None),
        ({"model_type": "llama"}, None),
        ({"architectures": None, "model_type": "gpt2"}, None),
    ],
)
def test_what_gives_no_logits(config: dict, said: str | None) -> None:
    found = no_logits(config)
    assert found is said if said is None else str(found).startswith(said)


def encoder(folder: Path) -> Path:
    from transformers import ElectraConfig, ElectraModel

    config = ElectraConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        vocab_size=20, max_position_embeddings=16, embedding_size=16,
    )  # fmt: skip
    ElectraModel(config).save_pretrained(folder)
    return folder


def test_an_encoder_that_captures_do_not_know_has_weights_and_no_captures(tmp_path: Path) -> None:
    config = {
        "name": "t", "models": [{"path": str(encoder(tmp_path / "mini"))}],
        "variants": ["trained"], "invariants": ["weights.weight_tail"],
        "protocol": {"length": 8, "position": 4}, "out": str(tmp_path / "out"),
    }  # fmt: skip
    file = tmp_path / "series.yaml"
    file.write_text(json.dumps(config))
    planned = CliRunner().invoke(app, ["plan", str(file)])
    assert planned.exit_code == 0, planned.output
    assert "mini: an encoder (ElectraModel); weights alone can be measured" in planned.output
    file.write_text(json.dumps(config | {"invariants": ["topology.persistence"]}))
    refused = CliRunner().invoke(app, ["plan", str(file)])
    assert "mini is an encoder (ElectraModel), no causal language model" in str(refused.exception)


def test_the_plan_says_what_is_not_used(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 10))
    (run / "step-000010" / "optimizer.pt").write_text("")
    config = {
        "name": "t", "models": [{"path": str(run)}], "variants": ["trained"],
        "invariants": ["weights.weight_tail"], "out": str(tmp_path / "out"),
    }  # fmt: skip
    file = tmp_path / "series.yaml"
    file.write_text(json.dumps(config))
    planned = CliRunner().invoke(app, ["plan", str(file)])
    assert f"{run}: not used: optimizer.pt\n" in planned.output, planned.output


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", (0, 10))
    os.mkdir(os.fsencode(run) + b"/\xff")
    (run / "two\nlines").mkdir()
    (line,) = checkpoints.unused([{"path": str(run)}])
    assert line.encode() and "'two\\nlines/'" in line.replace(" (no step in its name)", ""), line


@pytest.mark.parametrize("path", ["x" * 9999, "a\0b", "step-1"])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"got '.{1,200}, (no such folder; relative paths start .*|allowed: a path)$",
    ):
        checkpoints.from_folder(path)


def test_a_file_of_numbers_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"path: got .*x\.safetensors', a file, allowed: a folder"):
        checkpoints.from_folder(tmp_path / "x.safetensors")
