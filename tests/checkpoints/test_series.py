"""Checkpoints found and described: shapes, parameter counts, identities, digests, refusals."""

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scaleinv_ray import checkpoints
from scaleinv_ray.checkpoints.files import headers
from scaleinv_ray.checkpoints.files.contents import is_buffer
from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.headers import check_planned
from scaleinv_ray.checkpoints.files.tied import stored_again

CONFIG = {
    "model_type": "gpt_neox",
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "vocab_size": 11,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
NUM_PARAMS = 11 * 8 + 8 * 8


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "gpt_neox.embed_in.weight": rng.normal(size=(11, 8)).astype(np.float32),
        "gpt_neox.layers.0.attention.dense.weight": rng.normal(size=(8, 8)).astype(np.float32),
    }


def write(folder: Path, weights: dict[str, np.ndarray] | None = None, **training: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors() if weights is None else weights, folder / headers.WEIGHTS)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    if training:
        (folder / "training.json").write_text(json.dumps(training))
    return folder


def write_run(run: Path, steps: tuple[int, ...] = (0, 10, 300), seed: int = 0) -> Path:
    for step in steps:
        told = {
            "step": step,
            "seed": seed,
            "train_tokens": step * 64,
            "eval_loss": 5.0 - step / 100,
        }
        write(run / f"step-{step:06d}", tensors(100 * seed + step), **told)
    return run


def write_sharded(folder: Path, **index: str) -> Path:
    write(folder)
    (folder / headers.WEIGHTS).unlink()
    first, second = tensors().items()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, tensor in zip(names, (first, second), strict=True):
        save_file(dict([tensor]), folder / name)
    weight_map = {first[0]: names[0], second[0]: names[1]} | index
    (folder / headers.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# ------------------------------------------------------------------ folders


def test_a_run_folder_gives_its_steps_in_order(tmp_path: Path, cache: Path) -> None:
    found = checkpoints.from_folder(write_run(tmp_path / "d8-s1", seed=1), cache_dir=cache)
    assert [c.step for c in found] == [0, 10, 300]
    last = found[-1]
    assert (last.model, last.seed, last.train_tokens, last.eval_loss) == ("d8-s1", 1, 19200, 2.0)
    assert (last.n_params, last.n_layers, last.d_model, last.d_mlp) == (NUM_PARAMS, 2, 8, 32)
    assert (last.vocab_size, last.max_positions, last.dtype) == (11, 64, "float32")
    assert last.architecture == "gpt_neox"
    assert last.folder == tmp_path / "d8-s1" / "step-000300"
    assert last.init_folder == tmp_path / "d8-s1" / "step-000000"
    assert last.init_digest == found[0].weights_digest != last.weights_digest
    assert last.tokenizer_digest == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("steps", "wanted"), [("all", [0, 10, 300]), ("last", [300]), ((300, 0), [0, 300])]
)
def test_steps_are_chosen(
    tmp_path: Path, cache: Path, steps: checkpoints.Steps, wanted: list
) -> None:
    run = write_run(tmp_path / "run")
    assert [c.step for c in checkpoints.from_folder(run, steps=steps, cache_dir=cache)] == wanted


def test_an_unknown_step_lists_those_available(tmp_path: Path, cache: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"steps: got \[11\], available \[0, 10, 300\]"):
        checkpoints.from_folder(run, steps=[10, 11], cache_dir=cache)


def test_a_single_checkpoint_takes_what_the_config_says(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "tiny")
    (c,) = checkpoints.from_folder(folder, step=7, seed=3, model="mine", cache_dir=cache)
    assert (c.model, c.step, c.seed, c.train_tokens, c.init_folder) == ("mine", 7, 3, None, None)
    (c,) = checkpoints.from_folder(folder, cache_dir=cache)
    assert (c.model, c.step, c.seed) == ("tiny", None, 0)


def test_a_step_folder_belongs_to_its_run(tmp_path: Path, cache: Path) -> None:
    run = write_run(tmp_path / "d8-s0")
    (c,) = checkpoints.from_folder(run / "step-000300", cache_dir=cache)
    assert (c.model, c.step, c.init_folder) == ("d8-s0", 300, run / "step-000000")
    assert c == checkpoints.from_folder(run, steps="last", cache_dir=cache)[0]


