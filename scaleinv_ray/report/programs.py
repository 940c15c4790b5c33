"""The page 'same function, other germ': programs of one function side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scaleinv_ray.report.assembly import resource
from scaleinv_ray.report.drawing import MARKER, Curve, curves

_FEW_GENERATORS, _FEW_CROSSINGS = 8, 3
_CLEAR = 0.2
"""Difference of ln Z that is no noise of the simulation."""
STYLE = """
main { padding-bottom: 48px; }
.function { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
.function { padding: 16px 20px; margin: 0 0 20px; }
.function > p { max-width: 90ch; margin: 4px 0 10px; }
.germs { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.germ { flex: 0 1 230px; min-width: 200px; }
.germ:has(.circuit) { flex-basis: 340px; } .germ h3 { margin: 0 0 4px; font-size: 16px; }
.automaton, .circuit { display: block; max-width: 100%; height: auto; }
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
.sure { stroke-dasharray: 3 2; } .estimated { border-left: 3px dotted var(--rule); }
.estimated { padding-left: 14px; }
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
λ is compared inside one space of codes only. Dotted at the left stands, where there is one, a
transformer with the same program in its weights: its λ is <b>estimated</b> by sampling, in the
space of its weights.</p>"""
_LEGEND = {
    "turing": " On the arrows: symbol read/written, and the head goes left, right or stays.",
    "circuit": " In the boxes: what a gate does, and its rule; dashed: it never fails.",
}


class Shown(NamedTuple):
    """One of the programs of a germ."""

    row: Mapping[str, Any]
    num_alike: int
    log_evidence: np.ndarray | None
    drawing: str


def programs_page(name: str, shown: Sequence[Shown], ns: np.ndarray) -> str:
    """One HTML file without links to others.

    Args:
        name: of the set of programs.
        shown: one of every germ, those of a function and space behind each other.
        ns: numbers of samples that the evidence is given for.
    """
    css = resource("board/page.css")

    groups: dict[tuple[str, str, str], list[Shown]] = {}
    for one in shown:
        groups.setdefault(_section_of(one.row, shown), []).append(one)
    sections = [_section(key, groups[key], ns) for key in sorted(groups)]
    title = f"Same function, other germ: {html.escape(name)}"
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        f"<style>{css}{STYLE}</style><script>{_THEME}</script></head><body>{MARKER}"
        f'<header class="top"><h1>{title}</h1><div class="summary">{_LEAD}</div></header>'
        f"<main>{''.join(sections)}</main></body></html>"
    )


def _section_of(row: Mapping[str, Any], shown: Sequence[Shown]) -> tuple[str, str, str]:
    """Machine, space and function; an estimate goes to the first automata of its function."""
    if row["how"] == "estimated":
        for one in shown:
            if one.row["machine"] == "automaton" and one.row["function"] == row["function"]:
                row = one.row
                break
    return row["machine"], row["space"], row["function"]


def _section(key: tuple[str, str, str], of: Sequence[Shown], ns: np.ndarray) -> str:
    _, space, function = key
    germs = sorted(of, key=lambda s: (s.row["how"] == "estimated", s.row["lambda_log"] or 0.0))
    exact = [one for one in germs if one.row["how"] == "exact"]
    total = sum(one.num_alike for one in exact)
    said = f"{total} programs, {len(exact)} germs" if total > 1 else "One program"
    title = function
    if germs[0].row["machine"] in _LEGEND:
        title = ", ".join(one.row["program"] for one in germs)
    return (
        f'<section class="function"><h2>{html.escape(title)}</h2>'
        f'<p class="faint">{html.escape(f"{said}; {space}.")}'
        f"{_LEGEND.get(germs[0].row['machine'], '')}</p>"
        f'<div class="germs">{"".join(map(_card, germs))}{_evidence(germs, ns)}</div></section>'
    )


def _evidence(germs: Sequence[Shown], ns: np.ndarray) -> str:
    lines = [Curve(_short(g.row), g.log_evidence) for g in germs if g.log_evidence is not None]
    if len(lines) < 2:  # nothing to compare
        return ""
    return (
        f'<figure class="evidence">{curves(ns, lines, x_name="samples n", y_name="ln Z")}'
        "<figcaption>At n samples the posterior prefers the program whose curve is highest; the "
        f"steeper the fall, the larger λ.{_crossings(lines, ns)} One program a germ. K is the sum "
        "of its syndromes, each times the number of paths that fail so (mean over the inputs); "
        "powers of one variable are exact, the rest is simulated.</figcaption></figure>"
    )


def _card(one: Shown) -> str:
    row = one.row
    if row["how"] == "estimated":
        return _estimated(row)
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
        f"{one.drawing}<dl>{rows}</dl></div>"
    )


def _estimated(row: Mapping[str, Any]) -> str:
    """A compiled transformer: what a sampler says of it, and how far it is to be believed."""
    value, stderr, verdict = row["lambda_log"], row["lambda_log_stderr"], row["verdict"]
    found = "no λ" if value is None else f"λ ≈ {value:.2f} ± {stderr:.2f}"
    facts = {
        "verdict": f"{verdict}: {_first(row['reason'])}" if row["reason"] else verdict,
        "curvature": f"alone it gives {row['curved']:.2f} at the same localiser",
        "in the limit": f"λ ≥ {row['at_least']:g}, half the rank of the outputs' derivative",
        "weights": row["num_variables"],
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return (
        f'<div class="germ estimated"><h3>{found}, estimated</h3>'
        f'<span class="faint">transformer: {html.escape(row["program"])}</span>'
        f"<dl>{rows}</dl></div>"
    )


def _first(reasons: str) -> str:
    """The first reason; programs.parquet has all of them."""
    first, *more = reasons.split("; ")
    return html.escape(first) + (f", and {len(more)} more reasons" if more else "")


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
            changes = np.flatnonzero(np.sign(ahead[1:]) != np.sign(ahead[:-1]))
            if not len(changes) or abs(ahead[-1]) <= _CLEAR:
                continue
            last = changes[-1]
            if np.abs(ahead[: last + 1]).max() > _CLEAR:
                share = ahead[last] / (ahead[last] - ahead[last + 1])
                n = f"{ns[last] * (ns[last + 1] / ns[last]) ** share:.2g}"
                said.append(f"{a.name} and {b.name} cross near n = {float(n):g}")
    hidden = len(said) - _FEW_CROSSINGS
    more = f", and {hidden} more pairs" if hidden > 0 else ""
    return (
        f" {html.escape('; '.join(said[:_FEW_CROSSINGS]))}{more}."
        if said
        else " None of them cross."
    )
