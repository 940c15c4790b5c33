"""From YAML or a mapping to a checked config, and from pydantic's errors to one message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


class ConfigError(ValueError):
    """A config that cannot be used: what is wrong, where, and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML, where 1e-3 is a number and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; the base class would take the last of two equal keys in silence."""
        keys = [k.value for k, _ in node.value]
        if twice := {k for k in keys if keys.count(k) > 1}:
            raise yaml.constructor.ConstructorError(
                problem=f"key {min(twice)!r} stands more than once", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # YAML 1.1 reads 1e-3 as text, for want of a dot
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def load(model: type[M], source: str | Path | Mapping[str, Any]) -> M:
    """A checked config.

    Args:
        model: what it should be.
        source: a YAML file, or what it would hold.

    Returns:
        The config.

    Raises:
        ConfigError: for an unreadable file, and for everything that is wrong with what it says.
    """
    where = "" if isinstance(source, Mapping) else f"{source}: "
    data = source if isinstance(source, Mapping) else read_mapping(source)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_line(e["loc"], e) for e in error.errors(include_url=False)]
        raise ConfigError(where + "\n  ".join(problems)) from None


def read_mapping(file: str | Path) -> Mapping[str, Any]:
    """What a YAML file holds, not checked any further.

    Args:
        file: its path.

    Returns:
        Key -> value.

    Raises:
        ConfigError: for an unreadable file, and for one that holds no mapping.
    """
    try:
        data = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{file}: got {type(data).__name__}, allowed: a mapping (key: value)")
    return data


def _line(loc: Sequence[str | int], error: Mapping[str, Any]) -> str:
    path = _dotted(loc)
    if error["type"] == "missing":
        return f"{path}: required, got nothing"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        inside = not path or text.startswith(f"{path}.")
        return text if inside else f"{path}: {text}"
    allowed = error["msg"].removeprefix("Input should be ")
    if error["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        allowed = "a mapping"
    return f"{path}: got {error['input']!r}, allowed: {allowed}"


def _dotted(loc: Sequence[str | int]) -> str:
    """models[0].steps; the tag of the kind of source or probe, added by pydantic, is left out."""
    if loc[:1] in {("models",), ("probes",)} and len(loc) > 2:
        loc = (*loc[:2], *loc[3:])
    return re.sub(r"\.\[", "[", ".".join(f"[{p}]" if isinstance(p, int) else p for p in loc))