def test_the_initial_model_may_be_elsewhere(tmp_path: Path, cache: Path) -> None:
    init = write(tmp_path / "init", tensors(5))
    (c,) = checkpoints.from_folder(write(tmp_path / "tiny"), init=init, cache_dir=cache)
    assert (c.init_folder, c.init_digest) == (init, checkpoints.weights_digest(init, cache))
    assert checkpoints.fetch(c) == tmp_path / "tiny"
    assert checkpoints.fetch_init(c) == init


def test_paths_are_absolute_for_workers_elsewhere(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    folders = [c.folder for c in checkpoints.from_folder("run", cache_dir=cache)]
    assert folders == sorted((tmp_path / "run").iterdir())


def test_training_json_and_config_must_agree(tmp_path: Path, cache: Path) -> None:
    run = write_run(tmp_path / "run", seed=1)
    with pytest.raises(ValueError, match=r"seed: got 2, training\.json says 1"):
        checkpoints.from_folder(run, seed=2, cache_dir=cache)
    (run / "step-000010").rename(run / "step-000011")
    with pytest.raises(ValueError, match=r"step: got 11, training\.json says 10"):
        checkpoints.from_folder(run, cache_dir=cache)


def test_a_ladder_is_all_its_runs(tmp_path: Path, cache: Path) -> None:
    for seed in (1, 0):
        write_run(tmp_path / "models" / f"d8-s{seed}", seed=seed)
    (tmp_path / "models" / "_part-d8-s2").mkdir()
    (tmp_path / "models" / "ladder.json").write_text("{}")
    found = checkpoints.from_ladder(tmp_path / "models", "last", cache_dir=cache)
    assert [(c.model, c.seed, c.step) for c in found] == [("d8-s0", 0, 300), ("d8-s1", 1, 300)]


def test_folders_without_models_are_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match="path: got .*nowhere.*no such folder"):
        checkpoints.from_folder(tmp_path / "nowhere", cache_dir=cache)
    (tmp_path / "models" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="empty.*got no weights; allowed: model.safetensors"):
        checkpoints.from_ladder(tmp_path / "models", cache_dir=cache)
    with pytest.raises(ValueError, match="ladder: got .*empty.*without runs"):
        checkpoints.from_ladder(tmp_path / "models" / "empty", cache_dir=cache)


# ------------------------------------------------------------------ files that cannot be used


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "pytorch_model.bin.index.json"]
)
def test_pickled_weights_are_named_as_such(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "old")
    (folder / headers.WEIGHTS).rename(folder / name)
    with pytest.raises(ValueError, match=f"pickled weights.*{name}.*allowed: model.safetensors"):
        checkpoints.from_folder(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "sharded")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors.* missing"):
        checkpoints.from_folder(folder)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "other.safetensors")
    folder = write_sharded(tmp_path / "sharded", more="../other.safetensors")
    with pytest.raises(ValueError, match=r"\.\./other\.safetensors"):
        checkpoints.from_folder(folder)


def test_an_absent_tensor_in_the_index_is_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "sharded", ghost="model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match="'ghost' in model-00001-of-00002.safetensors"):
        checkpoints.from_folder(folder)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    folder = write(tmp_path / "cut")
    content = (folder / headers.WEIGHTS).read_bytes()
    (folder / headers.WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors: got \d+ bytes.*truncated"):
        checkpoints.from_folder(folder)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "odd")
    (folder / headers.WEIGHTS).write_bytes((4).to_bytes(8, "little") + b"not json")
    with pytest.raises(ValueError, match="not a safetensors file"):
        checkpoints.from_folder(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "d_model: got none, allowed: .*n_embd"),
        ({"quantization_config": {"quant_method": "gptq"}}, "no quantization_config"),
    ],
)
def test_a_config_that_does_not_say_enough(tmp_path: Path, change: dict, said: str) -> None:
    folder = write(tmp_path / "odd")
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(ValueError, match=said):
        checkpoints.from_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        checkpoints.from_folder(folder)


