"""Curves over a logarithmic axis, in SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_WIDE, _HIGH, _LEFT, _BELOW, _NAMES, _TOP = 560, 262, 52, 36, 118, 22
_LINE = 15
COLOURS = ("--size-4", "--random", "--weights", "--tokens", "--trained", "--size-1")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4")


class Curve(NamedTuple):
    """A curve with the name that stands at its end."""

    name: str
    y: np.ndarray


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
            _TOP + (high - y) / (high - low) * (_HIGH - _BELOW - _TOP),
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
    parts.append(f'<text class="tick name" x="4" y="11">{html.escape(y_name)}</text>')
    ends = _apart([at(0, float(line.y[-1]))[1] for line in lines], bottom)
    for i, (line, y) in enumerate(zip(lines, ends, strict=True)):
        points = "L".join(
            "{:.1f} {:.1f}".format(*at(a, b)) for a, b in zip(logs, line.y, strict=True)
        )
        style = f"stroke: var({COLOURS[i % 6]}); stroke-dasharray: {DASHES[i % 6] or 'none'}"
        parts.append(f'<path class="curve" style="{style}" d="M{points}"/>')
        parts.append(
            f'<text class="name" style="fill: var({COLOURS[i % 6]})" x="{right + 6:.1f}" '
            f'y="{y + 4:.1f}">{html.escape(line.name)}</text>'
        )
    label = html.escape(f"{y_name} against {x_name}", quote=True)
    return (
        f'<svg class="curves" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _apart(heights: Sequence[float], lowest: float) -> list[float]:
    """Heights of names that do not lie on each other, and none below the axis."""
    found, order = list(heights), sorted(range(len(heights)), key=lambda i: heights[i])
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + _LINE)
    most = lowest
    for i in reversed(order):
        found[i] = min(found[i], most)
        most = found[i] - _LINE
    return found
