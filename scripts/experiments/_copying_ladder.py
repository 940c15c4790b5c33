"""A ladder of attention-only models that learn nothing but to copy: four widths, five seeds.

Sequences of 32 letters are repeated with a period of their own, so that only what followed the last
occurrence of a letter tells the next one (Olsson et al. 2022). Two layers, heads of width 8, the
learning rate inversely as the width, the same batches at every width.

Shape suffixes: S sequences, T tokens.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from scaleinv_ray.attention_only import modeling
from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig
from scaleinv_ray.ladder.checkpoint import write_checkpoint
from scaleinv_ray.ladder.folders import read_training, step_folder

assert modeling, "importing the module makes the architecture known to AutoModelForCausalLM"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEF"
END = "<|endoftext|>"


@dataclass(frozen=True)
class Copying:
    """How the models are made, all of them alike but for width and seed."""

    steps: tuple[int, ...] = (0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 800)
    depth: int = 2
    head_dim: int = 8
    length: int = 48
    periods: tuple[int, int] = (8, 16)
    batch: int = 24
    rate: float = 4e-3
    """At width 64."""


def trained(plan: Copying, width: int, seed: int, out: Path) -> Path:
    """The checkpoints of a run; what an earlier call has finished is not made again.

    Returns:
        The folder of the run.

    Raises:
        ValueError: where the folder holds a run of another plan.
    """
    folder = out / f"d{width}-s{seed}"
    made = json.loads(json.dumps(asdict(plan)))
    last = read_training(step_folder(folder, plan.steps[-1]))
    if last is not None:
        if last["config"] != made:
            raise ValueError(f"{folder}: got a run of another plan, allowed: this one, or --out")
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what was interrupted
    for step, loss, model in _steps(plan, width, seed):
        facts = {
            "step": step, "seed": seed, "train_tokens": step * plan.batch * plan.length,
            "eval_loss": loss, "config": made,
        }  # fmt: skip
        write_checkpoint(step_folder(folder, step), model, tokenizer(), facts)
    return folder


def _steps(plan: Copying, width: int, seed: int) -> Iterator[tuple[int, float, PreTrainedModel]]:
    """Step, held-out loss and model at every checkpoint."""
    model = _built(plan, width, seed)
    rate = plan.rate * 64 / width
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    held_out_ST = _rows(plan, 128, np.random.default_rng(10**6))
    for step in range(plan.steps[-1] + 1):
        if step in plan.steps:
            model.eval()
            with torch.no_grad():
                yield step, float(_loss(model, held_out_ST)), model
            model.train()
        loss = _loss(model, _rows(plan, plan.batch, np.random.default_rng((seed, step))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _rows(plan: Copying, count: int, rng: np.random.Generator) -> torch.Tensor:
    low, high = plan.periods
    block_ST = rng.integers(len(LETTERS), size=(count, plan.length))
    period_S1 = rng.integers(low, high + 1, size=(count, 1))
    again_ST = np.arange(plan.length)[None] % period_S1
    return torch.from_numpy(np.take_along_axis(block_ST, again_ST, axis=1))


def _loss(model: PreTrainedModel, ids_ST: torch.Tensor) -> torch.Tensor:
    logits_STV = model(ids_ST, use_cache=False).logits[:, :-1]
    return cross_entropy(logits_STV.flatten(0, 1), ids_ST[:, 1:].flatten())


def _built(plan: Copying, width: int, seed: int) -> PreTrainedModel:
    end = len(LETTERS)
    config = AttentionOnlyConfig(
        vocab_size=end + 1, hidden_size=width, num_hidden_layers=plan.depth,
        num_attention_heads=width // plan.head_dim, max_position_embeddings=plan.length,
        initializer_range=1 / math.sqrt(width), bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter, and one for the end of text."""
    vocab = {letter: index for index, letter in enumerate(LETTERS)}
    letters = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    letters.decoder = decoders.Fuse()
    letters.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=letters, bos_token=END, eos_token=END)
