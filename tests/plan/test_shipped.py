"""The configs that are shipped, planned on the models that they name: headers without weights.

Those of the hub are run too, on small models in its place; of ladders see tests/cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen3Config,
)

from scaleinv_ray import tables
from scaleinv_ray.cluster.train import spec_of
from scaleinv_ray.conclude.concluding import conclude
from scaleinv_ray.config import RunConfig, load_run_config, load_train_config
from scaleinv_ray.config.reader import parse_yaml
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.ladder.architectures import model_config
from scaleinv_ray.ladder.spec import rungs
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import make_plan, plan_rows
from scaleinv_ray.runs.starting.reach import reach_lines
from scaleinv_ray.store import Store
from tests.plan.test_odd_shapes import made

SERIES = Path(__file__).parents[2] / "jobs" / "series"
PYTHIA = {  # Biderman et al. 2023, table 1, and its runs of other seeds: blocks, width, heads
    "14m": (6, 128, 4), "31m": (6, 256, 8), "70m": (6, 512, 8), "160m": (12, 768, 12),
    "410m": (24, 1024, 16),
}  # fmt: skip
PUBLISHED = json.loads((Path(__file__).parent / "published_configs.json").read_text())
"""Family -> repository -> what its config.json says of shapes."""
CLASSES = {"gpt2": GPT2Config, "qwen3": Qwen3Config, "smollm2": LlamaConfig, "olmo2": Olmo2Config}


def write_headers(folder: Path, config: PreTrainedConfig, step: int) -> None:
    """config.json, tokenizer.json and the header of the weights, whose bytes are a hole."""
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "step": str(step)}}
    end = 0
    for name, parameter in model.named_parameters():
        start, end = end, end + 2 * parameter.numel()
        shape = list(parameter.shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_model(folder: Path, config: PreTrainedConfig, step: int) -> None:
    """The same with weights, of a seed that is the step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def cached(
    hub: Path,
    repo: str,
    revisions: dict[str, PreTrainedConfig],
    write: Callable[[Path, PreTrainedConfig, int], None] = write_headers,
) -> None:
    """A repository in the cache of the hub: blobs by hash, snapshots of links, refs by name."""
    root = hub / f"models--{repo.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    for i, (name, config) in enumerate(revisions.items()):
        commit = hashlib.sha1(f"{repo} {name}".encode()).hexdigest()
        snapshot = root / "snapshots" / commit
        write(snapshot, config, i)
        for file in list(snapshot.iterdir()):
            # the weights are a hole of gigabytes: they are not read for their name
            blob = (
                root / "blobs" / hashlib.sha256(f"{repo} {name} {file.name}".encode()).hexdigest()
            )
            file.replace(blob)
            file.symlink_to(blob)
        (root / "refs" / name).write_text(commit)


def write_ladder(
    folder: Path, name: str, write: Callable[[Path, PreTrainedConfig, int], None], sizes: int = 9
) -> None:
    """The first and last steps of a ladder that is to be trained, of one seed a size."""
    of = spec_of(load_train_config(SERIES / name))
    first = [rung for rung in rungs(of) if rung.seed == 0][:sizes]
    for rung in first:
        for step in (0, of.steps):
            write(folder / rung.name / f"step-{step:06d}", model_config(of, rung), step)
            note = {"step": step, "seed": rung.seed}
            (folder / rung.name / f"step-{step:06d}" / "training.json").write_text(json.dumps(note))


def small(family: str, size: int) -> PreTrainedConfig:
    """What a family's class makes of two or three blocks of width 16 or 32."""
    width = (16, 32)[size]
    names = {"vocab_size": 256, "bos_token_id": 0, "eos_token_id": 0}
    if family == "gpt2":
        return GPT2Config(n_embd=width, n_layer=3, n_head=2, n_positions=64, **names)
    made = CLASSES.get(family, GPTNeoXConfig)
    grouped = {} if family == "pythia" else {"num_key_value_heads": 1}
    return made(
        num_hidden_layers=3, hidden_size=width, num_attention_heads=2, pad_token_id=None,
        intermediate_size=4 * width, max_position_embeddings=64, **names, **grouped,
    )  # fmt: skip


def yaml_of(name: str) -> dict[str, Any]:
    return dict(parse_yaml((SERIES / name).read_bytes(), name))


def shipped(name: str, **changes: Any) -> RunConfig:
    return load_run_config(yaml_of(name) | changes)


def check_it_runs(chosen: RunConfig, folder: Path) -> None:
    """Captured, measured, concluded and reported in this process, with nothing failed."""
    plan, store = make_plan(chosen), Store(chosen.out)
    counts = made(chosen, plan, folder / "run")
    assert counts["failed"] == 0
    assert counts["ok"] > counts["refused"]
    assert {m.unit.variant for m in plan.measurements} == {*chosen.variants}
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, set()), tables.PLAN))
    assert conclude(store, chosen).num_rows > 0
    assert store.exists("report.html")


