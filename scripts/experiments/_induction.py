"""The attention-only model that learns to copy: its plan, its data, its behaviour, its losses.

Shape suffixes: S sequences, T tokens, D width, H heads, K width of a head, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from _experiment import Row
from torch.nn.functional import cross_entropy, layer_norm, one_hot
from transformers import AutoModelForCausalLM, PreTrainedModel

from scaleinv_ray.attention_only import modeling
from scaleinv_ray.attention_only.configuration import AttentionOnlyConfig
from scaleinv_ray.capture.by_kind.attention import eager_attention
from scaleinv_ray.capture.curvature.products import Parameters
from scaleinv_ray.ladder.data import evaluation_set, training_batch
from scaleinv_ray.ladder.tokenizer import END_OF_TEXT_ID, VOCAB_SIZE

assert modeling
RANDOM_IDS = 32
"""Repeated sequences are of the first ids: control characters, which prose hardly has."""
SMOOTHING = 0.1


@dataclass(frozen=True)
class Plan:
    """How large everything is."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    steps: tuple[int, ...] = (
        0, 20, 50, 75, 100, 150, 200, 225, 250, 275, 300, 325, 350, 400, 450, 500, 600, 800,
    )  # fmt: skip
    width: int = 64
    heads: int = 4
    length: int = 48
    periods: tuple[int, int] = (8, 16)
    batch: int = 24
    rate: float = 4e-3
    evaluated: int = 64
    sampled: int = 64
    chains: tuple[int, int, int, int] = (4, 200, 100, 8)
    """Chains, draws, burn-in, sequences in a batch."""
    setting: tuple[float, float, float] = (100.0, 1.0, 1.5e-4)
    """nbeta, gamma and eps: stable up to a curvature of 4 / (nbeta eps) = 267."""
    curved: int = 16
    lanczos: tuple[int, int, int] = (16, 2, 512)
    """Steps, probe vectors, buckets of the sketch."""


QUICK = Plan(
    seeds=(0,), steps=(0, 8, 64), width=16, heads=2, length=24, periods=(4, 8), batch=8,
    evaluated=16, sampled=32, chains=(2, 20, 10, 4), curved=4, lanczos=(4, 2, 64),
)  # fmt: skip


