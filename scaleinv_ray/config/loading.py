"""From a mapping to a checked config, and from pydantic's errors to one message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from scaleinv_ray.config.reader import ConfigError, read_mapping
from scaleinv_ray.inputs.paths import absolute
from scaleinv_ray.inputs.reading import ROOM
from scaleinv_ray.inputs.wording import clipped, shown

M = TypeVar("M")
_ALLOWED = {
    "too_short": "a list of at least 1 item",
    "string_too_short": "a text, not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_type": "a valid string (a number as one stands in quotes)",
    "int_type": "a valid integer",
    "int_from_float": "a valid integer",
    "int_parsing": "a valid integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "finite_number": "a finite number",
    "recursion_loop": "no value that holds itself",
}
"""What pydantic says in words of its own language -> the user's."""


def load(
    model: type[M], source: str | Path | Mapping[str, Any], *, folder: str | Path | None = None
) -> M:
    """A checked config.

    Args:
        model: what it should be: a model, or a type that pydantic knows.
        source: a YAML file, or what it would hold.
        folder: where relative paths start; the file's folder by default. A mapping's paths stay
            as they are by default, relative to the working directory.

    Returns:
        The config, its paths absolute where the folder is known.

    Raises:
        ConfigError: for an unreadable file, and for everything that is wrong with what it says.
    """
    where, data = "", source
    if not isinstance(source, Mapping):
        where, data = f"{clipped(source, 120)}: ", read_mapping(source)
        folder = folder or Path(absolute(source)).parent
    try:
        return TypeAdapter(model).validate_python(data, context={"folder": folder, "root": model})
    except ValidationError as error:
        problems = {_dotted(e["loc"]): _line(e["loc"], e) for e in _causes(error)}
        first, *others = problems.values()
        told = [clipped(first, ROOM - len(where)), *others]
        if others and sum(map(len, told)) + len(where) > ROOM:  # the first, the others by place
            more = f"and {len(others)} more: {clipped(', '.join(list(problems)[1:]), 60)}"
            told = [clipped(first, ROOM - len(where) - len(more)), more]
        raise ConfigError(where + "\n  ".join(told)) from None


def _causes(error: ValidationError) -> list[Any]:
    """Its errors, without those that say that a list is empty because of its wrong items."""
    found = error.errors(include_url=False)
    inner = {e["loc"][:n] for e in found for n in range(len(e["loc"]))}
    return [e for e in found if e["type"] != "too_short" or e["loc"] not in inner]


def _line(loc: Sequence[str | int], error: Mapping[str, Any]) -> str:
    path = _dotted(loc)
    kind, got = error["type"], error["input"]
    if kind == "missing":
        return f"{path}: required, got nothing"
    if kind == "value_error":
        text = str(error["ctx"]["error"])
        inside = not path or text.startswith(f"{path}.")
        return text if inside else f"{path}: {text}"
    allowed = error["msg"].removeprefix("Input should be ")
    if kind == "source" and isinstance(got, str):
        hub = got if "/" in got else f"organisation/{got}"
        allowed = f"a mapping, as '- path: {clipped(got, 40)}' or '- hub: {clipped(hub, 60)}'"
    return f"{path}: got {shown(got)}, allowed: {_ALLOWED.get(kind, allowed)}"


def _dotted(loc: Sequence[str | int]) -> str:
    """models[0].steps; the tag of the kind of source or probe, added by pydantic, is left out."""
    if loc[:1] in {("models",), ("probes",)} and len(loc) > 2:
        loc = (*loc[:2], *loc[3:])
    names = [f"[{p}]" if isinstance(p, int) else clipped(p, 60) for p in loc if p != "[key]"]
    return re.sub(r"\.\[", "[", ".".join(names))
