"""Doctests of docstrings are shown as code: Markdown takes their prompts for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(
    r"^(?P<indent> *)>>> .*\n?(?:^(?P=indent)\S.*\n?|^(?P=indent) +\S.*\n?)*", re.M
)


class Doctests(griffe.Extension):
    """Fences the doctests of every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """After an object was read, with all that is in it."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    indent, text = found["indent"], found[0].rstrip("\n")
    return f"{indent}```pycon\n{text}\n{indent}```\n"
