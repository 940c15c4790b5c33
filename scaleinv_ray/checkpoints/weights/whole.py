"""Checkpoint folders: whole, safetensors only. No model code is imported here."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from scaleinv_ray.checkpoints.files.headers import weight_map
from scaleinv_ray.checkpoints.files.layouts import CONVERT
from scaleinv_ray.inputs.json_files import read_json, short

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def code_named(folder: Path) -> list[str]:
    """The classes of its own that config.json names for config and model (auto_map)."""
    named = read_json(folder / "config.json").get("auto_map") or {}
    if not isinstance(named, dict):
        raise ValueError(f"{folder}/config.json: auto_map: got {short(named)}, allowed: a mapping")
    return [str(v) for k, v in named.items() if k in {"AutoConfig", "AutoModelForCausalLM"}]


def _names_in(shard: Path) -> list[str]:
    try:
        with safe_open(shard, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{shard}: truncated or damaged ({error})") from error


def _why_no_safetensors(folder: Path) -> str:
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        allowed = f"allowed safetensors only (a pickle runs code; {CONVERT})"
        return f"got pickle weights {pickles}, {allowed}"
    return f"has neither {_SINGLE} nor {_INDEX}"


def check_whole(folder: Path) -> dict[str, Path]:
    """Checks that a folder holds a whole safetensors checkpoint.

    Returns:
        Tensor name -> file that holds it, files in order.

    Raises:
        ValueError: naming the file: no config.json; no safetensors; pickle weights only; a shard
            that is missing or truncated; an index that names an absent tensor.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder / 'config.json'}: missing")
    read_json(folder / "config.json")
    if (folder / _SINGLE).is_file():
        return dict.fromkeys(_names_in(folder / _SINGLE), folder / _SINGLE)
    if not (folder / _INDEX).is_file():
        raise ValueError(f"{folder}: {_why_no_safetensors(folder)}")
    wanted: dict[str, set[str]] = {}
    for name, shard in weight_map(folder).items():
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
