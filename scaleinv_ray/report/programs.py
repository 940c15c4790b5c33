"""The page 'same function, other germ': programs of one function side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.report.drawing import MARKER, Curve, automaton, curves

_FEW_GENERATORS = 8
_CLEAR = 0.2
"""Difference of ln Z that is no noise of the simulation."""
_STYLE = """
main { padding-bottom: 48px; }
.function { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.function { padding: 16px 20px; margin: 0 0 20px; }
.function > p { max-width: 90ch; margin: 4px 0 10px; }
.germs { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.germ { flex: 0 1 230px; min-width: 200px; }
.germ h3 { margin: 0 0 4px; font-size: 16px; }
.automaton { display: block; }
.germ dl { display: grid; grid-template-columns: auto 1fr; gap: 1px 10px; margin: 6px 0; }
.germ dl { font-size: 13.5px; font-variant-numeric: tabular-nums; }
.germ dt { color: var(--muted); } .germ dd { margin: 0; overflow-wrap: anywhere; }
.evidence { flex: 1 1 480px; max-width: 640px; margin: 0; }
.evidence figcaption { color: var(--muted); font-size: 13.5px; }
.curves { width: 100%; height: auto; }
svg text { font: 12.5px var(--font); text-anchor: middle; fill: var(--ink); }
svg .tick { fill: var(--muted); } svg .tick.y { text-anchor: end; }
svg .name { text-anchor: start; }
svg .symbol { paint-order: stroke; stroke: var(--card); stroke-width: 5px; }
.edge { fill: none; stroke: var(--muted); stroke-width: 1.4; }
.head { fill: var(--muted); }
.node { fill: var(--soft); stroke: var(--ink); stroke-width: 1.4; }
.ring { fill: none; stroke: var(--ink); }
.grid { stroke: var(--grid); } .curve { fill: none; stroke-width: 2; }
"""
_THEME = (
    "document.documentElement.dataset.theme ="
    " matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'"
)
_LEAD = """<p>A program is a corner of a space of noisy codes: every rule may fail. How fast the
loss rises around it is exact: <b>λ</b> (learning coefficient) and <b>m</b> (multiplicity) follow
from the error syndromes, the smallest sets of failures that change an output; r1o0 is outcome 0 of
rule 1. With n samples the posterior weighs a program as Z(n) ~ n<sup>−λ</sup>
(ln n)<sup>m−1</sup>: a smaller λ is more degenerate and wins in the end, at few samples not always.
λ is compared inside one space of codes only.</p>"""


class Shown(NamedTuple):
    """One of the programs of a germ."""

    row: Mapping[str, Any]
    num_alike: int
    log_evidence: np.ndarray | None


def programs_page(name: str, shown: Sequence[Shown], ns: np.ndarray) -> str:
    """One HTML file without links to others.

    Args:
        name: of the set of programs.
        shown: one of every germ, those of a function and space behind each other.
        ns: numbers of samples that the evidence is given for.
    """
    css = (files("scaleinv_ray.report") / "board" / "page.css").read_text(encoding="utf-8")

    def key(one: Shown) -> tuple[str, str, str]:
        row = one.row
        function = row["function"] if row["machine"] == "automaton" else row["program"]
        return row["machine"], row["space"], function

    sections = [
        _section(space, function, sorted(of, key=lambda s: s.row["lambda_log"] or 0.0), ns)
        for (_, space, function), of in groupby(sorted(shown, key=key), key=key)
    ]
    title = f"Same function, other germ: {html.escape(name)}"
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        f"<style>{css}{_STYLE}</style><script>{_THEME}</script></head><body>{MARKER}"
        f'<header class="top"><h1>{title}</h1><div class="summary">{_LEAD}</div></header>'
        f"<main>{''.join(sections)}</main></body></html>"
    )


def _section(space: str, function: str, germs: Sequence[Shown], ns: np.ndarray) -> str:
    total = sum(one.num_alike for one in germs)
    said = (
        f"{total} programs, {len(germs)} germs; {html.escape(space)}."
        if total > 1
        else f"One program; {html.escape(space)}."
    )
    cards = "".join(_card(one) for one in germs)
    drawn = [(one, one.log_evidence) for one in germs if one.log_evidence is not None]
    figure = ""
    if drawn:
        lines = [Curve(_short(one.row), y) for one, y in drawn]
        figure = (
            f'<figure class="evidence">{curves(ns, lines, x_name="samples n", y_name="ln Z")}'
            "<figcaption>ln Z(n) of one program a germ, K the sum of its syndromes, each with "
            f"coefficient 1; linear ones are exact, the rest is simulated.{_crossings(lines, ns)}"
            "</figcaption></figure>"
        )
    return (
        f'<section class="function"><h2>{html.escape(function)}</h2><p class="faint">{said}</p>'
        f'<div class="germs">{cards}{figure}</div></section>'
    )


def _card(one: Shown) -> str:
    row = one.row
    many = f"{one.num_alike} programs" if one.num_alike > 1 else "one program"
    if row["lambda_log"] is None:
        return (
            f'<div class="germ"><h3>{html.escape(row["program"])}</h3>'
            f"<p>{html.escape(row['reason'])}</p></div>"
        )
    facts = {
        "λ log loss": f"{row['lambda_log_exact']}, m {row['multiplicity']}",
        "λ squared": f"{row['lambda_squared']:g}, m {row['multiplicity']}",
        "P(wrong)": f"{row['constant']:.3g} η<sup>{row['order']}</sup>",
        "wrong outcomes": f"{row['num_variables']}: {row['num_linear']} linear, "
        f"{row['num_free']} free",
        "accepting": ", ".join(map(str, row["accepting"])),
        "syndromes": _listed(row["generators"]),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    return (
        f'<div class="germ"><h3>λ = {row["lambda_log_exact"]}, m = {row["multiplicity"]}</h3>'
        f'<span class="faint">{many}; drawn: {html.escape(row["program"])}</span>'
        f"{_drawing(row)}<dl>{rows}</dl></div>"
    )


def _drawing(row: Mapping[str, Any]) -> str:
    if row["machine"] != "automaton":
        return ""
    chosen, width = row["chosen"], row["num_symbols"]
    table = [chosen[i : i + width] for i in range(0, len(chosen), width)]
    return automaton(table, row["accepting"], f"automaton {row['program']}")


def _listed(generators: Sequence[str]) -> str:
    """The first ones; r1o0 is outcome 0 of rule 1."""
    more = len(generators) - _FEW_GENERATORS
    said = ", ".join(html.escape(g) for g in generators[:_FEW_GENERATORS])
    return f"{said}, and {more} more" if more > 0 else said


def _short(row: Mapping[str, Any]) -> str:
    accepting = f" {{{','.join(map(str, row['accepting']))}}}" if row["accepting"] else ""
    return f"λ {row['lambda_log_exact']}, m {row['multiplicity']}{accepting}"


def _crossings(lines: Sequence[Curve], ns: np.ndarray) -> str:
    """Where one curve overtakes another for good; noise of the simulation aside."""
    said = []
    for i, a in enumerate(lines):
        for b in lines[i + 1 :]:
            ahead = a.y - b.y
            last = np.flatnonzero(np.sign(ahead[1:]) != np.sign(ahead[:-1]))
            if (
                len(last)
                and abs(ahead[-1]) > _CLEAR
                and np.abs(ahead[: last[-1] + 1]).max() > _CLEAR
            ):
                n = f"{ns[last[-1] + 1]:.2g}"
                said.append(f"{a.name} and {b.name} cross near n = {float(n):g}")
    if len(lines) < 2:
        return ""
    return f" {html.escape('; '.join(said))}." if said else " None of them cross."
