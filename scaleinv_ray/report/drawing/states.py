"""Machines of states, in SVG: automata and Turing machines."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

_SIZE, _RADIUS, _NODE = 190, 55, 15


def automaton(table: Sequence[Sequence[int]], accepting: Sequence[int], title: str) -> str:
    """States on a circle, accepting ones with a double ring, the first marked by an arrow.

    Args:
        table: of every state the next one for each symbol; symbols are A, B, ..
        title: read out instead of the drawing.
    """
    labels: dict[tuple[int, int], list[str]] = {}
    for state, row in enumerate(table):
        for symbol, target in enumerate(row):
            labels.setdefault((state, target), []).append(chr(ord("A") + symbol))
    return _machine(len(table), {k: [",".join(v)] for k, v in labels.items()}, accepting, title)


def turing(
    table: Sequence[Sequence[tuple[int, int, int]]], accepting: Sequence[int], title: str
) -> str:
    """As an automaton, with what is read, what is written and where the head goes.

    Args:
        table: of every state, for each symbol, the symbol written, -1, 0 or 1 along the tape, and
            the next state.
        title: read out instead of the drawing.
    """
    labels: dict[tuple[int, int], list[str]] = {}
    for state, row in enumerate(table):
        for symbol, (write, step, target) in enumerate(row):
            said = f"{symbol}/{write} {'LSR'[step + 1]}"
            labels.setdefault((state, target), []).append(said)
    return _machine(len(table), labels, accepting, title)


def _machine(
    size: int, labels: Mapping[tuple[int, int], list[str]], accepting: Sequence[int], title: str
) -> str:
    """Labels are lines of text on the edge from a state to a state."""
    places = [
        (
            _SIZE / 2 - _RADIUS * math.cos(2 * math.pi * i / size),
            _SIZE / 2 - _RADIUS * math.sin(2 * math.pi * i / size),
        )
        for i in range(size)
    ]
    edges = "".join(
        _loop(places[a], lines) if a == b else _arrow(places[a], places[b], lines)
        for (a, b), lines in labels.items()
    )
    nodes = "".join(_node(places[i], i, i in accepting) for i in range(size))
    x, y = places[0]
    begin = f'<path class="edge" d="M{x - 38:.0f} {y:.0f}L{x - _NODE - 2:.0f} {y:.0f}" {_HEAD}/>'
    return (
        f'<svg class="automaton" viewBox="0 0 {_SIZE} {_SIZE}" width="{_SIZE}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">{edges}{begin}{nodes}</svg>'
    )


_HEAD = 'marker-end="url(#head)"'
MARKER = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>'
    '<marker id="head" '
    'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs></svg>'
)
"""Arrow head, once a page."""


def _node(place: tuple[float, float], name: int, is_accepting: bool) -> str:
    x, y = place
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{_NODE - 3.5}"/>'
    return (
        f'<circle class="node" cx="{x:.1f}" cy="{y:.1f}" r="{_NODE}"/>'
        f"{ring if is_accepting else ''}"
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}">{name}</text>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], lines: list[str]) -> str:
    """Bent to its left, so that there and back do not lie on each other."""
    (x, y), (u, v) = start, end
    far = math.hypot(u - x, v - y)
    along = ((u - x) / far, (v - y) / far)
    bend = (along[1] * 16, -along[0] * 16)
    mid = ((x + u) / 2 + bend[0], (y + v) / 2 + bend[1])
    ends = []
    for (a, b), reach in (((x, y), _NODE), ((u, v), _NODE + 2)):
        away = math.hypot(mid[0] - a, mid[1] - b)
        ends.append((a + (mid[0] - a) * reach / away, b + (mid[1] - b) * reach / away))
    (a, b), (c, d) = ends
    at = ((x + u) / 2 + bend[0] * 1.05, (y + v) / 2 + bend[1] * 1.05)
    return (
        f'<path class="edge" d="M{a:.1f} {b:.1f}Q{mid[0]:.1f} {mid[1]:.1f} {c:.1f} {d:.1f}" '
        f"{_HEAD}/>{_written(at, lines)}"
    )


def _loop(place: tuple[float, float], lines: list[str]) -> str:
    """From a state to itself, away from the middle of the circle."""
    x, y = place
    angle = math.atan2(y - _SIZE / 2, x - _SIZE / 2)
    if abs(abs(angle) - math.pi) < 0.1:  # the arrow of the start is there
        angle = -math.pi / 2
    a, b = (
        (x + _NODE * math.cos(angle + turn), y + _NODE * math.sin(angle + turn))
        for turn in (-0.5, 0.5)
    )
    c, d = (
        (x + 42 * math.cos(angle + turn), y + 42 * math.sin(angle + turn)) for turn in (-0.5, 0.5)
    )
    at = (x + 46 * math.cos(angle), y + 46 * math.sin(angle))
    points = " ".join(f"{p:.1f} {q:.1f}" for p, q in (c, d, b))
    return f'<path class="edge" d="M{a[0]:.1f} {a[1]:.1f}C{points}" {_HEAD}/>{_written(at, lines)}'


def _written(place: tuple[float, float], lines: list[str]) -> str:
    """Text round a place, a line below the other."""
    x, y = place
    first = y + 4 - 6.5 * (len(lines) - 1)
    return "".join(
        f'<text class="symbol" x="{x:.1f}" y="{first + 13 * i:.1f}">{line}</text>'
        for i, line in enumerate(lines)
    )
