"""The config of a ladder: a size series of one's own, trained from one frozen description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from scaleinv_ray.config.fields import (
    Corpus,
    Float,
    Name,
    Natural,
    Options,
    Place,
    Positive,
    Seed,
    StepList,
    distinct,
)
from scaleinv_ray.inputs.wording import shown

Width = Annotated[Positive, Field(le=2**17)]
Depth = Annotated[Positive, Field(le=10_000)]
MOST_TOKENS = 2**24
"""In a step of one CPU process; the largest published batches have a quarter of it."""


class OptimizerOptions(Options):
    """How the runs of a ladder are optimised.

    Attributes:
        name: adamw, or sgd without momentum.
        lr: learning rate at `base_width`.
        schedule: of the learning rate after the warm-up: linear or cosine to zero, or constant.
        base_width: width at which `lr` holds; at width d it is lr * base_width / d. None: the same
            at every width.
        weight_decay: decoupled (adamw), or the coefficient of the L2 penalty (sgd).
        warmup: steps of linear warm-up.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[Float, Field(gt=0)] = 1e-3
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    base_width: Width | None = None
    weight_decay: Annotated[Float, Field(ge=0)] = 0.0
    warmup: Natural = 0


class TrainConfig(Options):
    """A ladder of models: every width with every seed.

    Attributes:
        name: of the ladder.
        architecture: family; granite is trained in the maximal update parametrisation, and
            attention_only has blocks without an MLP.
        widths: of the residual stream, rising, one model each.
        depth: blocks at every width; or `depths`.
        depths: blocks by width, given as a list matching `widths` or a mapping (filled in from
            `depth` otherwise).
        head_dim: width of an attention head; even, divides every width.
        seeds: one run of each width for every one.
        init_scale: factor of the standard deviation of the hidden matrices at step 0; embeddings
            and unembeddings keep theirs.
        corpus: 'python-stdlib', or files and folders.
        repeated: share of a step's sequences that are a random block again and again: what a model
            learns to copy from.
        batch: sequences in a step.
        length: tokens in a sequence.
        steps: optimiser steps.
        checkpoints: steps at which models are kept, the last one among them; None: log-spaced.
        optimizer: how they are optimised.
        dtype: of weights and arithmetic.
        out: folder of the runs; `runs/<name>/models` by default.
    """

    name: Name
    architecture: Literal["gpt_neox", "gpt2", "llama", "granite", "attention_only"] = "gpt_neox"
    widths: Annotated[tuple[Width, ...], Field(min_length=1), AfterValidator(distinct)]
    depth: Depth | None = None
    depths: Annotated[
        dict[int, Depth],
        # a list is a mapping by then: `_defaults`
        BeforeValidator(
            lambda given: given, json_schema_input_type=dict[int, Depth] | tuple[Depth, ...]
        ),
    ] = Field(default_factory=dict)
    head_dim: Annotated[Positive, Field(multiple_of=2)] = 16
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)] = (0,)
    init_scale: Annotated[Float, Field(gt=0)] = 1.0
    corpus: Corpus = "python-stdlib"
    repeated: Annotated[Float, Field(ge=0, le=1)] = 0.0
    batch: Positive = 16
    length: Annotated[Positive, Field(ge=2)] = 128
    steps: Positive
    checkpoints: StepList | None = None
    optimizer: OptimizerOptions = OptimizerOptions()
    dtype: Literal["float32", "bfloat16"] = "float32"
    out: Place

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: object) -> object:
        """What follows from other fields, where it is not given."""
        if not isinstance(data, Mapping):
            return data
        filled = {"out": f"runs/{data.get('name')}/models"} | dict(data)
        widths, depths = data.get("widths"), data.get("depths")
        if isinstance(depths, list | tuple) and isinstance(widths, list | tuple):
            if len(depths) != len(widths):
                raise ValueError(
                    f"depths: got {len(depths)} of them, allowed: {len(widths)} (widths)"
                )
            pairs = zip(widths, depths, strict=True)
            filled["depths"] = {w: d for w, d in pairs if isinstance(w, int)}
        if isinstance(widths, list | tuple) and depths is None and data.get("depth"):
            filled["depths"] = {w: data["depth"] for w in widths if isinstance(w, int)}
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if set(self.depths) != set(self.widths):
            got = f"depth {self.depth}, depths {shown(sorted(self.depths) or None)}"
            raise ValueError(
                f"depths: got {got}, needs one of them, for widths {shown(self.widths)}"
            )
        if self.depth is not None and set(self.depths.values()) != {self.depth}:
            raise ValueError(
                f"depths: got them besides depth {self.depth}, allowed: one of the two"
            )
        if list(self.widths) != sorted(self.widths):
            raise ValueError(f"widths: got {shown(list(self.widths))}, allowed: rising")
        if odd := [w for w in self.widths if w % self.head_dim]:
            raise ValueError(
                f"head_dim: got {self.head_dim}, allowed: divisors of widths {shown(odd)}"
            )
        last = self.steps if self.checkpoints is None else self.checkpoints[-1]
        if last != self.steps:
            raise ValueError(f"checkpoints: got {last} as the last, allowed: {self.steps} (steps)")
        if (tokens := self.batch * self.length) > MOST_TOKENS:
            raise ValueError(f"batch x length: got {tokens} tokens, allowed: {MOST_TOKENS} a step")
        if self.optimizer.warmup > self.steps:
            raise ValueError(
                f"optimizer.warmup: got {self.optimizer.warmup}, allowed: 0..{self.steps} (steps)"
            )
        return self
