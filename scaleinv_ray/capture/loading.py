"""Loading a checkpoint folder: checked first, safetensors only, never from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LoadOptions:
    """How a model is put into memory.

    Attributes:
        device_map: as in `from_pretrained`: None (CPU), a device, 'auto', 'balanced', or a dict.
        max_memory: device -> bytes, for 'auto' and 'balanced'.
        dtype: None keeps the stored dtype.
        attention: 'sdpa', or 'eager' (Gemma 2 has no other).
        trust_remote_code: run code out of the checkpoint folder.
    """

    device_map: str | dict[str, str | int] | None = None
    max_memory: Mapping[int | str, int | str] | None = None
    dtype: torch.dtype | None = None
    attention: Literal["sdpa", "eager"] = "sdpa"
    trust_remote_code: bool = False


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error


def _names_in(shard: Path) -> list[str]:
    try:
        with safe_open(shard, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{shard}: truncated or damaged ({error})") from error


def _why_no_safetensors(folder: Path) -> str:
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        return f"got pickle weights {pickles}, allowed safetensors only (a pickle runs code)"
    return f"has neither {_SINGLE} nor {_INDEX}"


def check_folder(folder: Path) -> dict[str, Path]:
    """Checks that a folder holds a whole safetensors checkpoint.

    Args:
        folder: a local checkpoint folder.

    Returns:
        Tensor name -> file that holds it, files in order.

    Raises:
        ValueError: naming the file: no config.json; no safetensors; pickle weights only; a shard
            that is missing or truncated; an index that names an absent tensor.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder / 'config.json'}: missing")
    _read_json(folder / "config.json")
    if (folder / _SINGLE).is_file():
        return dict.fromkeys(_names_in(folder / _SINGLE), folder / _SINGLE)
    if not (folder / _INDEX).is_file():
        raise ValueError(f"{folder}: {_why_no_safetensors(folder)}")
    wanted: dict[str, set[str]] = {}
    for name, shard in _read_json(folder / _INDEX)["weight_map"].items():
        wanted.setdefault(shard, set()).add(name)
    found: dict[str, Path] = {}
    for shard in sorted(wanted):
        if not (folder / shard).is_file():
            raise ValueError(f"{folder / shard}: missing, named by {_INDEX}")
        names = _names_in(folder / shard)
        absent = sorted(wanted[shard].difference(names))
        if absent:
            raise ValueError(f"{folder / shard}: lacks tensors {absent} named by {_INDEX}")
        found.update(dict.fromkeys((n for n in names if n in wanted[shard]), folder / shard))
    return found


def load_model(folder: Path, options: LoadOptions | None = None) -> PreTrainedModel:
    """Loads a causal language model in eval mode.

    transformers builds on the meta device and fills from the files, so the peak is one model.

    Args:
        folder: a local checkpoint folder.
        options: device, dtype and attention.

    Returns:
        The model.

    Raises:
        ValueError: where `check_folder` finds a fault, or where the files lack weights of the
            model or hold them in another shape (transformers would draw them at random).
    """
    check_folder(folder)
    options = options or LoadOptions()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        dtype=options.dtype or "auto",
        device_map=options.device_map,
        max_memory=dict(options.max_memory) if options.max_memory else None,
        attn_implementation=options.attention,
        trust_remote_code=options.trust_remote_code,
    )
    model, info = loaded  # with output_loading_info
    for fault in ("missing_keys", "mismatched_keys"):
        if info[fault]:
            raise ValueError(f"{folder}: {fault.replace('_', ' ')} {sorted(info[fault])}")
    return model.eval()


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype as records carry it: 'bfloat16', not 'torch.bfloat16'."""
    return str(dtype).removeprefix("torch.")