# ------------------------------------------------------------------ parameters


def test_buffers_are_not_parameters() -> None:
    kept = {"attention.dense.bias": (8,), "attn.c_attn.bias": (24,), "w": (3, 4)}
    buffers = {
        "h.0.attn.bias": ("F32", (1, 1, 64, 64)),
        "h.0.attn.masked_bias": ("F32", ()),
        "layers.0.attention.bias": ("BOOL", (1, 1, 64, 64)),
        "layers.0.attention.rotary_emb.inv_freq": ("F32", (4,)),
        "embeddings.position_ids": ("I64", (1, 64)),
    }
    found = {n: TensorHeader("F32", s) for n, s in kept.items()}
    found |= {n: TensorHeader(*t) for n, t in buffers.items()}
    assert {n for n, t in found.items() if not is_buffer(n, t.dtype, len(t.shape))} == set(kept)


@pytest.mark.parametrize(
    ("model_type", "said", "tied"),
    [
        ("llama", True, True),
        ("llama", False, False),
        ("llama", None, False),
        ("gpt2", None, True),
        ("gemma2", None, True),
        ("phi3", None, False),
        ("falcon", None, True),
    ],
)
def test_transformers_says_what_its_classes_tie(
    model_type: str, said: bool | None, tied: bool
) -> None:
    from scaleinv_ray.checkpoints.weights.ties import tied_names

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 5}
    config = {"model_type": model_type, "intermediate_size": 8, "pad_token_id": 0, **sizes}
    config |= {} if said is None else {"tie_word_embeddings": said}
    groups = [
        {name.rpartition(".")[0].rpartition(".")[2] for name in g} for g in tied_names(config)
    ]
    assert len(groups) == tied
    assert all("lm_head" in group and len(group) == 2 for group in groups)


def test_a_matrix_stored_twice_is_counted_as_its_class_has_it() -> None:
    both = {n: TensorHeader("F32", (5, 4)) for n in ("transformer.wte.weight", "lm_head.weight")}
    sizes = {"n_embd": 4, "n_layer": 1, "n_head": 2, "vocab_size": 5}
    config = {"model_type": "gpt2", **sizes}
    assert len(stored_again(both, config, vocab_size=5)) == 1
    assert stored_again(both, config | {"tie_word_embeddings": False}, vocab_size=5) == set()
    assert stored_again(both, config | {"model_type": "not known"}, vocab_size=5) == set()
    alone = {"lm_head.weight": both["lm_head.weight"]}
    assert stored_again(alone, config, vocab_size=5) == set()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_equal_those_of_transformers(tmp_path: Path, architecture: str, tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {"vocab_size": 64, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 0}
    if architecture == "gpt2":
        shape = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
    else:
        shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
                 "intermediate_size": 64, "max_position_embeddings": 32}  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **common, **shape))
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert (tmp_path / "model" / headers.INDEX).is_file()
    (c,) = checkpoints.from_folder(tmp_path / "model", cache_dir=tmp_path)
    assert c.n_params == model.num_parameters()
    assert (c.architecture, c.d_model, c.n_layers, c.d_mlp) == (architecture, 16, 3, 64)
    assert (c.vocab_size, c.max_positions, c.dtype) == (64, 32, "float32")


# ------------------------------------------------------------------ digests and identities


def test_a_digest_is_that_of_the_file_or_of_the_ordered_shards(tmp_path: Path, cache: Path) -> None:
    def sha(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    one, two = write(tmp_path / "one"), write_sharded(tmp_path / "two")
    assert checkpoints.weights_digest(one, cache) == sha((one / headers.WEIGHTS).read_bytes())
    shards = [sha(f.read_bytes()) for f in sorted(two.glob("model-*"))]
    assert checkpoints.weights_digest(two, cache) == sha("".join(shards).encode())
    assert sorted(p.name for p in one.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "one") / headers.WEIGHTS
    os.utime(file, (1e9, 1e9))
    first = checkpoints.weights_digest(file.parent, cache)
    hashed = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda s, n: hashed.append(s.name) or real(s, n))
    assert checkpoints.weights_digest(file.parent, cache) == first
    assert hashed == []
    save_file(tensors(1), file)  # the same size
    os.utime(file, (1e9 + 5, 1e9 + 5))
    assert checkpoints.weights_digest(file.parent, cache) != first
    assert hashed == [str(file)]


