"""Models of odd shapes: what the plan accepts, captures and measurements can do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.kinds import KINDS, digest_for
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.plan import Plan, make_plan
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.protocols import TOKENS_PER_UNIT
from scaleinv_ray.records import Protocol
from scaleinv_ray.runs.analysis import as_planned
from scaleinv_ray.store import Store

ALPHABET = "ACDEFGHIKL\nM"
SMALL: dict[str, Any] = {
    "vocab_size": len(ALPHABET), "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64},
    "gpt_neox": {"intermediate_size": 12},
    "llama": {"intermediate_size": 12, "num_key_value_heads": 1, "pad_token_id": 0},
    "opt": {"ffn_dim": 20, "word_embed_proj_dim": 8, "pad_token_id": 0},
}


def letters_model(folder: Path, kind: str, **more: Any) -> Path:
    """A model of random weights over twelve letters, with a tokenizer of a token a letter."""
    own = {"gpt2": ("vocab_size", "bos_token_id", "eos_token_id")}.get(kind, tuple(SMALL))
    settings = {name: SMALL[name] for name in own} | SHAPES[kind] | more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **settings)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    vocab = {letter: i for i, letter in enumerate(ALPHABET)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of texts over these letters."""
    file = tmp_path_factory.mktemp("letters") / "letters.jsonl"
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(ALPHABET[:10]), size=90)) for _ in range(400)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def config_of(letters: Path, *folders: Path, **more: Any) -> RunConfig:
    return load_run_config({
        "name": "odd", "models": [{"path": str(folder)} for folder in folders],
        "variants": ["trained"], "probes": [{"name": "letters", "file": str(letters)}],
        "invariants": "all", "out": "nowhere", "protocol": {"sequences": 128},
    } | more)  # fmt: skip


def made(config: RunConfig, plan: Plan, scratch: Path) -> dict[str, int]:
    """Captures and measures in this process; the statuses of all rows."""
    store = Store(str(scratch))
    work = jobs_for(plan, plan.measurements, config, scratch=scratch / "captures", run_id="r")
    for job in work.captures:
        outcome = Capturer(num_threads=1, num_gpus=0).capture(job, work.tokens)
        assert not outcome.failed
    counts = [measure(job, store).counts for job in work.measurements]
    return {status: sum(c[status] for c in counts) for status in ("ok", "refused", "failed")}


@pytest.mark.parametrize("kind", SHAPES)
def test_no_capture_fails_that_the_plan_accepts(kind: str, letters: Path, tmp_path: Path) -> None:
    folder = letters_model(tmp_path / kind, kind)
    sections = {
        "curvature": {"sequences": 4, "num_steps": 40, "num_probes": 2, "sketch": 8,
                      "blocks": ["model", "layer", "attention", "mlp", "embedding"]},
        "sampling": {"sequences": 4, "batch": 2, "chains": 2, "draws": 20, "burn_in": 8,
                     "nbetas": [4.0], "localisers": [1.0]},
        "circuits": {"probes": ["induction"], "sequences": 8, "edges": True},
    }  # fmt: skip
    config = config_of(letters, folder, **sections)
    plan = make_plan(config)
    assert {m.kind for m in plan.measurements} == set(KINDS) - {"masked_losses"}
    assert (plan.protocol.length, plan.protocol.position) == (64, 32)
    assert plan.protocol.vocab_rows == 12
    counts = made(config, plan, tmp_path / "run")
    assert counts["failed"] == 0
    assert counts["ok"] > 40


def test_defaults_fit_the_smallest_model_and_that_is_said(letters: Path, tmp_path: Path) -> None:
    folders = [letters_model(tmp_path / kind, kind) for kind in ("gpt2", "llama")]
    plan = make_plan(config_of(letters, *folders))
    assert plan.protocol.stream_units == 12, "neurons of the narrower MLP"
    said = [line for line in plan.fitted if line.startswith("protocol")]
    fields = [line.split(":")[0].removeprefix("protocol.") for line in said]
    assert fields == ["length", "position", "blocks", "stream_units", "vocab_rows"]
    assert said[-1] == "protocol.vocab_rows: 12 for the default 64, the most that the series has"


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({"length": 65}, r"protocol\.length: got 65, allowed 1\.\.64 \(positions of model gpt2"),
        ({"position": 100}, r"protocol\.position: got 100, allowed 0\.\.63"),
        ({"vocab_rows": 13}, r"protocol\.vocab_rows: got 13, allowed 1\.\.12 \(vocabulary"),
        ({"stream_units": 33}, r"protocol\.stream_units: got 33, allowed 1\.\.32 \(MLP neurons"),
    ],
)
def test_what_was_set_is_refused(
    protocol: dict[str, int], said: str, letters: Path, tmp_path: Path
) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ValueError, match=said):
        make_plan(config_of(letters, folder, protocol={"sequences": 128} | protocol))


