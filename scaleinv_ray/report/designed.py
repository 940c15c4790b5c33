"""The page of a design: every model that was measured, the target, and what was certified."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

PURPOSES = {
    "random": ("random configurations", "#b34a00", "circle-open"),
    "default": ("default", "#555b65", "square"),
    "theory": ("where theory points", "#00795a", "diamond"),
    "search": ("search", "#0072b2", "circle"),
    "certificate": ("certificate, on unseen seeds", "#a3478a", "star"),
}
"""Purpose of a measurement -> label, colour, symbol; drawn in this order."""
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:24px auto;padding:0 16px;"
    "color:#1b1d21}h1{font-size:24px}li{margin:2px 0}.verdict{font-weight:620}"
)


def design_page(
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[str],
    *,
    title: str,
    margins: Mapping[str, float],
    log: Mapping[str, bool],
) -> bytes:
    """A page with what is told of a design, and a figure for each of its targets.

    Args:
        rows: of the table of evaluations.
        lines: what is told; the verdicts come last.
        title: of the page.
        margins: target -> margin of ln(mean / target).
        log: searched dimensions that are intervals -> whether equal ratios are equal steps. One
            alone is the axis; else the configurations follow in the order in which they were made.

    Returns:
        HTML in UTF-8, whole in itself.
    """
    told = "".join(
        f"<li{' class=verdict' if 'certified:' in line else ''}>{html.escape(line)}</li>"
        for line in lines
    )
    figures = [
        _figure([r for r in rows if r["target"] == target], target, margin, log).to_html(
            full_html=False, include_plotlyjs=first, config={"displaylogo": False}
        )
        for first, (target, margin) in zip(
            [True, *[False] * len(margins)], margins.items(), strict=False
        )
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><ul>{told}</ul>{''.join(figures)}"
    ).encode()


def _figure(
    rows: Sequence[Mapping[str, Any]], target: str, margin: float, log: Mapping[str, bool]
) -> go.Figure:
    wanted = rows[0]["wanted"]
    places = list(dict.fromkeys(row["point"] for row in rows))
    [name, *others] = [*log, "configuration"]
    alone = bool(log) and others == ["configuration"] and set(_point(rows[-1])) == {name}

    def place(row: Mapping[str, Any]) -> float | None:
        return _point(row).get(name) if alone else places.index(row["point"])

    figure = go.Figure()
    figure.add_hline(y=wanted, line={"color": "#1b1d21", "width": 1})
    low, high = wanted * (1 - margin), wanted * (1 + margin)
    figure.add_hrect(y0=low, y1=high, fillcolor="#0b5fa5", opacity=0.12, line_width=0)
    said = sorted({(place(r), r["predicted"]) for r in rows if r["predicted"] and place(r)})
    if alone and len(said) > 1:
        x, y = zip(*said, strict=True)
        figure.add_scatter(
            x=x, y=y, name="closed form", mode="lines", line={"color": "#00795a", "dash": "dot"}
        )
    for purpose, (label, color, symbol) in PURPOSES.items():
        own = [r for r in rows if r["purpose"] == purpose and r["value"] is not None]
        own = [r for r in own if place(r) is not None]
        if own:
            figure.add_scatter(
                x=[place(r) for r in own],
                y=[r["value"] for r in own],
                text=[f"{r['point']}, seed {r['seed']}" for r in own],
                mode="markers",
                name=label,
                marker={"color": color, "symbol": symbol, "size": 9},
            )
    axis = {"title": name if alone else "configuration, in the order of measurement"}
    scale = {"type": "log"} if alone and log[name] else {}
    figure.update_layout(
        xaxis=axis | scale, yaxis={"title": target}, template="plotly_white", height=480,
        legend={"orientation": "h", "y": -0.2}, margin={"t": 20},
    )  # fmt: skip
    return figure


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["point"])
    return found