def test_a_file_exchanged_under_the_same_size_and_time_is_seen(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "one")
    file, other = folder / headers.WEIGHTS, write(tmp_path / "two", tensors(1)) / headers.WEIGHTS
    for path in (file, other):
        os.utime(path, (1e9, 1e9))
    first = checkpoints.weights_digest(folder, cache)
    check_planned(folder, checkpoints.weights_digest(folder))
    os.replace(other, file)  # as rsync -t and tar leave it
    assert file.stat().st_mtime == 1e9
    second = checkpoints.weights_digest(folder, cache)
    assert second != first
    with pytest.raises(ValueError, match="weights changed since it was planned"):
        check_planned(folder, first)
    with file.open("r+b") as stream:  # in place: the same inode
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\x00\x00\x80\x3f")
    os.utime(file, (1e9, 1e9))
    assert checkpoints.weights_digest(folder, cache) not in {first, second}


def test_a_file_still_being_written_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "one")
    now = (folder / headers.WEIGHTS).stat().st_mtime_ns
    first = checkpoints.weights_digest(folder, cache)
    save_file(tensors(1), folder / headers.WEIGHTS)
    os.utime(folder / headers.WEIGHTS, ns=(now, now))  # within the clock's grain
    assert checkpoints.weights_digest(folder, cache) != first


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    folder = write(tmp_path / "one")
    os.utime(folder / headers.WEIGHTS, (1e9, 1e9))
    blocked = tmp_path / "file"
    blocked.write_text("")
    content = (folder / headers.WEIGHTS).read_bytes()
    assert checkpoints.weights_digest(folder, blocked) == hashlib.sha256(content).hexdigest()


def test_versions_do_not_enter_the_digest_of_a_config(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "one")
    (first,) = checkpoints.from_folder(folder, cache_dir=cache)
    for change, equal in (({"transformers_version": "9"}, True), ({"num_hidden_layers": 3}, False)):
        (folder / "config.json").write_text(json.dumps(CONFIG | change))
        (c,) = checkpoints.from_folder(folder, cache_dir=cache)
        assert (c.config_digest == first.config_digest) is equal


def test_equal_weights_are_reported(tmp_path: Path, cache: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "step-000300" / headers.WEIGHTS).write_bytes(
        (run / "step-000010" / headers.WEIGHTS).read_bytes()
    )
    found = checkpoints.from_folder(run, cache_dir=cache)
    assert [(a.step, b.step) for a, b in checkpoints.equal_weights(found)] == [(10, 300)]


def test_two_models_of_one_identity_are_refused(tmp_path: Path, cache: Path) -> None:
    paths = [write_run(tmp_path / where / "d8-s0", (0, 10)) for where in ("a", "b")]
    sources = [{"path": str(p), "steps": "last"} for p in paths]
    with pytest.raises(ValueError, match=r"a/d8-s0/.* and .*b/d8-s0/.*'d8-s0', step 10, seed 0"):
        checkpoints.resolve(sources, cache_dir=cache)
    named = checkpoints.resolve([sources[0], sources[1] | {"name": "other"}], cache_dir=cache)
    assert [c.model for c in named] == ["d8-s0", "other"]
    with pytest.raises(ValueError, match="'d8-s0', with 152 and 153 parameters"):
        checkpoints.check_identities([
            named[0],
            dataclasses.replace(named[0], step=11, n_params=153),
        ])
    with pytest.raises(ValueError, match="got a name of 4000 characters, allowed: 255"):
        checkpoints.check_identities([dataclasses.replace(named[0], model="m" * 4000)])