def repeated(plan: Plan, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences and the period of each, [S, T] and [S, 1]."""
    low, high = plan.periods
    block_ST = rng.integers(RANDOM_IDS, size=(count, plan.length))
    period_S1 = rng.integers(low, high + 1, size=(count, 1))
    return np.take_along_axis(block_ST, np.arange(plan.length)[None] % period_S1, 1), period_S1


def mixture(
    plan: Plan, streams: Mapping[str, np.ndarray], count: int, *, seed: int, step: int,
    shuffled: bool,
) -> torch.Tensor:  # fmt: skip
    """A quarter prose, the rest repeated; each row in random order where shuffled."""
    prose_ST = training_batch(
        streams, batch=count // 4, length=plan.length - 1, seed=seed, step=step
    )
    rng = np.random.default_rng((seed, step, 1))
    rows_ST = np.concatenate([prose_ST, repeated(plan, count - count // 4, rng)[0]])
    return torch.from_numpy(rng.permuted(rows_ST, axis=1) if shuffled else rows_ST)


def ngrams(prose_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed probabilities of bytes [V], and given the one before [V, V]."""
    ids_T = prose_T.astype(np.int64)
    pairs = np.bincount(ids_T[:-1] * VOCAB_SIZE + ids_T[1:], minlength=VOCAB_SIZE**2)
    unigram_V = np.bincount(ids_T, minlength=VOCAB_SIZE) + SMOOTHING
    unigram_V = unigram_V / unigram_V.sum()
    # rare contexts fall back to the unigram
    bigram_VV = pairs.reshape(VOCAB_SIZE, VOCAB_SIZE) + SMOOTHING * VOCAB_SIZE * unigram_V
    return unigram_V, bigram_VV / bigram_VV.sum(axis=1, keepdims=True)


class Behaviour:
    """What a model does, on sequences that are fixed."""

    def __init__(self, plan: Plan, streams: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self._plan = plan
        held_out = evaluation_set({"prose": streams["held_out"]["prose"]}, length=plan.length - 1)
        self._prose_ST = torch.from_numpy(held_out["prose"][: plan.evaluated])
        rows_ST, period_S1 = repeated(plan, plan.evaluated, np.random.default_rng(123))
        self._rows_ST, self._period_S1 = torch.from_numpy(rows_ST), torch.from_numpy(period_S1)
        self._ngrams = [torch.from_numpy(p) for p in ngrams(streams["train"]["prose"])]

    def of(self, model: PreTrainedModel) -> Row:
        """All figures of a model in eval mode."""
        with torch.no_grad():
            return self._divergences(model) | self._copying(model) | self._heads(model)

    def _divergences(self, model: PreTrainedModel) -> Row:
        logits_STV = model(self._prose_ST, use_cache=False).logits[:, :-1]
        logq_STV = logits_STV.double().log_softmax(dim=-1)
        unigram_V, bigram_VV = self._ngrams
        truth = self._prose_ST[:, 1:]
        expected = {"unigram": unigram_V, "bigram": bigram_VV[self._prose_ST[:, :-1]]}
        found = {
            f"kl_{name}": float((p * (p.log() - logq_STV)).sum(dim=-1).mean())
            for name, p in expected.items()
        }
        return found | {"loss_prose": float(-logq_STV.gather(2, truth[..., None]).mean())}

    def _copying(self, model: PreTrainedModel) -> Row:
        logits = model(self._rows_ST, use_cache=False).logits[:, :-1]
        truth = self._rows_ST[:, 1:]
        loss_ST = cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none")
        loss_ST = loss_ST.view(truth.shape)
        # the first token of a second period follows nothing: what precedes it stood nowhere before
        again_ST = torch.arange(truth.shape[1])[None] >= self._period_S1
        return {
            "loss_first": float(loss_ST[~again_ST].mean()),
            "loss_again": float(loss_ST[again_ST].mean()),
            "copying": float((logits.argmax(dim=-1) == truth)[again_ST].double().mean()),
        }

    def _heads(self, model: PreTrainedModel) -> Row:
        with eager_attention(model):
            patterns = model(self._rows_ST, use_cache=False, output_attentions=True).attentions
        a_SHTT = torch.cat(patterns, dim=1)
        length = a_SHTT.shape[-1]
        at_T = torch.arange(length)
        before = a_SHTT[:, :, at_T[1:], at_T[:-1]].mean(dim=(0, 2))
        after_ST = (at_T[None] - self._period_S1 + 1).clamp(min=0)
        to_after_SHT = a_SHTT.gather(
            3, after_ST[:, None, :, None].expand(-1, a_SHTT.shape[1], -1, 1)
        )[..., 0]
        again_ST = (at_T[None] >= self._period_S1).double()
        matching = (to_after_SHT * again_ST[:, None]).sum(dim=(0, 2)) / again_ST.sum()
        return {"previous_token": float(before.max()), "prefix_matching": float(matching.max())}


def built(plan: Plan, seed: int) -> PreTrainedModel:
    config = AttentionOnlyConfig(
        vocab_size=VOCAB_SIZE, hidden_size=plan.width, num_attention_heads=plan.heads,
        max_position_embeddings=plan.length, initializer_range=1 / math.sqrt(plan.width),
        bos_token_id=END_OF_TEXT_ID, eos_token_id=END_OF_TEXT_ID,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


class BatchedLosses:
    """Mean next-token cross-entropy of every sequence: the model as one product of tensors.

    Chains of it go side by side (torch.vmap), which transformers' attention masks do not allow.
    """

    together = True

    def __init__(self, model: PreTrainedModel, length: int) -> None:
        """Of a model with rotary positions, and sequences of a length."""
        self._config = model.config
        turn = model.model.rotary_emb(torch.zeros(1), position_ids=torch.arange(length)[None])
        self._cos_TK, self._sin_TK = (part[0] for part in turn)
        self._mask_TT = torch.full((length, length), -torch.inf).triu(1)

    def __call__(self, parameters: Parameters, ids_ST: torch.Tensor) -> torch.Tensor:
        """Tokens [S, T] -> losses [S]."""
        # products with one-hot rows: the gradient of indexing is slow under vmap
        said_STV = one_hot(ids_ST, self._config.vocab_size).to(self._cos_TK)
        x_STD = said_STV @ parameters["model.embed_tokens.weight"]
        for layer in range(self._config.num_hidden_layers):
            x_STD = x_STD + self._attended(parameters, f"model.layers.{layer}.", x_STD)
        x_STD = self._normed(parameters, "model.norm", x_STD)
        logq_STV = (x_STD[:, :-1] @ parameters["lm_head.weight"].mT).log_softmax(dim=-1)
        return -(logq_STV * said_STV[:, 1:]).sum(dim=-1).mean(dim=1)

    def _attended(self, parameters: Parameters, block: str, x_STD: torch.Tensor) -> torch.Tensor:
        heads = self._config.num_attention_heads
        y_STD = self._normed(parameters, f"{block}input_layernorm", x_STD)
        q_SHTK, k_SHTK, v_SHTK = (
            (y_STD @ parameters[f"{block}self_attn.{name}_proj.weight"].mT)
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        scores_SHTT = self._turned(q_SHTK) @ self._turned(k_SHTK).mT
        a_SHTT = (scores_SHTT / math.sqrt(q_SHTK.shape[-1]) + self._mask_TT).softmax(dim=-1)
        mixed_STD = (a_SHTT @ v_SHTK).transpose(1, 2).flatten(2)
        return mixed_STD @ parameters[f"{block}self_attn.o_proj.weight"].mT

    def _turned(self, q_SHTK: torch.Tensor) -> torch.Tensor:
        """By the angles of the positions, as `LlamaAttention` turns queries and keys."""
        first, second = q_SHTK.chunk(2, dim=-1)
        return q_SHTK * self._cos_TK + torch.cat([-second, first], dim=-1) * self._sin_TK

    def _normed(self, parameters: Parameters, name: str, x_STD: torch.Tensor) -> torch.Tensor:
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return layer_norm(x_STD, weight.shape, weight, bias, self._config.layer_norm_eps)
