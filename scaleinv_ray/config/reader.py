"""YAML as it was written: the core schema of YAML 1.2, and nothing that is no config.

PyYAML reads YAML 1.1, where 010 is eight, 1:30 is ninety, yes is true, 2024-01-01 a date and 1e-3 a
text. Here numbers are decimal (`0o10` and `0x8` say otherwise), true and false are the only truth
values, and whatever is none of these is the text that stands there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from scaleinv_ray.inputs.paths import expanded
from scaleinv_ray.inputs.wording import clipped, shown, sized

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
"""Tag, what is written so, first characters (YAML 1.2.2, section 10.3.2; `<<` is usual besides)."""
_MOST_BYTES = 4_000_000
_MOST_DEPTH = 50
_MOST_NODES = 1_000_000
"""With aliases put in full: a few lines of them may stand for more than a memory holds."""


class ConfigError(ValueError):
    """A config that cannot be used: what is wrong, where, and what is allowed."""


class _Loader(yaml.SafeLoader):
    """The core schema; one of each key, of bounded depth and size, no cycles and no other tags."""

    yaml_implicit_resolvers: dict[Any, Any] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._depth = 0
        self._nodes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, checked before anything is made of it."""
        mark = self.peek_event().start_mark
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise _wrong(f"nested deeper than {_MOST_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if alias and node.end_mark is None:  # it is being composed
            raise _wrong("a value that holds itself", mark)
        if not alias:
            self._nodes[id(node)] = 1 + sum(self._nodes[id(n)] for n in _children(node))
        if self._nodes[id(node)] > _MOST_NODES:
            raise _wrong(f"more than {_MOST_NODES} values, its aliases put in full", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; the base class would take the last of two equal keys in silence."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_TAG}merge":
                continue  # what no mapping has as its key is refused below
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _wrong(f"key {shown(key)} stands more than once", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=True)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [n for pair in node.value for n in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _wrong(what: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(problem=what, problem_mark=mark)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    try:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    except ValueError as error:  # an explicit tag, or more digits than Python reads
        raise _wrong(f"got {shown(text)}, allowed: an integer", node.start_mark) from error


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as error:
        raise _wrong(f"got {shown(text)}, allowed: a number", node.start_mark) from error


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node)).lower()
    if text not in {"true", "false"}:
        raise _wrong(f"got {shown(text)}, allowed: true or false", node.start_mark)
    return text == "true"


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    r"""A text; what JSON escapes as two halves (\ud83d\ude00) is the one character they mean."""
    text = str(loader.construct_scalar(node))
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise _wrong(f"got {shown(text)}, allowed: Unicode text", node.start_mark) from error


for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))
for _name, _make in {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _text,
    "seq": yaml.SafeLoader.construct_yaml_seq,
    "map": yaml.SafeLoader.construct_yaml_map,
}.items():
    _Loader.add_constructor(_TAG + _name, _make)
_Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # type: ignore[type-var]


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or of YAML 1.2 would take for something else than text."""


for _name, _pattern, _first in _CORE:
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def parse_yaml(data: bytes | str, where: str | Path) -> Any:
    """What a YAML document says.

    Args:
        where: its name, for messages.

    Returns:
        Mappings, lists, texts, numbers, truth values and None.

    Raises:
        ConfigError: for what is no YAML, or no config: a key twice, cycles, tags, too much of it.

    >>> parse_yaml("{a: 010, b: 1:30, c: yes, d: 1e-3, e: 2024-01-01}", "x")
    {'a': 10, 'b': '1:30', 'c': 'yes', 'd': 0.001, 'e': '2024-01-01'}
    """
    try:
        return yaml.load(data.encode() if isinstance(data, str) else data, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigError(f"{where}: not YAML: {clipped(error.problem, 160)}{line}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"{where}: not YAML, no text: {clipped(reason, 160)}") from error


def read_yaml(file: str | Path) -> Any:
    """What a YAML file says, not checked any further.

    Returns:
        As `parse_yaml`.

    Raises:
        ConfigError: for an unreadable file, one that is too long, and as `parse_yaml`.
    """
    try:
        with expanded(file).open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{clipped(file, 160)}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{file}: got more than {sized(_MOST_BYTES)}, allowed: a config")
    return parse_yaml(data, file)


def as_mapping(data: Any, where: str | Path) -> Mapping[str, Any]:
    """What was read, where it is a mapping; ConfigError where it is anything else."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: got {type(data).__name__}, allowed: a mapping (key: value)")
    return data


def read_mapping(file: str | Path) -> Mapping[str, Any]:
    """The mapping in a YAML file; ConfigError where there is none."""
    return as_mapping(read_yaml(file), file)


def write_yaml(data: Mapping[str, Any]) -> str:
    """A mapping as YAML that readers of both versions read alike, in the order given."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)
