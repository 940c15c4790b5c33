"""Text to train and to probe with, split by file: prose and code."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from scaleinv_ray.inputs.paths import check_plain, expanded

Kind = Literal["prose", "code"]
Split = Literal["train", "held_out"]
KINDS: tuple[Kind, ...] = ("prose", "code")
STDLIB = "python-stdlib"

# Folders of the standard library without text of its own: other people's packages, tests, and
# tables (encodings: character maps; pydoc_data: the topics, read as prose instead).
_NOT_TEXT = frozenset({
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test",
    "encodings", "pydoc_data",
})  # fmt: skip


_LEAST_LINES = 20
"""Of a single file, of which a part is held out."""


@dataclass(frozen=True)
class Document:
    """One text of the corpus.

    Attributes:
        name: relative name of the file (or topic) it comes from; with `kind` it is unique.
        kind: prose or code.
        source: what the file holds.
        docstrings: the text is what the documentation strings in `source` say.
    """

    name: str
    kind: Kind
    source: str = field(repr=False)
    docstrings: bool = False

    @cached_property
    def text(self) -> str:
        """The document's text; documentation strings are parsed when they are first wanted."""
        return documentation(self.source) if self.docstrings else self.source


@dataclass(frozen=True)
class Corpus:
    """Documents of two disjoint sets of files.

    Attributes:
        train: documents to train on, in order of name.
        held_out: documents to evaluate and probe on, in order of name.
        digest: first 16 hex digits of the sha256 over side, name, kind and source of all of them.
        skipped: files that could not be read as UTF-8 text.
    """

    train: tuple[Document, ...] = field(repr=False)
    held_out: tuple[Document, ...] = field(repr=False)
    digest: str
    skipped: int = 0

    def documents(self, split: Split, kind: Kind) -> tuple[Document, ...]:
        """The documents of one kind on one side, in order of name."""
        return tuple(d for d in getattr(self, split) if d.kind == kind)


def load_corpus(
    spec: str | Path | Sequence[str | Path], *, held_out_fraction: float = 0.1
) -> Corpus:
    """Reads a corpus and splits it by file.

    Of the files of each type (`.py`, topics, other) those with the smallest sha256 of their
    relative name are held out, round(held_out_fraction * n) of them and at least one of two. A
    module's source and its documentation strings are therefore on the same side. Where there is one
    file of each type alone, its last lines are held out.

    Args:
        spec: 'python-stdlib' (the library of the running interpreter: sources are code;
            documentation strings and pydoc's topics are prose) or files and folders (`.py` files
            are code, other text files prose; hidden files are left out, binary ones skipped).
        held_out_fraction: share of the files held out, in (0, 1).

    Returns:
        The corpus; it depends on the names below the given folders and on the contents only.

    Raises:
        ValueError: a path that does not exist, no text at all, or one file only of few lines
            (nothing to hold out).
    """
    if not 0 < held_out_fraction < 1:
        raise ValueError(f"held_out_fraction: got {held_out_fraction}, allowed 0 < fraction < 1")
    if spec == STDLIB:
        return _stdlib(held_out_fraction)
    paths = [spec] if isinstance(spec, (str, Path)) else list(spec)
    files, skipped = _read(_user_files([expanded(p) for p in paths]))
    documents = [
        Document(name, "code" if name.endswith(".py") else "prose", text)
        for name, text in files.items()
    ]
    return _split(documents, held_out_fraction, what=str(spec), skipped=skipped)


def documentation(source: str) -> str:
    r"""The documentation strings of a module, its classes and functions, empty lines between.

    Args:
        source: Python source; what does not parse has none.

    Returns:
        The cleaned strings, the module's own first.

    >>> documentation('"Top."\ndef f():\n    "Inner."\n')
    'Top.\n\nInner.'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that other people's sources get wrong
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return ""
    return "\n\n".join(_docstrings(tree))


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield text
    for child in ast.iter_child_nodes(node):
        # Expressions hold no definitions; leaving them out makes the walk four times faster.
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield from _docstrings(child)


@lru_cache(maxsize=2)
def _stdlib(held_out_fraction: float) -> Corpus:
    """Kept for the life of the process: the running interpreter's library does not change."""
    files, skipped = _read(_stdlib_files(Path(sysconfig.get_path("stdlib"))))
    documents = [Document(name, "code", text) for name, text in files.items()]
    documents += [Document(name, "prose", text, True) for name, text in files.items()]
    documents += [Document(f"topics/{name}", "prose", text) for name, text in _topics().items()]
    return _split(documents, held_out_fraction, what=STDLIB, skipped=skipped)


