"""What is known of one checkpoint before a weight is loaded."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaleinv_ray.checkpoints.files.contents import contents_of
from scaleinv_ray.checkpoints.files.header_format import DTYPES, TensorHeader
from scaleinv_ray.checkpoints.files.roles import has_masked_head, is_encoder
from scaleinv_ray.checkpoints.files.sizes import Sizes
from scaleinv_ray.checkpoints.files.tied import stored_again
from scaleinv_ray.inputs.json_files import read_json, whole
from scaleinv_ray.inputs.wording import clipped
from scaleinv_ray.records import Variant

LONGEST_NAME = 255
"""Characters of a model's name: that of a folder has no more, and tables and pages hold them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One model at one step, and where its weights are.

    Attributes:
        model: identity within the series (`d128-s0`, `pythia-70m`).
        seed: replicate.
        step: optimiser steps, None where nothing says.
        architecture: model_type of config.json.
        n_params: parameters; tied ones once, buffers (masks, rotary frequencies) not.
        n_layers: blocks.
        d_model: width of the residual stream.
        d_mlp: neurons of a block's MLP, 0 without one, None where config.json does not say.
        vocab_size: rows of the embedding.
        max_positions: longest sequence, None without a limit.
        dtype: in which most parameters are stored.
        weights_digest: sha256 of the safetensors file; of the shards' digests where it is sharded.
        config_digest: of config.json, without versions and paths.
        tokenizer_file: tokenizer.json, None where there is none.
        tokenizer_digest: sha256 of it.
        bos: token, or its id, that the tokenizer's settings put before a text.
        train_tokens: tokens seen in training, None where nothing says.
        eval_loss: held-out loss in nats, None where nothing says.
        folder: of a local checkpoint, None on the hub.
        repo: on the hub, None for a local checkpoint.
        revision: branch or tag that was asked for.
        commit: to which the revision resolved.
        init_folder: the run's own step 0, where it exists locally.
        init_commit: the run's own step 0, where it exists on the hub.
        init_digest: weights digest of either.
        variant: of captures made elsewhere; a model with weights can be had in all variants.
        captures: kind, probe and file of captures made elsewhere; empty where there are weights.
        odd: tensors that cannot be measured, with the reason.
        capture_digests: sha256 of each of these files.
        broken: why no model can be built of the files, a tensor that is odd or absent.
        no_logits: why no captures are made of it, as far as config.json says.
        encoder: its attention sees later positions too.
        mask_id: id of the token that stands for a hidden one, None without one or without the head
            that predicts it.
    """

    model: str
    seed: int
    step: int | None
    architecture: str
    n_params: int
    n_layers: int
    d_model: int
    d_mlp: int | None
    vocab_size: int
    max_positions: int | None
    dtype: str
    weights_digest: str
    config_digest: str
    tokenizer_file: Path | None = None
    tokenizer_digest: str | None = None
    bos: str | int | None = None
    train_tokens: int | None = None
    eval_loss: float | None = None
    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None
    commit: str | None = None
    init_folder: Path | None = None
    init_commit: str | None = None
    init_digest: str | None = None
    variant: Variant = "trained"
    captures: tuple[tuple[str, str | None, Path], ...] = ()
    odd: tuple[str, ...] = ()
    capture_digests: tuple[str, ...] = ()
    broken: str | None = None
    no_logits: str | None = None
    encoder: bool = False
    mask_id: int | None = None

    @property
    def tokenization(self) -> str:
        """What makes tokens of texts for it: equal ones make equal tokens. Empty without."""
        after = "" if self.bos is None else f" after {self.bos}"
        return f"{self.tokenizer_digest or ''}{after}{' of encoders' if self.encoder else ''}"

    def recorded(self) -> zip[tuple[tuple[str, str | None, Path], str]]:
        """Captures made elsewhere, each with its digest."""
        return zip(self.captures, self.capture_digests, strict=True)

    @property
    def where(self) -> str:
        """Folder, or repository at revision."""
        return str(self.folder) if self.folder else f"{self.repo}@{self.revision}"


def describe(
    where: str, config: Mapping[str, Any], tensors: Mapping[str, TensorHeader]
) -> dict[str, Any]:
    """What config.json and headers say of a checkpoint.

    Args:
        tensors: headers by name.

    Returns:
        Fields of Checkpoint: architecture, sizes, dtype, odd tensors, config digest.

    Raises:
        ValueError: as `contents_of`, and for a quantised model.
    """
    if config.get("quantization_config"):
        raise ValueError(
            f"{where}/config.json: got quantised weights, needs no quantization_config"
        )
    sizes = Sizes.of(where, config)
    held = contents_of(where, config, tensors)
    again = stored_again(held.parameters, config, sizes.vocab_size)
    dtypes: Counter[str] = Counter()
    for tensor in held.parameters.values():
        if tensor.dtype in DTYPES:
            dtypes[DTYPES[tensor.dtype]] += math.prod(tensor.shape)
    counted = (t for n, t in held.parameters.items() if n not in again)
    kept = ("n_layers", "d_model", "d_mlp", "vocab_size", "max_positions")
    return {name: getattr(sizes, name) for name in kept} | {
        "architecture": sizes.model_type,
        "n_params": sum(math.prod(t.shape) for t in counted),
        "dtype": dtypes.most_common(1)[0][0],
        "odd": tuple(f"{name}: {why}" for name, why in held.odd.items()),
        "broken": held.broken,
        "config_digest": config_digest(config),
        "encoder": is_encoder(config),
    }


def mask_id_of(
    config: Mapping[str, Any], tensors: Mapping[str, TensorHeader], tokenizer: Path | None
) -> int | None:
    """The id of the token that stands for a hidden one, of an encoder that predicts it.

    Args:
        tensors: headers by name.
        tokenizer: tokenizer.json, None where there is none.

    Returns:
        What config.json says (`mask_token_id`), else the id of `[MASK]` or `<mask>` among the added
        tokens; None without one, without the head, and of other models.

    Raises:
        ValueError: where tokenizer.json is none.
    """
    if not is_encoder(config) or not has_masked_head(tensors):
        return None
    told = whole(config, "mask_token_id", "config.json")
    if told is not None or tokenizer is None:
        return told
    added = read_json(tokenizer).get("added_tokens")
    names = {"[MASK]", "<mask>"}
    found = (t for t in added if isinstance(t, dict)) if isinstance(added, list) else ()
    return next((whole(t, "id", tokenizer) for t in found if t.get("content") in names), None)


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 of a config.json, without versions and paths."""
    told = {k: v for k, v in config.items() if k not in {"transformers_version", "_name_or_path"}}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def check_identities(checkpoints: Iterable[Checkpoint]) -> None:
    """Refuses a series in which two checkpoints would be taken for one.

    Raises:
        ValueError: where two share model, step and seed, one model name has two sizes, or a name is
            longer than that of a file may be.
    """
    seen: dict[tuple[str, int | None, int, str], Checkpoint] = {}
    sizes: dict[str, Checkpoint] = {}
    for c in checkpoints:
        if len(c.model) > LONGEST_NAME:
            raise ValueError(
                f"{clipped(c.where, 80)}: model: got a name of {len(c.model)} characters, "
                f"allowed: {LONGEST_NAME}"
            )
        twin = seen.setdefault((c.model, c.step, c.seed, c.variant), c)
        if twin is not c:
            raise ValueError(
                f"models: {twin.where} and {c.where} are both model {c.model!r}, step {c.step}, "
                f"seed {c.seed}; allowed: each once (give one of them another name)"
            )
        first = sizes.setdefault(c.model, c)
        if first.n_params != c.n_params:
            raise ValueError(
                f"models: {first.where} and {c.where} are both model {c.model!r}, with "
                f"{first.n_params} and {c.n_params} parameters (give one of them another name)"
            )


def equal_weights(checkpoints: Iterable[Checkpoint]) -> list[tuple[Checkpoint, Checkpoint]]:
    """Checkpoints that should differ and have the same weights.

    Returns:
        For every repeated weights digest, the first checkpoint paired with each later one.
    """
    first: dict[str, Checkpoint] = {}
    pairs = [(first.setdefault(c.weights_digest, c), c) for c in checkpoints]
    return [(a, b) for a, b in pairs if a is not b]
