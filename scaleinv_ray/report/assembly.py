"""What every page is assembled of: files of this folder, facts, a frame with marked places."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.resources import files


def resource(name: str) -> str:
    """A style or script of this folder."""
    return (files("scaleinv_ray.report") / name).read_text(encoding="utf-8")


def scripts(names: tuple[str, ...]) -> str:
    """Scripts in the order in which they run."""
    return "".join(resource(f"{name}.js") for name in names)


def facts(found: Mapping[str, str]) -> str:
    """Names and values for a list of definitions, escaped.

    >>> facts({"seeds": "0 < 1"})
    '<div><dt>seeds</dt><dd>0 &lt; 1</dd></div>'
    """
    pairs = ((html.escape(name), html.escape(value)) for name, value in found.items())
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)


def filled(frame: str, parts: Mapping[str, str]) -> str:
    """A frame with its marks `%%NAME%%` replaced, each once: a title that reads like one stays.

    >>> filled("<b>%%TITLE%%</b>", {"TITLE": "%%TITLE%%"})
    '<b>%%TITLE%%</b>'
    """
    pieces = frame.split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