def test_streams_fit_the_tokens_there_are(letters: Path, tmp_path: Path) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2", n_positions=8)
    config = config_of(letters, folder)
    plan = make_plan(config)
    assert (plan.protocol.length, plan.protocol.stream_units) == (8, 128 * 8 // TOKENS_PER_UNIT)
    assert made(config, plan, tmp_path / "run")["failed"] == 0


@pytest.mark.parametrize("positions", [1, 2])
def test_a_context_without_room_for_a_text_is_refused(
    positions: int, letters: Path, tmp_path: Path
) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2", n_positions=positions)
    said = rf"models: gpt2 has {positions} positions, 1 special tokens .*allowed: 3 positions"
    with pytest.raises(ValueError, match=said):
        make_plan(config_of(letters, folder, special_tokens=["A"]))


def test_chains_that_would_say_nothing_are_refused(letters: Path, tmp_path: Path) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2")
    chains = {"sequences": 4, "batch": 2, "chains": 2, "draws": 12}
    make_plan(config_of(letters, folder, sampling=chains | {"burn_in": 4}))
    with pytest.raises(
        ValueError, match=r"sampling.draws: got 12 with burn_in 5, allowed: burn_in"
    ):
        make_plan(config_of(letters, folder, sampling=chains | {"burn_in": 5}))


def test_points_follow_the_rows_of_the_smallest_cloud(letters: Path, tmp_path: Path) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2")
    given = {"topology.persistence": {"num_points": 20}, "all": {}}
    config = config_of(letters, folder, invariants=given)
    plan = make_plan(config)
    planned = {m.invariant: json.loads(m.params) for m in plan.measurements}
    assert planned["topology.persistence"]["num_points"] == 20, "as it was set"
    assert planned["topology.merge_tree"]["num_points"] == 64, "two parts of 128 rows"
    assert planned["topology.merge_tree"]["num_sizes"] == 3
    neighbours = planned["geometry.neighbour_dimension"]
    assert neighbours["num_points"] == 96
    assert neighbours["num_subsamples"] * (2 * neighbours["max_neighbour_order"] + 1) <= 96
    (line,) = [line for line in plan.fitted if line.startswith("points")]
    assert line.startswith("points fitted to the 128 distinct rows of a cloud: ")
    assert "persistence 20" not in line
    written = as_planned(config, plan)
    assert isinstance(written.invariants, dict) and written.protocol == plan.protocol
    assert written.invariants["topology.merge_tree"] == {"num_points": 64, "num_sizes": 3}
    assert written.invariants["topology.persistence"] == {"num_points": 20}
    again = make_plan(load_run_config(written.model_dump(mode="json")))
    assert keys(again) == keys(plan) and not again.fitted
    assert made(config, plan, tmp_path / "run")["failed"] == 0


# ------------------------------------------------------------------ keys


def keys(plan: Plan) -> dict[str, str]:
    return {m.invariant: m.key for m in plan.measurements}


@pytest.mark.parametrize(
    ("changed", "reader"),
    [
        ({"vocab_rows": 8}, "jacobians"),
        ({"attention_sequences": 3}, "attention"),
        ({"stream_units": 9}, "stream"),
        ({"tokens_per_dim": 40}, "moments"),
    ],
)
def test_what_one_kind_alone_reads_enters_its_keys_alone(
    changed: dict[str, int], reader: str, letters: Path, tmp_path: Path
) -> None:
    folder = letters_model(tmp_path / "gpt2", "gpt2")
    before = make_plan(config_of(letters, folder))
    after = make_plan(config_of(letters, folder, protocol={"sequences": 128} | changed))
    kind_of = {m.invariant: m.kind for m in before.measurements}
    other = {name for name, key in keys(after).items() if keys(before)[name] != key}
    assert other == {name for name, kind in kind_of.items() if kind == reader}
    for name in before.tokens:
        np.testing.assert_array_equal(before.tokens[name].tokens_ST, after.tokens[name].tokens_ST)


def test_the_digest_of_a_kind_is_that_of_the_protocol_where_others_set_nothing() -> None:
    plain = Protocol(sequences=512, length=72, jacobian_positions=4)
    assert {digest_for(plain, kind) for kind in (None, *KINDS)} == {plain.digest()}
    rows = Protocol(sequences=512, length=72, jacobian_positions=4, vocab_rows=9)
    assert digest_for(rows, "jacobians") == rows.digest() != plain.digest()
    assert digest_for(rows, "moments") == plain.digest()
