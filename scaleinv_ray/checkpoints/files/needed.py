"""What the files of a model have to hold for its class, told by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scaleinv_ray.checkpoints.files.header_format import TensorHeader
from scaleinv_ray.checkpoints.files.roles import canonical_name

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


def needed_of(folders: Sequence[Path]) -> list[Needed | str]:
    """Of each folder what its files have to hold, or why no model can be built of config.json.

    To build a model takes torch, 300 MB that a driver would hold as long as its run: another
    process does it.

    Args:
        folders: with config.json; no code that lies there is run.

    Raises:
        CalledProcessError: where that process fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "scaleinv_ray.checkpoints.weights.fits"],
        input=json.dumps([str(folder) for folder in folders]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        # imports find what they find here, wherever this was started
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return [_answer_of(answer) for answer in json.loads(done.stdout)]


def _answer_of(answer: Any) -> Needed | str:
    if isinstance(answer, str):
        return answer
    model_type, shapes, tied = answer
    return Needed(
        model_type,
        {name: tuple(shape) for name, shape in shapes.items()},
        {name: frozenset(names) for name, names in tied.items()},
    )


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
