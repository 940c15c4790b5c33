"""Results as pieces of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from scaleinv_ray.inputs.wording import four_digits


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], *notes: str) -> str:
    """A small table with a title; None is a dash.

    Args:
        title: above it.
        head: names of the columns; none where they need no names.
        rows: as many cells each.
        notes: paragraphs below it.

    Returns:
        HTML in which every text is escaped.

    >>> table("a < b", (), [("x", None)])
    '<b>a &lt; b</b><table><tr><td>x</td><td>-</td></tr></table>'
    """
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    top = f"<tr>{names}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<b>{escape(title)}</b><table>{top}{body}</table>{below}"


def _cell(value: object) -> str:
    if value is None:
        return "<td>-</td>"
    return f"<td>{escape(four_digits(value))}</td>"