def check_everything_is_planned(config: RunConfig) -> list[str]:
    plan = make_plan(config)
    asked = {n for n in REGISTRY if KINDS[REGISTRY[n].kind].is_asked(config.spectroscopy())}
    asked -= {n for n in asked if REGISTRY[n].kind == "masked_losses"}  # of encoders
    if len({u.checkpoint.step for u in plan.units}) == 1:
        asked -= {n for n in asked if REGISTRY[n].signature == "trajectory"}
    assert {m.invariant for m in plan.measurements} == asked
    rows = min(len(np.unique(t.tokens_ST[:, :65], axis=0)) for t in plan.tokens.values())
    points = [json.loads(m.params).get("num_points", 1) for m in plan.measurements]
    assert max(points) <= rows
    return reach_lines(plan)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


def words(folder: Path, bytes_each: int) -> list[str]:
    """A folder of prose and code; a tenth of the files is held out."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        letters = rng.integers(26, size=(bytes_each // 4, 4), dtype=np.uint8) + 97
        letters[:, 3] = 32
        (folder / f"{i}.{'py' if i % 2 else 'txt'}").write_text(letters.tobytes().decode())
    return [str(folder)]


def test_pythia_is_planned_with_three_seeds_and_verdicts_in_reach(hub: Path) -> None:
    for size, (blocks, width, heads) in PYTHIA.items():
        config = GPTNeoXConfig(
            num_hidden_layers=blocks, hidden_size=width, num_attention_heads=heads,
            intermediate_size=4 * width, vocab_size=50304, max_position_embeddings=2048,
        )  # fmt: skip
        steps = {f"step{step}": config for step in (0, 512, 1000, 3000, 143000)}
        for seed in (1, 2, 3):
            cached(hub, f"EleutherAI/pythia-{size}-seed{seed}", steps)
    reached = check_everything_is_planned(shipped("pythia.yaml"))
    assert reached == ["verdicts: can be reached: 5 sizes of 2 seeds or more"]


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_families_of_one_run_a_size_are_planned_and_say_what_they_lack(
    hub: Path, tmp_path: Path, family: str
) -> None:
    for repo, fields in PUBLISHED[family].items():
        cached(hub, repo, {"main": CLASSES[family](**fields)})
    of_users = family in {"qwen3", "olmo2"}  # the bundled text is too short for their widths
    text = {"corpus": words(tmp_path / "text", 600_000)} if of_users else {}
    (verdicts,) = check_everything_is_planned(shipped(f"{family}.yaml", **text))
    sizes = len(PUBLISHED[family])
    assert f"one seed at {sizes} of {sizes} sizes, needs 2 (3 wanted)" in verdicts


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pythia", *sorted(PUBLISHED)])
def test_series_of_the_hub_are_run_on_small_models(hub: Path, tmp_path: Path, family: str) -> None:
    """The first two sizes of each, much smaller; everything else but the texts is as shipped."""
    named = {
        m.get("name", m["hub"]): dict(m) for m in reversed(yaml_of(f"{family}.yaml")["models"])
    }
    models = list(reversed(named.values()))[:2]  # the first of each size
    for size, m in enumerate(models):
        revisions = ["main"]
        if "steps" in m:
            m["steps"] = [0, 143000]
            revisions = ["step0", "step143000"]
        cached(hub, m["hub"], dict.fromkeys(revisions, small(family, size)), write_model)
    check_it_runs(shipped(
        f"{family}.yaml", models=models, corpus=words(tmp_path / "text", 8_000),
        protocol={"sequences": 160, "length": 24, "position": 12}, out=str(tmp_path / "run"),
    ), tmp_path)  # fmt: skip


@pytest.mark.slow
def test_the_ladder_of_the_findings_is_run_on_its_smallest_models(tmp_path: Path) -> None:
    write_ladder(tmp_path / "models", "gpt2_ladder_models.yaml", write_model, sizes=2)
    models = [{"ladder": str(tmp_path / "models"), "steps": "all"}]
    protocol = yaml_of("gpt2_ladder.yaml")["protocol"] | {"tokens_per_dim": 4}
    check_it_runs(
        shipped("gpt2_ladder.yaml", models=models, protocol=protocol, out=str(tmp_path / "run")),
        tmp_path,
    )


def test_spectroscopy_of_the_ladder_is_planned(tmp_path: Path) -> None:
    write_ladder(tmp_path / "models", "ladder.yaml", write_headers)
    models = [{"ladder": str(tmp_path / "models"), "steps": "all"}]
    check_everything_is_planned(shipped("spectroscopy.yaml", models=models))
