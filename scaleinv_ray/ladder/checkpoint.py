"""Checkpoints and resume files: written under another name, fsynced, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from scaleinv_ray.inputs.reading import writing

_PART = "_part-"  # names that readers of a run folder pass over


def write_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    training: Mapping[str, Any],
) -> None:
    """Writes a folder that AutoModel and AutoTokenizer read; it appears whole or not at all.

    Args:
        folder: final name, not there yet.
        tokenizer: its files go into the folder.
    """
    part = folder.with_name(_PART + folder.name)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with writing(folder), _without_progress_bar():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / "training.json").write_text(json.dumps(training, indent=1, sort_keys=True) + "\n")
    for file in part.iterdir():
        _fsync(file)
    _fsync(part)
    part.rename(folder)
    _fsync(folder.parent)


def mark(folder: Path, field: str) -> None:
    """Sets a field of a checkpoint's training.json to true."""
    file = folder / "training.json"
    part = file.with_name(_PART + file.name)
    training = json.loads(file.read_text()) | {field: True}
    part.write_text(json.dumps(training, indent=1, sort_keys=True) + "\n")
    _fsync(part)
    part.replace(file)
    _fsync(folder)


def write_resume(
    file: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Replaces the resume file by weights, optimizer state and progress in one rename.

    Args:
        model: parameters; its buffers are functions of the configuration.
        optimizer: over the named parameters of `model`.
        progress: JSON object, kept in the file's metadata.
    """
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    part = file.with_name(_PART + file.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file):
        save_file(tensors, part, metadata={"progress": json.dumps(progress, sort_keys=True)})
    _fsync(part)
    os.replace(part, file)
    _fsync(file.parent)


def read_progress(file: Path) -> dict[str, Any] | None:
    """The progress a resume file was written with, None where there is no such file."""
    if not file.exists():
        return None
    with safe_open(file, framework="pt") as tensors:
        return json.loads(tensors.metadata()["progress"])


def load_resume(file: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimizer state back, bit by bit, on the device of the model.

    Args:
        file: written by `write_resume` for the same model and kind of optimizer.
    """
    with safe_open(file, framework="pt") as tensors, torch.no_grad():
        state_of = {name: optimizer.state[p] for name, p in model.named_parameters()}
        parameters = dict(model.named_parameters())
        for key in tensors.keys():
            kind, _, name = key.partition(".")
            if kind == "model":
                parameters[name].copy_(tensors.get_tensor(key))
            else:
                state_of[name][kind] = tensors.get_tensor(key).to(parameters[name].device)


@contextmanager
def _without_progress_bar() -> Generator[None, None, None]:
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
