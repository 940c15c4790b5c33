"""Assembly of the page: the text in HTML, the numbers in JSON, style and script in one file."""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from plotly.offline import get_plotlyjs

from scaleinv_ray import tables as schemas
from scaleinv_ray.conclude.aggregation.completeness import CHOICES
from scaleinv_ray.conclude.aggregation.value_rows import ValueRow
from scaleinv_ray.contract import Invariant
from scaleinv_ray.report.assembly import facts as fact_list
from scaleinv_ray.report.assembly import filled, resource, scripts
from scaleinv_ray.report.conclusions import data_of, section_of
from scaleinv_ray.report.figures.against import against_series
from scaleinv_ray.report.figures.bars import barcodes
from scaleinv_ray.report.figures.curves import mean_curves
from scaleinv_ray.report.figures.depth import depth_profiles
from scaleinv_ray.report.figures.forest import forest
from scaleinv_ray.report.figures.over_scale import over_seeds, with_drawn_runs
from scaleinv_ray.report.figures.single_rows import row_details
from scaleinv_ray.report.figures.spectroscopy import spectroscopy
from scaleinv_ray.report.pack import as_json, column, packed, packed_text, plain
from scaleinv_ray.report.skeleton import PAGE, SPECTRA
from scaleinv_ray.report.summary import Reason, judged, paired, paragraph, spoken, without_value

SCHEMAS: Mapping[str, pa.Schema] = {
    "measurements": schemas.MEASUREMENTS,
    "curves": schemas.CURVES,
    "diagrams": schemas.DIAGRAMS,
    "values": schemas.schema_of(ValueRow),
}
"""Tables that every run has; a run has others of its conclusions besides."""
MADE_HERE = ("verdicts", "values")
"""Conclusions that the data of the page are made of; the others travel as they are."""
MAX_REASONS = 200
SCRIPTS = (
    "board/core", "plots/figures", "board/tables", "board/rows", "board/board",
    "sections/cards", "plots/scale", "plots/tracks", "plots/bars", "plots/curves",
    "sections/families", "sections/models", "sections/across", "sections/capabilities",
    "sections/spectroscopy", "sections/progress", "sections/tables", "board/start",
)  # fmt: skip
"""In the order in which they run; the last starts the page."""


def _meanings(rows: list[dict[str, Any]], known: Mapping[str, Invariant]) -> list[dict[str, Any]]:
    """Of every quantity that is judged: what it means, and where it is defined."""
    judged_here = sorted({(row["invariant"], row["quantity"]) for row in rows})
    return [
        {
            "invariant": invariant,
            "quantity": quantity,
            "meaning": spec.quantities[quantity].meaning,
            "definition": inspect.getdoc(spec.function) or "",
        }
        for invariant, quantity in judged_here
        if (spec := known.get(invariant)) and quantity in spec.quantities
    ]


def _axes(curves: list[dict[str, Any]], known: Mapping[str, Invariant]) -> list[dict[str, str]]:
    """Of every curve that is drawn: what stands on its axes."""
    drawn = sorted({(curve["invariant"], curve["curve"]) for curve in curves})
    said = [(i, c, known[i].curves.get(c, "")) for i, c in drawn if i in known]
    return [
        {"invariant": invariant, "curve": curve, "y": y.strip(), "x": x.strip()}
        for invariant, curve, (y, _, x) in ((i, c, text.partition(";")) for i, c, text in said)
        if x
    ]


def _first_view(
    rows: list[dict[str, Any]], slices: list[dict[str, Any]], others: Any, paired: int
) -> dict[str, Any]:
    """What the head of the page and the verdict table need."""
    names = list(rows[0]) if rows else []
    drawn = {(s["invariant"], s["quantity"]) for s in slices}
    return {
        "verdicts": {
            "rows": len(rows),
            "columns": {n: column([plain(row[n]) for row in rows]) for n in names},
        },
        "drawn": sorted(map(list, drawn)),
        "families": sorted({place["family"] for place in (*slices, *others)}),
        "paired": paired,
    }


def _data(
    tables: Mapping[str, pa.Table], rows: list[dict[str, Any]], known: Mapping[str, Invariant]
) -> dict[str, str]:
    """The numbers of the page: what the first view needs as they are, the others packed."""
    points = over_seeds(tables["values"])
    profiles = depth_profiles(tables["measurements"], tables["values"])
    curves, bars = mean_curves(tables["curves"]), barcodes(tables["diagrams"])
    slices, runs = with_drawn_runs(points)
    spectra = spectroscopy(tables["curves"], tables["measurements"])
    others = [*profiles, *curves, *bars]
    first = _first_view(rows, points, others, paired(tables["measurements"]))
    return {
        "DATA": as_json(first | {"meanings": _meanings(rows, known)}),
        "POINTS": packed({"slices": slices, "runs": runs, "profiles": profiles}),
        "CURVES": packed({"curves": curves, "bars": bars, "axes": _axes(curves, known)}),
        "MODELS": packed(against_series(points, rows)),
        "SPECTRA": SPECTRA if any(spectra.values()) else "",
        "SPECTROSCOPY": packed(spectra),
        "ROWS": packed(row_details(tables["measurements"])),
    }