def _stdlib_files(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_TEXT]  # not entered at all
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                found[path.relative_to(root).as_posix()] = path
    return found


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions package pydoc's data apart
        return {}
    return dict(topics)


def _user_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Relative name -> file; a folder's own name is the first part of the names below it."""
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"corpus: got {str(path)!r}, allowed 'python-stdlib' or what exists")
        check_plain("corpus", path)
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            parts = file.relative_to(path).parts if path.is_dir() else ()
            if any(part.startswith(".") for part in parts):
                continue
            name = "/".join((path.resolve().name, *parts))
            if found.setdefault(name, file).resolve() != file.resolve():
                raise ValueError(f"corpus: got two files named {name!r}, allowed distinct names")
    return found


def _read(paths: dict[str, Path]) -> tuple[dict[str, str], int]:
    """Texts by name, in order of name, and how many files are no text."""
    texts: dict[str, str] = {}
    for name in sorted(paths):
        try:
            text = paths[name].read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if "\0" not in text:
            texts[name] = text
    return texts, len(paths) - len(texts)


def _split(documents: list[Document], fraction: float, *, what: str, skipped: int) -> Corpus:
    if not any(document.source for document in documents):
        raise ValueError(
            f"corpus: got no text in {what} ({skipped} files skipped), allowed UTF-8 text files"
        )
    held_out: set[str] = set()
    for group in _groups(documents):
        by_hash = sorted(group, key=lambda name: hashlib.sha256(name.encode()).digest())
        count = max(round(fraction * len(group)), 1) if len(group) > 1 else 0
        held_out.update(by_hash[:count])
    train = tuple(d for d in documents if d.name not in held_out)
    rest = tuple(d for d in documents if d.name in held_out)
    if not rest:
        train, rest = _cut(documents, fraction, what)
    return Corpus(train, rest, _digest(train, rest), skipped)


def _cut(
    documents: Sequence[Document], fraction: float, what: str
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Where every type has a single file, its last lines are held out, if it has enough of them."""
    train, rest = [], []
    for document in documents:
        lines = document.source.splitlines(keepends=True)
        at = len(lines) - max(round(fraction * len(lines)), 1)
        if len(lines) < _LEAST_LINES:
            train.append(document)
            continue
        train.append(replace(document, source="".join(lines[:at])))
        rest.append(replace(document, source="".join(lines[at:])))
    if not rest:
        raise ValueError(
            f"corpus: got a single file of its type in {what}, allowed at least two, or "
            f"{_LEAST_LINES} lines in it (some text is held out from training)"
        )
    return tuple(train), tuple(rest)


def _groups(documents: list[Document]) -> list[set[str]]:
    """Names of non-empty files by type, so that each type is found on both sides."""
    groups: dict[str, set[str]] = {}
    for document in documents:
        if document.source:
            kind = "code" if document.name.endswith(".py") else document.name.partition("/")[0]
            kind = kind if kind in {"code", "topics"} else "prose"
            groups.setdefault(kind, set()).add(document.name)
    return list(groups.values())


def _digest(train: Sequence[Document], held_out: Sequence[Document]) -> str:
    total = hashlib.sha256()
    for side, documents in (("train", train), ("held_out", held_out)):
        for d in documents:
            content = hashlib.sha256(d.source.encode()).hexdigest()
            total.update(f"{side}\0{d.name}\0{d.kind}\0{d.docstrings}\0{content}\n".encode())
    return total.hexdigest()[:16]
