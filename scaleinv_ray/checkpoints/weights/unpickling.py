"""The process that reads pickled weights: run as a module, it says as JSON what it did.

Nothing of a pickle is called but what makes tensors (`weights_only=True`); sockets and programs are
refused besides, so that a hole in that would reach nothing.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from scaleinv_ray.checkpoints.files.headers import INDEX, WEIGHTS
from scaleinv_ray.checkpoints.files.layouts import listed, names_in, pickled_model
from scaleinv_ray.inputs.json_files import check_is_there, read_json, short
from scaleinv_ray.inputs.wording import clipped, sized

_NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Under which trainers put the parameters."""
_WRAPPED = ("module.", "_orig_mod.")
"""What wrappers (of several devices, of a compiler) put before every name."""
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_KEPT = (".json", ".txt", ".model", ".vocab", ".jinja", ".md")
_VOCABULARY = re.compile(r".*vocab.*\.(txt|json)|.*\.(model|vocab|tiktoken)|tekken\.json")
_INDEXED = ".index.json"


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event}: not allowed where a pickle is read")


def converted(root: Path, out: Path) -> list[str]:
    """Writes the new checkpoint.

    Args:
        root: of pickles.

    Returns:
        What was done.

    Raises:
        ValueError: naming the file.
    """
    check_is_there(root / "config.json")
    shards = _shards(root)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        said = _weights(root, shards, part)
        said += _copied(root, part)
        said.append(_tokenizer(root, part))
        if out.exists():
            out.rmdir()  # empty
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [*said, f"read with weights_only=True in a process {_apart()}", f"written: {out}"]


def _shards(root: Path) -> list[str]:
    """The pickles of one model, in order."""
    names = names_in(root)
    if WEIGHTS in names or INDEX in names:
        raise ValueError(f"{root}: got safetensors already; allowed: pickled weights alone")
    found = pickled_model(names)
    if index := [name for name in found if name.endswith(_INDEXED)]:
        mapped = read_json(root / index[0]).get("weight_map")
        if not isinstance(mapped, Mapping) or not all(isinstance(v, str) for v in mapped.values()):
            raise ValueError(f"{root / index[0]}: weight_map: got {short(mapped)}, allowed: files")
        shards = sorted(set(mapped.values()))
        if odd := [name for name in shards if Path(name).name != name]:
            raise ValueError(f"{root / index[0]}: got {short(odd)}, allowed: files beside it")
        for name in shards:
            check_is_there(root / name)
        return shards
    if len(found) != 1:
        what = f"several [{listed(found)}]" if found else "no pickled weights"
        raise ValueError(
            f"{root}: got {what}, allowed: pytorch_model.bin, or shards with their index"
        )
    return found


def _weights(root: Path, shards: list[str], part: Path) -> list[str]:
    said = []
    placed: dict[str, str] = {}
    total = 0
    for i, name in enumerate(shards, start=1):
        whole, left_out = _tensors(root / name)
        held, taken = _unwrapped(whole)
        if twice := sorted(placed.keys() & held.keys()):
            raise ValueError(f"{root / name}: got {listed(twice)} again, allowed: each once")
        single = len(shards) == 1
        file = WEIGHTS if single else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(held, part / file, metadata={"format": "pt"})
        _check_equal(held, part / file)
        size = sum(t.numel() * t.element_size() for t in held.values())
        total += size
        placed |= dict.fromkeys(held, file)
        beside = f"; left out: {listed(left_out)}" if left_out else ""
        beside += f"; taken off every name: {taken}" if taken else ""
        said.append(
            f"{name} -> {file}: {len(held)} tensors, {sized(size)}, equal bit for bit{beside}"
        )
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (part / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return said


def _why(error: Exception) -> str:
    """What is wrong with a file, without the advice of torch to read it all the same."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked is not None:
        return f"it calls {asked[1][:80]}, allowed: tensors alone"
    if isinstance(error, (RuntimeError, OSError)) and str(error).strip():
        return clipped(str(error).strip().splitlines()[0], 150)
    return "damaged, or none of torch"


def _tensors(file: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors by name, each with memory of its own, and the names of what is none."""
    _check_begins(file)
    try:
        mapped = zipfile.is_zipfile(file)  # files of old are not
        held: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, LookupError, TypeError,
            ValueError, PermissionError, OSError) as error:  # fmt: skip
        raise ValueError(f"{file}: not read with weights_only=True ({_why(error)})") from error
    left_out: list[str] = []
    while isinstance(held, Mapping) and (at := _nested(held)) is not None:
        left_out += [str(name) for name in held if name != at]
        held = held[at]
    if not isinstance(held, Mapping):
        raise ValueError(f"{file}: got a {type(held).__name__}, allowed: tensors by name")
    tensors: dict[str, torch.Tensor] = {}
    for name, value in held.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            odd = value.is_quantized or value.is_complex() or value.is_meta
            if odd or value.layout != torch.strided:
                got = f"{value.dtype}, {value.layout}, on {value.device}"
                raise ValueError(f"{file}: {name}: got {got}, allowed: plain numbers")
            tensors[name] = _alone(value.detach(), tensors.values())
        else:
            left_out.append(str(name))
    if not tensors:
        there = f" but {listed(left_out, 4)}" if left_out else ""
        raise ValueError(
            f"{file}: got no tensors{there}; allowed: tensors by name, or such under "
            f"{', '.join(_NESTED)}"
        )
    return tensors, left_out


