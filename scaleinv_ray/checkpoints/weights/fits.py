"""Whether a model can be built of a checkpoint, seen on the meta device: no weight is read.

As a program it reads folders from stdin and writes `answers` to stdout, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from scaleinv_ray.checkpoints.files.headers import INDEX, WEIGHTS, read_tensors
from scaleinv_ray.checkpoints.files.needed import Needed
from scaleinv_ray.checkpoints.files.roles import canonical_name, has_masked_head, is_encoder
from scaleinv_ray.checkpoints.weights.matrices import build_from_config, read_config
from scaleinv_ray.inputs.json_files import read_json
from scaleinv_ray.inputs.wording import clipped

_REFUSALS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError,
    RuntimeError, TypeError, ValueError, StrictDataclassError,
)  # fmt: skip
"""Few values of a config.json are checked: what raises is wherever one of them is first used."""
_CHECKED = re.compile(r"^.*?alidation error for (field|validator) '\w+': \w+: ")
"""What stands before the reason in errors of checked fields."""


def needed_by(folder: Path) -> Needed:
    """Builds the model that a config.json describes, without memory for its weights.

    Args:
        folder: that holds the file; no code that lies there is run.

    Returns:
        What its files have to hold.

    Raises:
        ValueError: naming the file, where no model can be built, with what transformers says.
    """
    with _quiet():
        try:
            config = read_config(folder)
            with torch.device("meta"):
                model = build_from_config(config, 0, dtype=torch.float32)
        except _REFUSALS as error:
            raise ValueError(
                f"{folder}/config.json: {_field(folder, error)}transformers "
                f"{transformers.__version__} builds no model of it ({_said(error)})"
            ) from error
    kind = config.model_type
    body: torch.nn.Module = model
    stored = any((folder / name).is_file() for name in (WEIGHTS, INDEX))  # of a hub they are not
    if is_encoder(config.to_dict()) and stored and not has_masked_head(read_tensors(folder)):
        body = model.base_model  # the files are of a body alone
    names: dict[int, set[str]] = {}
    for name, parameter in body.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(canonical_name(name, kind))
    ignored = model._keys_to_ignore_on_load_missing or ()
    shapes, tied = {}, {}
    for name, parameter in body.named_parameters():
        if not any(re.search(pattern, name) for pattern in ignored):
            called = canonical_name(name, kind)
            shapes[called] = tuple(parameter.shape)
            tied[called] = frozenset(names[id(parameter)])
    return Needed(kind, shapes, tied)


def answers(folders: Iterable[Path]) -> list[Needed | str]:
    """Of each folder what its files have to hold, or why no model can be built."""
    return [_answer(folder) for folder in folders]


def _answer(folder: Path) -> Needed | str:
    try:
        return needed_by(folder)
    except ValueError as error:
        return str(error)


def _said(error: BaseException) -> str:
    """What is wrong, without the names of the checks around it."""
    text = str(error) or "no reason given"
    if isinstance(error, StrictDataclassError):
        return clipped(_CHECKED.sub("", " ".join(text.split())), 110)
    return clipped(f"{type(error).__name__}: {text}", 110)


def _field(folder: Path, error: BaseException) -> str:
    """The field with the value that a class does not know by that name, for the message."""
    if not isinstance(error, KeyError) or not error.args:
        return ""
    unknown, told = error.args[0], read_json(folder / "config.json")
    level = {**told, **{f"{k}.{n}": v for k, d in told.items() if isinstance(d, dict)
                        for n, v in d.items()}}  # fmt: skip
    found = next((k for k, v in level.items() if isinstance(v, str) and v == unknown), None)
    return "" if found is None else f"{found}: got {unknown!r}; "


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without what transformers logs of a config that it refuses anyway."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # what libraries print is no answer
        found = answers(map(Path, json.load(sys.stdin)))
    json.dump(found, sys.stdout, default=sorted)
