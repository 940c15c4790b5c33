"""One picture of a run: how much every quantity changes over the series, in margins.

Trained beside untrained, drawn as lines of text and of SVG, so that it needs no script.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from scaleinv_ray.report.findings import (
    UNTRAINED,
    BySize,
    Quantities,
    label_of,
    named_at,
    place_of,
    values_by_size,
)

FURTHEST = 60.0
"""Margins at the ends of the axis; what lies beyond is drawn there."""
TICKS = (-30, -10, -3, -1, 0, 1, 3, 10, 30)


class Change(NamedTuple):
    """From the smallest to the largest size, in margins, with its 95 % interval."""

    value: float
    low: float
    high: float


class Line(NamedTuple):
    """A quantity at a place, which its name says."""

    label: str
    quantity: str
    verdict: str
    kind: str
    trained: Change
    untrained: Change | None


def change(by_size: BySize, *, margin: float, unit: float | None) -> Change | None:
    """Change of the mean from the smallest to the largest size, in margins.

    Args:
        by_size: size -> values over seeds.
        margin: of the verdict.
        unit: in which it is judged; None: relative, as differences of ln|value|.

    Returns:
        The change, its interval by Welch's t; None with fewer than two seeds at an end, or where
        there is no logarithm.

    >>> found = change({1: [1.0, 1.0], 9: [1.1, 1.1]}, margin=0.1, unit=None)
    >>> [round(x, 6) for x in found]
    [1.0, 1.0, 1.0]
    """
    ends = [by_size[min(by_size)], by_size[max(by_size)]] if len(by_size) > 1 else []
    if not ends or min(map(len, ends)) < 2:
        return None
    if unit is None:
        if not (all(v > 0 for end in ends for v in end) or all(v < 0 for end in ends for v in end)):
            return None
        ends = [[math.log(abs(v)) for v in end] for end in ends]
    delta = math.log1p(margin) if unit is None else margin * unit
    value = (statistics.fmean(ends[1]) - statistics.fmean(ends[0])) / delta
    squares = [statistics.variance(end) / len(end) / delta**2 for end in ends]
    total = sum(squares)
    if total == 0:
        return Change(value, value, value)
    df = total**2 / sum(s**2 / (len(end) - 1) for s, end in zip(squares, ends, strict=True))
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(total)
    return Change(value, value - half, value + half)


def lines_of(
    rows: Sequence[Mapping[str, Any]], values: Iterable[Mapping[str, Any]], quantities: Quantities
) -> list[Line]:
    """The lines of the picture, those that change least first.

    Args:
        rows: the verdicts that are counted.
        values: of `ValueRow`.
        quantities: (invariant, quantity) -> what it means.
    """
    numbers = values_by_size(values, rows)
    found = []
    for row in rows:
        by_variant = numbers.get(place_of(row), {})
        of = {
            variant: change(by_size, margin=row["margin"], unit=row["unit"])
            for variant, by_size in by_variant.items()
        }
        trained = of.get("trained")
        if trained is not None:
            label = label_of(row, quantities)
            found.append(
                Line(label, named_at(row), row["verdict_kind"], row["null_kind"], trained,
                     of.get(UNTRAINED))
            )  # fmt: skip
    return sorted(found, key=lambda line: abs(line.trained.value))


def forest(lines: Sequence[Line]) -> str:
    """The picture in HTML; empty without lines.

    Args:
        lines: what `lines_of` returns.
    """
    if not lines:
        return ""
    body = "".join(_row(line) for line in lines)
    ticks = "".join(
        f'<text x="{_percent(t):.2f}%" y="14" text-anchor="middle">{t:+d}</text>'.replace("+0", "0")
        for t in TICKS
    )
    return (
        '<section id="picture" aria-labelledby="picture-title"><h2 id="picture-title">Change over '
        f'the series</h2><details class="phone" open><summary>Lines of the picture: {len(lines):,}'
        '</summary><p class="sub">From the smallest to the largest size, in margins of each '
        'quantity, with 95 % intervals: <span class="key trained">● trained</span>, <span '
        'class="key untrained">□ untrained</span>. Inside the band the change is below the margin; '
        "the verdicts below compare all sizes.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Change over the series">'
        f'<table class="forest"><thead><tr><th scope="col">Quantity</th><th scope="col"><svg '
        f'height="20" aria-hidden="true">{ticks}</svg></th></tr></thead><tbody>{body}</tbody>'
        "</table></div></details></section>"
    )


def _row(line: Line) -> str:
    said = f"trained {_in_words(line.trained)}"
    marks = [_mark(line.untrained, "untrained", 19)] if line.untrained else []
    if line.untrained:
        said += f"; untrained {_in_words(line.untrained)}"
    left, right = _percent(-1), _percent(1)
    band = f'<rect class="band" x="{left:.2f}%" width="{right - left:.2f}%" y="0" height="26"/>'
    zero = '<line class="zero" x1="50%" x2="50%" y1="0" y2="26"/>'
    name = html.escape(line.label[:1].upper() + line.label[1:])
    beside = "" if line.kind == "undetermined" else line.kind  # it would read as the verdict
    classes = html.escape(f"{line.quantity}: {', '.join(filter(None, [line.verdict, beside]))}")
    return (
        f'<tr><th scope="row">{name} <span class="needs">{classes}</span></th>'
        f'<td><svg height="26" role="img" aria-label="{said} margins"><title>{said} margins</title>'
        f"{band}{zero}{''.join(marks)}{_mark(line.trained, 'trained', 8)}</svg></td></tr>"
    )


def _mark(of: Change, name: str, y: int) -> str:
    at = _percent(of.value)
    shape = (
        f'<circle cx="{at:.2f}%" cy="{y}" r="4"/>'
        if name == "trained"
        else f'<svg x="{at:.2f}%" y="{y}" overflow="visible"><rect x="-3.5" y="-3.5" width="7" '
        'height="7"/></svg>'
    )
    low, high = _percent(of.low), _percent(of.high)
    line = f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="{y}" y2="{y}"/>'
    return f'<g class="{name}">{line}{shape}</g>'


def _percent(margins: float) -> float:
    """Place on the axis, which is linear inside a margin and logarithmic far from it."""
    most = math.asinh(FURTHEST)
    return 50 + 48 * max(-1.0, min(1.0, math.asinh(margins) / most))


def _in_words(of: Change) -> str:
    return f"{of.value:+.2g} [{of.low:+.2g}, {of.high:+.2g}]"
