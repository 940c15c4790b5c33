"""Probe sets of the user's own: texts in a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from scaleinv_ray.inputs.paths import check_plain, expanded
from scaleinv_ray.inputs.reading import reading
from scaleinv_ray.probes.corpus import Document
from scaleinv_ray.probes.registry import ProbeRequest, ProbeSet
from scaleinv_ray.probes.text import packed


def json_lines(name: str, file: str | Path, *, field: str = "text") -> ProbeSet:
    """A probe set of the texts in a file, one JSON object a line.

    The texts are put one behind the other in random order, an empty line between, and cut into
    sequences, as held-out prose is: what is asked is every next token. The digest of the tokens,
    and with it every key that is derived from them, follows the content of the file.

    Args:
        file: JSON lines in UTF-8; empty lines are passed over.
        field: of every object, with its text.

    Returns:
        The probe set; the file is read when tokens are built.
    """
    path = expanded(file)
    return ProbeSet(
        name=name,
        version=1,
        description=f"field {field!r} of {path.name}",
        needs_corpus=False,
        function=partial(_tokens, path, field),
    )


def _tokens(file: Path, field: str, request: ProbeRequest) -> np.ndarray:
    with reading(file):
        return packed(request, list(_documents(file, field)), what=f"field {field!r} in {file}")


def _documents(file: Path, field: str) -> Iterator[Document]:
    check_plain("probes", file)
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"probes: got {str(file)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"probes: got {str(file)!r}, allowed UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Document(f"line {number}", "prose", _text(line, field, f"{file}, line {number}"))


def _text(line: str, field: str, where: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: got {line[:40]!r}, allowed JSON ({error.msg})") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"{where}: got {line[:40]!r}, allowed JSON ({error!s:.60})") from error
    except RecursionError as error:
        raise ValueError(f"{where}: got {line[:40]!r}, nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {line[:40]!r}, allowed a JSON object")
    if field not in value:
        raise ValueError(f"{where}: got fields {sorted(value)}, needs {field!r}")
    if not isinstance(value[field], str):
        raise ValueError(f"{where}: {field}: got {value[field]!r:.40}, allowed a text")
    try:
        value[field].encode()
    except UnicodeEncodeError as error:  # JSON may hold halves of surrogate pairs
        raise ValueError(f"{where}: {field}: allowed Unicode text ({error})") from error
    return value[field]
