"""Probe sets of the user's own: texts in a file of JSON lines, in a column of Parquet, or plain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from scaleinv_ray.inputs.paths import check_plain, expanded
from scaleinv_ray.inputs.reading import reading
from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.probes.corpus import Document
from scaleinv_ray.probes.parquet import column_of
from scaleinv_ray.probes.registry import Layout, ProbeRequest, ProbeSet
from scaleinv_ray.probes.text import apart, packed


def text_file(
    name: str, file: str | Path, *, field: str = "text", layout: Layout = "packed"
) -> ProbeSet:
    """A probe set of the texts in a file: what is asked is every next token.

    Packed, the texts are put one behind the other in random order, an empty line between, and cut
    into sequences, as held-out prose is. As documents, each sequence is the beginning of one text;
    shorter ones are left out. The digest of the tokens, and with it every key that is derived from
    them, follows the content of the file.

    Args:
        file: in UTF-8: `.parquet` with a column of texts; `.txt`, whose lines are documents, or all
            of which is one where texts are packed; else JSON lines, one object a line. Empty lines
            are passed over.
        field: name of the column, or of every object's text.
        layout: of the texts in sequences.

    Returns:
        The probe set; the file is read when tokens are built.
    """
    path = expanded(file)
    return ProbeSet(
        name=name,
        version=1,
        description=f"field {field!r} of {path.name}",
        needs_corpus=False,
        function=partial(_tokens, path, field, layout),
        layout=layout,
    )


def _tokens(file: Path, field: str, layout: Layout, request: ProbeRequest) -> np.ndarray:
    with reading(file):
        check_plain("probes", file)
        found = list(_documents(file, field, layout))
        if layout == "documents":
            return apart(request, found, what=f"documents in {file}")
        what = "text" if file.suffix.lower() == ".txt" else f"field {field!r}"
        return packed(request, found, what=f"{what} in {file}")


def _documents(file: Path, field: str, layout: Layout) -> Iterator[Document]:
    ending = file.suffix.lower()
    if ending == ".parquet":
        yield from _column(file, field)
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"probes: got {str(file)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"probes: got {str(file)!r}, allowed: .txt or JSON lines in UTF-8, .parquet "
            f"({error.reason} at byte {error.start})"
        ) from error
    plain = ending == ".txt"
    lines = [text] if plain and layout == "packed" else text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{file}, line {number}"
            yield Document(f"line {number}", "prose", line if plain else _text(line, field, where))


def _column(file: Path, field: str) -> Iterator[Document]:
    found = column_of(file, field)
    if str(found.type).startswith("dictionary<values=string"):  # a column of categories
        found = found.cast("string")
    if str(found.type) not in {"string", "large_string", "string_view"}:
        raise ValueError(f"{file}: {field}: got {found.type}, allowed texts")
    for number, text in enumerate(found.to_pylist()):
        if text is None:
            raise ValueError(f"{file}, row {number}: {field}: got no value, allowed a text")
        if text.strip():
            yield Document(f"row {number}", "prose", text)


def _text(line: str, field: str, where: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: got {line[:40]!r}, allowed: a JSON object, or another file (.txt, .parquet)"
        ) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"{where}: got {line[:40]!r}, allowed JSON ({error!s:.60})") from error
    except RecursionError as error:
        raise ValueError(f"{where}: got {line[:40]!r}, nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {line[:40]!r}, allowed a JSON object")
    if field not in value:
        raise ValueError(
            f"{where}: got fields {shown(sorted(value))}, needs {shown(field, 40)} as its field, "
            "or another of these (field: ..)"
        )
    if not isinstance(value[field], str):
        raise ValueError(f"{where}: {field}: got {value[field]!r:.40}, allowed a text")
    try:
        value[field].encode()
    except UnicodeEncodeError as error:  # JSON may hold halves of surrogate pairs
        raise ValueError(f"{where}: {field}: allowed Unicode text ({error})") from error
    return value[field]
