"""Drawings in SVG that need no script: automata, and curves over a logarithmic axis."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SIZE, _RADIUS, _NODE = 190, 55, 15
_WIDE, _HIGH, _LEFT, _BELOW, _NAMES = 560, 250, 52, 36, 118
COLOURS = ("--size-4", "--random", "--weights", "--tokens", "--trained", "--size-1")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4")


class Curve(NamedTuple):
    """A curve with the name that stands at its end."""

    name: str
    y: np.ndarray


def automaton(table: Sequence[Sequence[int]], accepting: Sequence[int], title: str) -> str:
    """States on a circle, accepting ones with a double ring, the first marked by an arrow.

    Args:
        table: of every state the next one for each symbol; symbols are A, B, ..
        title: read out instead of the drawing.
    """
    size = len(table)
    places = [
        (
            _SIZE / 2 - _RADIUS * math.cos(2 * math.pi * i / size),
            _SIZE / 2 - _RADIUS * math.sin(2 * math.pi * i / size),
        )
        for i in range(size)
    ]
    labels: dict[tuple[int, int], str] = {}
    for state, row in enumerate(table):
        for symbol, target in enumerate(row):
            key = (state, target)
            labels[key] = ",".join(filter(None, (labels.get(key), chr(ord("A") + symbol))))
    edges = "".join(
        _loop(places[a], label) if a == b else _arrow(places[a], places[b], label)
        for (a, b), label in labels.items()
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


def _arrow(start: tuple[float, float], end: tuple[float, float], label: str) -> str:
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
        f'{_HEAD}/><text class="symbol" x="{at[0]:.1f}" y="{at[1] + 4:.1f}">{label}</text>'
    )


def _loop(place: tuple[float, float], label: str) -> str:
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
    return (
        f'<path class="edge" d="M{a[0]:.1f} {a[1]:.1f}C{points}" {_HEAD}/>'
        f'<text class="symbol" x="{at[0]:.1f}" y="{at[1] + 4:.1f}">{label}</text>'
    )


def curves(x: np.ndarray, lines: Sequence[Curve], *, x_name: str, y_name: str) -> str:
    """Curves over a logarithmic axis, named at their ends.

    Args:
        x: positive, rising.
        lines: of the same length as x.
    """
    low = min(float(line.y.min()) for line in lines)
    high = max(float(line.y.max()) for line in lines)
    low -= 0.06 * (high - low) or 1.0  # names at the ends stay clear of the axis
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next(f for f in (0.2, 0.5, 1, 2) if (high - low) / (step * f) <= 8)
    logs = np.log10(x)

    def at(log_x: float, y: float) -> tuple[float, float]:
        along = (log_x - logs[0]) / (logs[-1] - logs[0])
        return (
            _LEFT + along * (_WIDE - _LEFT - _NAMES),
            10 + (high - y) / (high - low) * (_HIGH - _BELOW - 10),
        )

    right, bottom = at(logs[-1], low)
    parts = []
    for tick in np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step:
        y = at(0, tick)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right:.1f}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in range(math.ceil(logs[0]), math.floor(logs[-1]) + 1):
        parts.append(
            f'<text class="tick" x="{at(tick, low)[0]:.1f}" y="{bottom + 16:.0f}">'
            f'10<tspan dy="-4" font-size="9">{tick}</tspan></text>'
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + right) / 2:.0f}" y="{_HIGH - 3}">{x_name}</text>'
    )
    taken: list[float] = []
    for i, line in sorted(enumerate(lines), key=lambda item: -item[1].y[-1]):
        points = "L".join(
            "{:.1f} {:.1f}".format(*at(a, b)) for a, b in zip(logs, line.y, strict=True)
        )
        style = f"stroke: var({COLOURS[i % 6]}); stroke-dasharray: {DASHES[i % 6] or 'none'}"
        parts.append(f'<path class="curve" style="{style}" d="M{points}"/>')
        y = max(at(0, float(line.y[-1]))[1], taken[-1] + 15 if taken else 0)
        taken.append(y)
        parts.append(
            f'<text class="name" style="fill: var({COLOURS[i % 6]})" x="{right + 6:.1f}" '
            f'y="{y + 4:.1f}">{html.escape(line.name)}</text>'
        )
    label = html.escape(f"{y_name} against {x_name}", quote=True)
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