def test_sources_are_mappings_or_objects(tmp_path: Path, cache: Path) -> None:
    @dataclasses.dataclass
    class Source:
        ladder: str
        steps: str
        name: None = None

    write_run(tmp_path / "models" / "d8-s0")
    by_object = checkpoints.resolve([Source(str(tmp_path / "models"), "last")], cache_dir=cache)
    by_mapping = checkpoints.resolve(
        [{"ladder": str(tmp_path / "models"), "steps": "last"}], cache_dir=cache
    )
    assert by_object == by_mapping
    assert len(by_object) == 1
    with pytest.raises(ValueError, match="allowed one of hub, path, ladder, records$"):
        checkpoints.resolve([{"folder": "x"}])


# ------------------------------------------------------------------ the hub

REPO = "lab/tiny-8m"


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def cache_layout(root: Path, revisions: dict[str, int]) -> None:
    """The hub's cache: blobs by hash, snapshots of links to them, refs by name."""
    repo = root / "models--lab--tiny-8m"
    (repo / "blobs").mkdir(parents=True)
    for name, seed in revisions.items():
        snapshot = repo / "snapshots" / commit_of(name)
        write(snapshot, tensors(seed))
        for file in list(snapshot.iterdir()):
            blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            file.replace(blob)
            file.symlink_to(blob)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / name).write_text(commit_of(name))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


def test_offline_the_cache_answers(offline: Path) -> None:
    cache_layout(offline, {"step0": 0, "step10": 1, "main": 2})
    found = checkpoints.from_hub(REPO, "step{step}", [10], seed=4, tokens_per_step=64)
    (c,) = found
    assert (c.model, c.seed, c.step, c.train_tokens) == ("tiny-8m", 4, 10, 640)
    assert (c.repo, c.revision, c.commit) == (REPO, "step10", commit_of("step10"))
    assert (c.init_commit, c.n_params, c.folder) == (commit_of("step0"), NUM_PARAMS, None)
    fetched, init = checkpoints.fetch(c), checkpoints.fetch_init(c)
    assert c.weights_digest == hashlib.sha256((fetched / headers.WEIGHTS).read_bytes()).hexdigest()
    assert init is not None
    assert c.init_digest == hashlib.sha256((init / headers.WEIGHTS).read_bytes()).hexdigest()
    assert c.tokenizer_file == fetched / "tokenizer.json"


def test_offline_an_unknown_step_lists_those_cached(offline: Path) -> None:
    cache_layout(offline, {"step10": 1, "step2": 1, "main": 2})
    with pytest.raises(ValueError, match=r"got 'step7', .*available steps \[2, 10\]"):
        checkpoints.from_hub(REPO, "step{step}", [7])
    with pytest.raises(ValueError, match=r"got 'v2', .*available \['main', 'step10', 'step2'\]"):
        checkpoints.from_hub(REPO, "v2")


