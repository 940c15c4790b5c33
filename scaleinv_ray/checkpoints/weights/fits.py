"""Whether a model can be built of a checkpoint, seen on the meta device: no weight is read."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.headers import INDEX, WEIGHTS, read_tensors
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
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Of BERT's first files, which transformers reads as well."""


class Needed(NamedTuple):
    """What the files of a model have to hold.

    Attributes:
        model_type: of its config.
        shapes: of the parameters that loading would miss, by name.
        tied: name -> all names of that parameter, of which the files may hold any.
    """

    model_type: str
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, frozenset[str]]


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


def check_tensors(where: Path, tensors: Mapping[str, TensorHeader], needed: Needed) -> None:
    """Refuses files that lack a parameter of the model, or hold one in another shape.

    Args:
        where: the checkpoint, named in errors.
        tensors: headers by name.
        needed: by the class that its config.json names.

    Raises:
        ValueError: naming the first such parameter, and how many there are.
    """
    held = {_named(name, needed.model_type): t.shape for name, t in tensors.items()}
    if absent := [name for name in needed.shapes if not needed.tied[name] & held.keys()]:
        raise ValueError(f"{where}: {_counted(absent)}: absent")
    other = [name for name, shape in needed.shapes.items() if held.get(name, shape) != shape]
    if other:
        got, wanted = held[other[0]], needed.shapes[other[0]]
        raise ValueError(f"{where}: {_counted(other)}: got shape {got}, the class has {wanted}")


def _named(name: str, model_type: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return canonical_name(name, model_type)


def _counted(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without what transformers logs of a config that it refuses anyway."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)