def _reason_row(reason: Reason) -> str:
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in reason[:-1])
    return f'<tr>{cells}<td class="number">{reason.rows:,}</td></tr>'


def _reasons(reasons: list[Reason]) -> str:
    if not reasons:
        return "<p>Every measurement that was attempted has a value.</p>"
    choices = [r for r in reasons if r.status == "refused" and CHOICES.search(r.error)]
    lost = [r for r in reasons if r not in choices]
    total = {s: sum(r.rows for r in lost if r.status == s) for s in ("refused", "failed")}
    said = (
        f'<p><strong id="num-refused">{total["refused"]:,}</strong> refused (the number could not '
        f'honestly be had) and <strong id="num-failed">{total["failed"]:,}</strong> failed (an '
        "error). They are in no mean above.</p>"
    )
    said += _reason_table(lost, "Reasons") if lost else ""
    if choices:
        rows = sum(r.rows for r in choices)
        said += (
            f'<details><summary><strong id="num-choices">{rows:,}</strong> were not asked for by '
            f"the config</summary>{_reason_table(choices, 'Not asked for')}</details>"
        )
    return said


def _reason_table(reasons: list[Reason], label: str) -> str:
    heads = "".join(
        f'<th scope="col"{" class=number" if name == "Rows" else ""}>{name}</th>'
        for name in ("Status", "Family", "Invariant", "Quantity", "Reason", "Rows")
    )
    body = "".join(_reason_row(reason) for reason in reasons[:MAX_REASONS])
    more = len(reasons) - MAX_REASONS
    rest = f"<p>{more:,} further reasons are in the measurements table.</p>" if more > 0 else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f'<table class="reasons"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{rest}"
    )


def _summary(found: Sequence[str], counts: str) -> str:
    """What was found, the most telling sentence first, and the counts below it."""
    lead, *others = [html.escape(sentence) for sentence in found] or [""]
    items = "".join(f"<li>{sentence}</li>" for sentence in others)
    first = f'<p class="lead">{lead}</p>' if lead else ""
    rest = f"{f'<ul>{items}</ul>' if items else ''}<p>{html.escape(counts)}</p>"
    if not items:
        return first + rest
    heading = "<summary>All findings</summary>"
    return f'{first}<details class="phone" open>{heading}{rest}</details>'


def _notes(notes: Sequence[str]) -> str:
    """What has to be known before a number is read."""
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="warnings" role="note" aria-label="Warnings">{items}</ul>'


def render(
    tables: Mapping[str, pa.Table],
    *,
    title: str,
    facts: Mapping[str, str],
    figures: Mapping[str, str | None],
    notes: Sequence[str] = (),
    invariants: Mapping[str, Invariant] | None = None,
) -> bytes:
    """The page in UTF-8.

    Args:
        tables: name (a key of `SCHEMAS`) -> table of that schema; missing ones count as empty.
            Besides, tables of conclusions, which say of themselves what they hold
            (`tables.schema_of`); where one is missing, the page says that the run has none.
        facts: what the header lists of the run (series, dates, versions).
        figures: name of each conclusion -> section of the page that draws it, None for those that
            are shown as they are.
        notes: what has to be known before a number is read, as several tokenizers.
        invariants: name -> what is said of it and its quantities; of others the page has names.

    Returns:
        HTML that loads nothing.

    Raises:
        ValueError: for a name that is no table of a run.
    """
    allowed = {*SCHEMAS, *figures}
    if unknown := sorted(set(tables) - allowed):
        raise ValueError(f"tables: got {unknown}, allowed {sorted(allowed)}")
    full = {name: tables.get(name, schema.empty_table()) for name, schema in SCHEMAS.items()}
    rows = judged(tables["verdicts"]) if "verdicts" in tables else []
    known = invariants or {}
    quantities = {(i, q): v for i, spec in known.items() for q, v in spec.quantities.items()}
    said = spoken(rows, full["values"], quantities)
    shown = [name for name, figure in figures.items() if figure is None and name in tables]
    parts = {
        "TITLE": html.escape(title),
        "FACTS": fact_list(facts),
        "SUMMARY": _summary(said.sentences, paragraph(rows, full["measurements"])),
        "PICTURE": forest(said.lines),
        "NOTES": _notes(notes),
        "REASONS": _reasons(without_value(full["measurements"])),
        "STYLE": resource("board/page.css"),
        "PLOTLY": packed_text(get_plotlyjs()),
        **_data(full, rows, known),
        "TABLES": "".join(data_of(n, tables.get(n)) for n in figures if n not in MADE_HERE),
        "OTHERS": "".join(section_of(name, tables[name]) for name in shown),
        "SCRIPT": scripts(SCRIPTS),
    }
    return filled(PAGE, parts).encode("utf-8")
