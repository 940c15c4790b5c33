"""Parameters that a file stores under two names and a model has once, as transformers says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from scaleinv_ray.checkpoints.files.contents import in_block
from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.roles import CAPTURED, canonical_name, tensor_role

_ENDS = {"embedding", "unembedding"}
_PATIENCE_S = 120
_ASKED = "scaleinv_ray.checkpoints.weights.ties"
_BIAS = re.compile(r"(predictions|lm_head)(\.decoder)?\.bias$")
"""Of the head of an encoder, under its own name and that of its last layer."""
_HEAD = re.compile(r"head|output|decoder|unembed", re.IGNORECASE)


def stored_twice(
    tensors: Mapping[str, TensorHeader], config: Mapping[str, Any]
) -> tuple[str, str] | None:
    """The embedding and the head of a known class, where config.json ties them and both are stored.

    Args:
        tensors: headers by name.

    Returns:
        Their names; None where one of them is not stored, or nothing ties them.
    """
    if config.get("tie_word_embeddings") is not True:
        return None
    ends = {tensor_role(name, config["model_type"]).role: name for name in tensors}
    return (ends["embedding"], ends["unembedding"]) if ends.keys() >= _ENDS else None


def stored_again(
    parameters: Mapping[str, TensorHeader], config: Mapping[str, Any], vocab_size: int
) -> set[str]:
    """Names of stored parameters that another stored name stands for already.

    Only tensors outside the blocks with a row a token can be tied (embeddings, heads, their
    biases), and only where there are two of one shape is there a question. Then the class of the
    model answers it, on the meta device, in a process of its own: importing it takes seconds, and
    most checkpoints do without.

    Args:
        parameters: headers by name.

    Returns:
        The names to leave out of a count.
    """
    if config.get("tie_word_embeddings") is False:
        return set()
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in parameters.items():
        long = len(tensor.shape) in {1, 2} and tensor.shape[0] >= vocab_size
        if long and _has_a_row_each(name, config["model_type"]):
            alike.setdefault(tensor.shape, []).append(name)
    again: set[str] = set()
    for names in alike.values():
        if len(names) > 1:
            again |= _again(sorted(names), config)
    return again


def _has_a_row_each(name: str, model_type: str) -> bool:
    """Whether a long tensor may have a row a token, and is not as long by chance.

    A vocabulary of 33 is shorter than norms are wide.
    """
    if in_block(name):
        return False
    ends = tensor_role(name, model_type).role in _ENDS or _BIAS.search(name)
    return model_type not in CAPTURED or bool(ends)


def _again(names: list[str], config: Mapping[str, Any]) -> set[str]:
    """Of tensors of one shape those that are another of them."""
    model_type, told = config["model_type"], config.get("tie_word_embeddings")
    if model_type in CAPTURED and all(map(_BIAS.search, names)):
        return set(names[1:])
    ends = {tensor_role(name, model_type).role: name for name in names}
    if told and len(names) == 2 and ends.keys() == _ENDS:
        return {ends["unembedding"]}
    groups = _ties(json.dumps(_of_class(config), sort_keys=True))
    if groups is None:  # a class of others: its config.json has to be believed
        heads = [name for name in names if _HEAD.search(name)]
        return {heads[-1]} if told and 0 < len(heads) < len(names) else set()
    again: set[str] = set()
    for group in groups:
        tied = {canonical_name(name, model_type) for name in group}
        held = [name for name in names if canonical_name(name, model_type) in tied]
        held.sort(key=lambda name: _HEAD.search(name) is not None)  # the embedding stays
        again |= set(held[1:])
    return again


def _of_class(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides over ties: names and switches, no sizes; one answer serves all of a series."""
    switches = {k: v for k, v in config.items() if isinstance(v, bool)}
    return switches | {k: config.get(k) for k in ("model_type", "architectures")}


@lru_cache(maxsize=256)
def _ties(config: str) -> list[list[str]] | None:
    """Groups of names of one parameter; None where transformers does not know the class."""
    asked = [sys.executable, "-m", _ASKED]
    try:
        said = subprocess.run(
            asked, input=config, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    groups: list[list[str]] = json.loads(said.stdout)
    return groups
