"""Boolean circuits, in SVG: gates in columns, each to the right of what it reads."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

_COLUMN, _ROW, _BOX, _TALL, _END = 118, 32, 84, 22, 26


class Box(NamedTuple):
    """A gate.

    Attributes:
        text: written in it.
        reads: wires: inputs count from 0, gates go on after them.
        sure: it never fails: drawn with a dashed outline.
    """

    text: str
    reads: Sequence[int]
    sure: bool


def circuit(num_inputs: int, boxes: Sequence[Box], outputs: Sequence[int], title: str) -> str:
    """Inputs at the left, gates in columns, an arrow out of every wire that is read at the end.

    Args:
        num_inputs: wires x0, x1, ..
        boxes: in order.
        outputs: wires.
        title: read out instead of the drawing.
    """
    depths = [0] * num_inputs
    for box in boxes:
        depths.append(1 + max(depths[wire] for wire in box.reads))
    columns = [[w for w, d in enumerate(depths) if d == depth] for depth in range(max(depths) + 1)]
    height = _ROW * max(map(len, columns)) + 8.0
    places: dict[int, tuple[float, float]] = {
        wire: (_COLUMN * depth + 20, height * (i + 0.5) / len(column))
        for depth, column in enumerate(columns)
        for i, wire in enumerate(column)
    }
    width = _COLUMN * (len(columns) - 1) + _BOX + _END + 24
    parts = []
    for i, box in enumerate(boxes):
        x, y = places[num_inputs + i]
        for k, wire in enumerate(box.reads):
            at = y + _TALL * ((k + 0.5) / len(box.reads) - 0.5)
            parts.append(_wire(_right(places[wire], wire < num_inputs), (x, at)))
    for wire in dict.fromkeys(outputs):
        u, v = _right(places[wire], wire < num_inputs)
        parts.append(f'<path class="edge" d="M{u} {v:.1f}H{u + _END}" marker-end="url(#head)"/>')
    for wire in range(num_inputs):
        x, y = places[wire]
        parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}">x{wire}</text>')
    parts += [_box(places[num_inputs + i], box) for i, box in enumerate(boxes)]
    return (
        f'<svg class="circuit" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">{"".join(parts)}</svg>'
    )


def _right(place: tuple[float, float], is_input: bool) -> tuple[float, float]:
    """Where the wires of an input or a gate begin."""
    return place[0] + (6 if is_input else _BOX), place[1]


def _wire(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (u, v) = start, end
    bend = (u - x) / 2
    return (
        f'<path class="edge" d="M{x:.0f} {y:.1f}'
        f'C{x + bend:.0f} {y:.1f} {u - bend:.0f} {v:.1f} {u:.0f} {v:.1f}"/>'
    )


def _box(place: tuple[float, float], box: Box) -> str:
    x, y = place
    return (
        f'<rect class="node{" sure" if box.sure else ""}" x="{x:.0f}" y="{y - _TALL / 2:.1f}" '
        f'width="{_BOX}" height="{_TALL}" rx="4"/>'
        f'<text x="{x + _BOX / 2:.0f}" y="{y + 4.5:.1f}">{html.escape(box.text)}</text>'
    )