def _check_begins(file: Path) -> None:
    """Refuses what is no whole file: torch would name the call that failed."""
    if not file.is_file():
        what = "a link that leads nowhere" if file.is_symlink() else "no file"
        raise ValueError(f"{file}: got {what}, allowed: pickled weights")
    with file.open("rb") as stream:
        first = stream.read(len(_POINTER))
    if not first:
        raise ValueError(f"{file}: got an empty file, allowed: pickled weights")
    if first == _POINTER:
        raise ValueError(f"{file}: got a pointer of Git LFS, allowed: the file (git lfs pull)")
    if first.startswith(b"PK") and not zipfile.is_zipfile(file):
        size = sized(file.stat().st_size)
        raise ValueError(f"{file}: cut off after {size}: its end is missing; allowed: all of it")


_POINTER = b"version https://git-lfs"


def _unwrapped(held: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors by their own names, and what stood before every one of these."""
    taken = ""
    while first := next((w for w in _WRAPPED if all(n.startswith(w) for n in held)), ""):
        held = {name.removeprefix(first): tensor for name, tensor in held.items()}
        taken += first
    return held, taken


def _alone(tensor: torch.Tensor, others: Iterable[torch.Tensor]) -> torch.Tensor:
    """A tensor with memory of its own: two names of one (tied ends) are two in the new file."""
    memory = tensor.untyped_storage()
    whole = tensor.is_contiguous() and memory.nbytes() == tensor.numel() * tensor.element_size()
    if whole and all(o.untyped_storage().data_ptr() != memory.data_ptr() for o in others):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _nested(held: Mapping[Any, Any]) -> str | None:
    if any(isinstance(value, torch.Tensor) for value in held.values()):
        return None
    return next((name for name in _NESTED if isinstance(held.get(name), Mapping)), None)


def _check_equal(held: Mapping[str, torch.Tensor], file: Path) -> None:
    with safe_open(file, framework="pt") as written:
        if set(written.keys()) != set(held):
            raise ValueError(f"{file}: other tensors than were written")
        for name, tensor in held.items():
            again = written.get_tensor(name)
            # bytes: NaN is not equal to itself
            same = again.dtype == tensor.dtype and again.shape == tensor.shape
            if not same or not torch.equal(_bytes(again), _bytes(tensor)):
                raise ValueError(f"{file}: {name}: other bytes than were written")


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _copied(root: Path, part: Path) -> list[str]:
    """Config, tokenizer and notes as they are; no code, no pickle, no index of pickles."""
    files = [p for p in sorted(root.iterdir()) if p.is_file() and not p.name.startswith(".")]
    pickled = set(pickled_model(p.name for p in files))
    kept = [p for p in files if p.suffix in _KEPT and p.name not in pickled]
    for file in kept:
        shutil.copyfile(file, part / file.name)
    left = [p.name for p in files if p not in kept and p.name not in pickled]
    said = [f"copied: {listed([p.name for p in kept], 12)}"]
    return said + ([f"not copied: {listed(left, 12)}"] if left else [])


def _tokenizer(root: Path, part: Path) -> str:
    """Writes tokenizer.json where transformers can make it of the files that are there."""
    if (root / "tokenizer.json").is_file():
        return "tokenizer.json: copied"
    if not any(_VOCABULARY.fullmatch(p.name) for p in root.iterdir()):
        # of no file at all a class makes a tokenizer of its special tokens
        return "tokenizer.json: none (no vocabulary file)"
    scratch = part / "_tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            root, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_tokens)):
            return "tokenizer.json: none (transformers finds no vocabulary of it)"
        tokenizer.save_pretrained(scratch)
        if not (scratch / "tokenizer.json").is_file():
            return "tokenizer.json: none (transformers knows no fast tokenizer for it)"
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (scratch / name).is_file():
                shutil.copyfile(scratch / name, part / name)
        return f"tokenizer.json: made by transformers ({type(tokenizer).__name__})"
    except (ValueError, OSError, ImportError, LookupError, AttributeError, TypeError,
            RuntimeError) as error:  # fmt: skip
        why = clipped(str(error).strip().splitlines()[0] if str(error).strip() else "", 120)
        return f"tokenizer.json: none ({type(error).__name__}: {why})"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _apart() -> str:
    """Whether there is a network that could be reached, were sockets allowed."""
    alone = {name for _, name in socket.if_nameindex()} <= {"lo"}
    return "without network" if alone else "whose sockets are refused"


def main() -> None:
    """Converts, and writes one line of JSON: what was done, or why it was refused."""
    sys.addaudithook(_forbid)
    try:
        said: dict[str, Any] = {"done": converted(Path(sys.argv[1]), Path(sys.argv[2]))}
    except (ValueError, OSError) as error:
        said = {"refused": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
