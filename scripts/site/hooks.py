"""Hooks of mkdocs: pages made of what the package says of itself, and links to files of the tree.

Nothing of them is written twice: the files at the root are pages as they are, the reference of the
config comes from its models, the dictionary of columns from the schemas, the glossary from the page
of the report. `mkdocs build --strict` makes `site/`.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import reference  # noqa: E402 - lies beside this file

AT_ROOT = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
MADE = {
    "configuration.md": reference.configuration,
    "columns.md": reference.columns,
    "glossary.md": reference.glossary,
    "dictionary.md": reference.dictionary,
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")
_PICTURE = re.compile(r"(!\[[^\]]*\]\()docs/")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made, and those at the root of the tree."""
    for name, page in AT_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_PICTURE.sub(r"\1", text)))
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are written for a reader of the tree become those of the site."""
    at_root = {page: name for name, page in AT_ROOT.items()}
    source = at_root.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replaced(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = AT_ROOT.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is None and (ROOT / path).exists():
            return text  # a file of the tree that is no page
        if inside is None:
            return found[0]
        at = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({at}{anchor})"

    return _LINK.sub(replaced, markdown)
