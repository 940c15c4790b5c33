"""Models of one alphabet of 33 symbols, trained on documents that begin with a tag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.config import RunConfig, load_run_config
from scaleinv_ray.plan import Plan, ProbeTokens
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.store import read_records

LETTERS = "abcdefghijklmnopqrstuvwxyz-*"
TAGS = "12"
VOCABULARY = {t: i for i, t in enumerate(["[UNK]", "[BOS]", "[PAD]", *TAGS, *LETTERS])}
LENGTH = 48
SURE = 0.85
"""Share of letters that tag and place determine; the others are uniform."""

PROTOCOL = {
    "sequences": 40, "length": LENGTH, "position": 20, "tokens_per_dim": 4, "stream_units": 8,
    "jacobian_positions": 2, "attention_sequences": 2, "vocab_rows": 8,
}  # fmt: skip


def alphabet(*, template: bool = True, unknown: bool = True) -> Tokenizer:
    """A token a symbol, `[BOS]` before a text; what is no symbol is [UNK], or else left out."""
    made = Tokenizer(
        models.WordLevel(VOCABULARY, unk_token="[UNK]") if unknown else models.BPE(VOCABULARY, [])
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.add_special_tokens(["[UNK]", "[BOS]", "[PAD]"])
    if template:
        made.post_processor = processors.TemplateProcessing(
            single="[BOS] $A", special_tokens=[("[BOS]", VOCABULARY["[BOS]"])]
        )
    return made


def documents(count: int, *, seed: int = 0, length: int = LENGTH, tail: int = 0) -> list[str]:
    """Texts of one language, whatever the seed: a tag, then letters that follow from the place.

    Args:
        tail: letters at the end of which there may be more.
    """
    rng, fixed = np.random.default_rng([seed, 1]), np.random.default_rng(7)
    motif_KT = fixed.integers(26, size=(len(TAGS), length - 1))
    kind_N = rng.integers(len(TAGS), size=count)
    letter_NT = rng.integers(26, size=(count, length - 1))
    sure_NT = rng.random((count, length - 1)) < SURE
    letter_NT = np.where(sure_NT, motif_KT[kind_N], letter_NT)
    more_NT = [rng.integers(26, size=rng.integers(tail + 1)).tolist() for _ in range(count)]
    return [
        TAGS[kind] + "".join(LETTERS[i] for i in [*row, *more])
        for kind, row, more in zip(kind_N, letter_NT.tolist(), more_NT, strict=True)
    ]


def json_file(file: Path, texts: list[str]) -> Path:
    """The texts as JSON lines."""
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return file


def saved(
    folder: Path, tokenizer: Tokenizer, *, width: int = 16, steps: int = 0, **config: Any
) -> Path:
    """A GPT-2 of two blocks, trained for so many steps on what its tokenizer makes of documents."""
    made = {"n_positions": LENGTH + 2, "n_head": 2, "n_layer": 2} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.GPT2LMHeadModel(
            tf.GPT2Config(
                vocab_size=len(VOCABULARY), n_embd=width, resid_pdrop=0.0, embd_pdrop=0.0,
                attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, **made,
            )
        )  # fmt: skip
    if steps:
        ids = [e.ids for e in tokenizer.encode_batch(documents(2000, seed=5))]
        _train(model, torch.tensor(ids), steps)
    model.eval().save_pretrained(folder)
    tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="[BOS]"
    ).save_pretrained(folder)
    return folder


def _train(model: tf.GPT2LMHeadModel, ids_NT: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = ids_NT[torch.randint(len(ids_NT), (64,), generator=generator)]
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def token_files(folder: Path) -> dict[str, Path]:
    ids_NT = np.random.default_rng(0).integers(33, size=(50, LENGTH + 3))
    np.save(folder / "a.npy", ids_NT.astype(np.uint16))
    rows = ids_NT.tolist()
    pq.write_table(pa.table({"input_ids": rows}), folder / "lists.parquet")
    ragged = [[1, 2], *rows]
    pq.write_table(pa.table({"input_ids": ragged}), folder / "ragged.parquet")
    fixed = pa.array(rows, pa.list_(pa.int32(), LENGTH + 3))
    pq.write_table(pa.table({"input_ids": fixed}), folder / "fixed.parquet")
    names = ("a.npy", "lists.parquet", "ragged.parquet", "fixed.parquet")
    return {name: folder / name for name in names}


def config(model: Path, probe: dict[str, Any], out: Path, **more: Any) -> RunConfig:
    given = {
        "name": "x", "models": [{"path": str(model)}], "variants": ["trained"], "probes": [probe],
        "protocol": PROTOCOL, "invariants": ["behaviour.capabilities"], "out": str(out),
    }  # fmt: skip
    return load_run_config(given | more)


def given(plan: Plan) -> ProbeTokens:
    (tokens,) = plan.tokens.values()
    return tokens


def losses(plan: Plan, config: RunConfig) -> tuple[np.ndarray, Any]:
    """Losses [sequences, tokens] that a run captures, and the outcome of the capture."""
    scratch = Path(config.out) / "captures"
    work = jobs_for(plan, plan.measurements, config, scratch=scratch, run_id="r")
    (job,) = work.captures
    outcome = Capturer(num_threads=1, num_gpus=0).capture(job, work.tokens)
    assert not outcome.failed
    (record,) = read_records(Path(job.paths()[0]))
    return record.loss_ST, outcome


def by_labels(folder: Path, tokens_ST: np.ndarray, left_out: int) -> list[float]:
    """Loss of each document as the model's own class says it."""
    net = tf.AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for row in torch.from_numpy(tokens_ST.astype(np.int64)):
        labels = row.clone()
        labels[: left_out + bool(left_out)] = -100  # nobody has asked for the tag
        with torch.inference_mode():
            found.append(float(net(input_ids=row[None], labels=labels[None]).loss))
    return found
