"""Assembly of the page: the text in HTML, the numbers in JSON, style and script in one file."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pyarrow as pa
from plotly.offline import get_plotlyjs

from scaleinv_ray import tables as schemas
from scaleinv_ray.report.across import READ, compared
from scaleinv_ray.report.against import against_series
from scaleinv_ray.report.bars import barcodes
from scaleinv_ray.report.curves import mean_curves
from scaleinv_ray.report.depth import depth_profiles
from scaleinv_ray.report.pack import as_json, column, columns, packed, packed_text, plain
from scaleinv_ray.report.rows import row_details
from scaleinv_ray.report.series import over_seeds, with_drawn_runs
from scaleinv_ray.report.skeleton import PAGE
from scaleinv_ray.report.spectroscopy import spectroscopy
from scaleinv_ray.report.summary import Reason, judged, paired, paragraph, without_value

SCHEMAS: Mapping[str, pa.Schema] = {
    "measurements": schemas.MEASUREMENTS,
    "curves": schemas.CURVES,
    "diagrams": schemas.DIAGRAMS,
    "verdicts": schemas.VERDICTS,
    "predictions": schemas.PREDICTIONS,
    "values": schemas.VALUES,
}
"""Tables that every run has; those of `across.READ` it may have besides."""
MAX_REASONS = 200
MAX_NAMES = 8
SCRIPTS = (
    "board/core", "sections/figures", "board/tables", "board/rows", "board/board",
    "sections/cards", "board/scale", "sections/tracks", "sections/bars", "sections/curves",
    "sections/families", "sections/models", "sections/across", "sections/capabilities",
    "sections/spectroscopy", "board/start",
)  # fmt: skip
"""In the order in which they run; the last starts the page."""


def _first_view(
    rows: list[dict[str, Any]], slices: list[dict[str, Any]], others: Any, paired: int
) -> dict[str, Any]:
    """What the head of the page and the verdict table need."""
    verdict_names = [*schemas.VERDICTS.names, "verdict_kind", "null_kind", "is_part"]
    drawn = {(s["invariant"], s["quantity"]) for s in slices}
    return {
        "verdicts": {
            "rows": len(rows),
            "columns": {n: column([plain(row[n]) for row in rows]) for n in verdict_names},
        },
        "drawn": sorted(map(list, drawn)),
        "families": sorted({place["family"] for place in (*slices, *others)}),
        "paired": paired,
    }


def _data(
    tables: Mapping[str, pa.Table], given: Mapping[str, pa.Table], rows: list[dict[str, Any]]
) -> dict[str, str]:
    """The numbers of the page: what the first view needs as they are, the others packed."""
    points = over_seeds(tables["values"])
    profiles = depth_profiles(tables["measurements"], tables["values"])
    curves, bars = mean_curves(tables["curves"]), barcodes(tables["diagrams"])
    comparisons = compared(given, READ)
    spectral = {name: comparisons.pop(name) for name in ("stages", "orders", "matches")}
    predictions = columns(tables["predictions"])
    slices, runs = with_drawn_runs(points)
    return {
        "DATA": as_json(
            _first_view(rows, points, [*profiles, *curves, *bars], paired(tables["measurements"]))
        ),
        "POINTS": packed({
            "slices": slices,
            "runs": runs,
            "profiles": profiles,
            "predictions": predictions,
            "transitions": comparisons["transitions"],
            "collapses": comparisons["collapses"],
        }),
        "CURVES": packed({"curves": curves, "bars": bars}),
        "MODELS": packed(against_series(points, rows)),
        "ACROSS": packed(comparisons),
        "SPECTROSCOPY": packed(spectral | spectroscopy(tables["curves"], tables["measurements"])),
        "ROWS": packed(row_details(tables["measurements"])),
    }


def _facts(facts: Mapping[str, str]) -> str:
    return "".join(
        f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items()
    )


def _reason_row(reason: Reason) -> str:
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in reason[:-1])
    return f'<tr>{cells}<td class="number">{reason.rows:,}</td></tr>'


def _reasons(reasons: list[Reason]) -> str:
    if not reasons:
        return "<p>Every measurement that was attempted has a value.</p>"
    total = {s: sum(r.rows for r in reasons if r.status == s) for s in ("refused", "failed")}
    heads = "".join(
        f'<th scope="col"{" class=number" if name == "Rows" else ""}>{name}</th>'
        for name in ("Status", "Family", "Invariant", "Quantity", "Reason", "Rows")
    )
    body = "".join(_reason_row(reason) for reason in reasons[:MAX_REASONS])
    more = len(reasons) - MAX_REASONS
    rest = f"<p>{more:,} further reasons are in the measurements table.</p>" if more > 0 else ""
    return (
        f'<p><strong id="num-refused">{total["refused"]:,}</strong> refused (the number could not '
        f'honestly be had) and <strong id="num-failed">{total["failed"]:,}</strong> failed (an '
        f'error). They are in no mean above.</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Reasons"><table class="reasons"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{rest}"
    )


def _resource(name: str) -> str:
    return (files("scaleinv_ray.report") / name).read_text(encoding="utf-8")


def _notes(notes: Sequence[str]) -> str:
    """What has to be known before a number is read."""
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<ul class="warnings" role="note" aria-label="Warnings">{items}</ul>'


def _unjoined(table: pa.Table | None) -> str:
    """Published evaluations that are of no model of the run, by reason."""
    if table is None or not table.num_rows:
        return ""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_reason.setdefault(row["reason"], []).append(row)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))[:MAX_REASONS]
    body = "".join(_unjoined_row(reason, rows) for reason, rows in ordered)
    return (
        f"<p><strong>{table.num_rows:,}</strong> published values are joined with no checkpoint of "
        'this run and count for nothing below.</p><div class="scroll" tabindex="0" role="region" '
        'aria-label="Evaluations that are not joined"><table class="reasons"><thead><tr>'
        '<th scope="col">Reason</th><th scope="col">Models</th><th scope="col">Tasks</th>'
        '<th scope="col">Files</th><th scope="col" class="number">Values</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _unjoined_row(reason: str, rows: list[dict[str, Any]]) -> str:
    def listed(name: str) -> str:
        found = list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))
        more = f" and {len(found) - MAX_NAMES:,} more" if len(found) > MAX_NAMES else ""
        return html.escape(", ".join(found[:MAX_NAMES]) + more)

    cells = "".join(f"<td>{listed(name)}</td>" for name in ("model", "task", "file"))
    return f'<tr><td>{html.escape(reason)}</td>{cells}<td class="number">{len(rows):,}</td></tr>'


def render(
    tables: Mapping[str, pa.Table],
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> bytes:
    """The page in UTF-8.

    Args:
        tables: name (a key of `SCHEMAS`) -> table of that schema; missing ones count as empty.
            Besides, names of `across.READ`: tables with those columns; the page says of a missing
            one that the run has none. And `unjoined`, of tables.UNJOINED.
        title: heading of the page.
        facts: what the header lists of the run (series, dates, versions).
        notes: what has to be known before a number is read, as several tokenizers.

    Returns:
        HTML that loads nothing.

    Raises:
        ValueError: for a name that is no table of a run, and a table without its columns.
    """
    allowed = {*SCHEMAS, *READ, "unjoined"}
    if unknown := sorted(set(tables) - allowed):
        raise ValueError(f"tables: got {unknown}, allowed {sorted(allowed)}")
    full = {name: tables.get(name, schema.empty_table()) for name, schema in SCHEMAS.items()}
    rows = judged(full["verdicts"])
    parts = {
        "TITLE": html.escape(title),
        "FACTS": _facts(facts),
        "SUMMARY": html.escape(paragraph(rows, full["measurements"])),
        "NOTES": _notes(notes),
        "UNJOINED": _unjoined(tables.get("unjoined")),
        "REASONS": _reasons(without_value(full["measurements"])),
        "STYLE": _resource("board/page.css"),
        "PLOTLY": packed_text(get_plotlyjs()),
        **_data(full, tables, rows),
        "SCRIPT": "".join(_resource(f"{name}.js") for name in SCRIPTS),
    }
    # Split, not replaced: a title that reads like a mark must stay a title.
    pieces = PAGE.split("%%")
    text = "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
    return text.encode("utf-8")