def test_a_revision_of_its_own_has_at_most_one_step(offline: Path) -> None:
    cache_layout(offline, {"main": 0})
    (c,) = checkpoints.from_hub(REPO, steps=[143000])
    assert (c.step, c.init_commit) == (143000, None)
    assert checkpoints.fetch_init(c) is None
    assert checkpoints.from_hub(REPO)[0].step is None
    with pytest.raises(ValueError, match=r"steps: got \[1, 2\], allowed one"):
        checkpoints.from_hub(REPO, steps=[1, 2])


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that are needed, from folders `<root>/<revision>`.

    `fault` is answered instead, wherever `fault_on` is part of the path.
    """

    root: Path
    fault: tuple[int, bytes, dict[str, str]] | None = None
    fault_on = ""

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, content: bytes, **extra: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **extra}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        if self.fault is not None and self.fault_on in path:
            status, content, extra = self.fault
            return self._send(status, content, **extra)
        if path == f"api/models/{REPO}/refs":
            refs = [{"name": p.name, "ref": p.name, "targetCommit": commit_of(p.name)}
                    for p in sorted(self.root.iterdir())]  # fmt: skip
            return self._send(
                200, json.dumps({"branches": refs, "tags": [], "converts": []}).encode()
            )
        if path.startswith(f"api/models/{REPO}/revision/"):
            return self._info(path.rpartition("/")[2])
        if path.startswith(f"api/models/{REPO}/tree/"):
            return self._tree(path.rpartition("/")[2])
        _, found, rest = path.partition(f"{REPO}/resolve/")
        if not found:
            return self._send(404, b"{}", X_Error_Code="RepoNotFound")
        commit, _, name = rest.partition("/")
        named = {k: p for p in self.root.iterdir() for k in (p.name, commit_of(p.name))}
        file = named[commit] / name if commit in named else None
        if file is None or not file.is_file():
            return self._send(404, b"", X_Error_Code="EntryNotFound")
        content = file.read_bytes()
        etag = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Repo_Commit": commit_of(file.parent.name),
        }
        if asked := self.headers.get("Range"):
            start, end = (int(v) for v in asked.removeprefix("bytes=").split("-"))
            return self._send(206, content[start : end + 1], **etag)
        return self._send(200, content, **etag)

    def _files(self, revision: str) -> Iterator[tuple[str, str, int]]:
        """Name, sha256 and size of the files of a branch or commit."""
        folder = next(p for p in self.root.iterdir() if revision in {p.name, commit_of(p.name)})
        for file in sorted(folder.iterdir()):
            content = file.read_bytes()
            yield file.name, hashlib.sha256(content).hexdigest(), len(content)

    def _info(self, revision: str) -> None:
        names = {
            k: commit_of(p.name) for p in self.root.iterdir() for k in (p.name, commit_of(p.name))
        }
        if revision not in names:
            return self._send(404, b"{}", X_Error_Code="RevisionNotFound")
        siblings: list[dict] = []
        for name, sha256, size in self._files(revision):
            siblings.append({"rfilename": name, "size": size, "blobId": "0"})
            if name.endswith(".safetensors"):
                siblings[-1]["lfs"] = {"size": size, "sha256": sha256, "pointerSize": 1}
        info = {"id": REPO, "sha": names[revision], "siblings": siblings}
        return self._send(200, json.dumps(info).encode())

    def _tree(self, revision: str) -> None:
        tree = []
        for name, sha256, size in self._files(revision):
            lfs = {"oid": sha256, "size": size, "pointerSize": 1}
            tree.append({"type": "file", "path": name, "size": size, "oid": "0", "lfs": lfs})
        return self._send(200, json.dumps(tree).encode(), Content_Type="application/json")


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import close_session, constants

    close_session()  # one made offline stays so
    handler = type("Handler", (Hub,), {"root": tmp_path / "served"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield handler
    close_session()
    server.shutdown()
    thread.join()
    server.server_close()


def test_online_weights_are_described_before_they_are_fetched(
    online: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    write(online.root / "step0", tensors(0))
    write_sharded(online.root / "step10")
    for unwanted in ("pytorch_model.bin", "README.md", "modeling_tiny.py"):
        (online.root / "step10" / unwanted).write_text("")
    zero, ten = checkpoints.from_hub(REPO, "step{step}", [0, 10])
    assert not list((online.root.parent / "hub").rglob("*.safetensors"))
    assert (ten.n_params, ten.commit) == (NUM_PARAMS, commit_of("step10"))
    assert ten.weights_digest == checkpoints.weights_digest(online.root / "step10")
    assert (
        ten.init_digest == zero.weights_digest == checkpoints.weights_digest(online.root / "step0")
    )
    folder = checkpoints.fetch(ten)
    assert checkpoints.weights_digest(folder) == ten.weights_digest
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        headers.INDEX,
        "tokenizer.json",
    ]
    assert checkpoints.fetch_init(ten) == checkpoints.fetch(zero)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoints.from_hub(REPO, "step{step}", [0, 10]) == [zero, ten]


def test_online_what_cannot_be_used_is_said(online: type[Hub]) -> None:
    write(online.root / "step10")
    pickled = write(online.root / "step20")
    (pickled / headers.WEIGHTS).rename(pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"'step7', available steps \[10, 20\]"):
        checkpoints.from_hub(REPO, "step{step}", [7])
    with pytest.raises(ValueError, match=r"step20: got pickled weights \['pytorch_model.bin'\]"):
        checkpoints.from_hub(REPO, "step20")
    with pytest.raises(ValueError, match=r"hub: got 'lab/none', no such model"):
        checkpoints.from_hub("lab/none")
