"""Assembly of the page: the text in HTML, the numbers in JSON, style and script in one file."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
from plotly.offline import get_plotlyjs

from scaleinv_ray import tables as schemas
from scaleinv_ray.report.curves import mean_curves
from scaleinv_ray.report.series import over_seeds, rounded
from scaleinv_ray.report.skeleton import PAGE
from scaleinv_ray.report.summary import Reason, judged, paragraph, without_value

SCHEMAS: Mapping[str, pa.Schema] = {
    "measurements": schemas.MEASUREMENTS,
    "curves": schemas.CURVES,
    "diagrams": schemas.DIAGRAMS,
    "verdicts": schemas.VERDICTS,
    "predictions": schemas.PREDICTIONS,
    "transitions": schemas.TRANSITIONS,
}
MAX_REASONS = 200
SCRIPTS = ("page", "cards", "figures", "families")
"""In the order in which they run; the last starts the page."""


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return rounded(value, 8)
    return [_plain(v) for v in value] if isinstance(value, list) else value


def as_json(data: Any) -> str:
    r"""JSON that may stand inside a script element: nothing in it can close the element.

    Args:
        data: what `json.dumps` accepts, without NaN.

    Returns:
        The text, with every character that means something to HTML written as an escape.

    >>> as_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _columnar(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    return {"columns": names, "rows": [[_plain(row[name]) for name in names] for row in rows]}


def _data(tables: Mapping[str, pa.Table], rows: list[dict[str, Any]]) -> str:
    verdict_names = [*schemas.VERDICTS.names, "verdict_kind", "null_kind", "is_part"]
    named = {name: tables[name].to_pylist() for name in ("predictions", "transitions")}
    points = over_seeds(tables["measurements"])
    return as_json({
        "verdicts": _columnar(rows, verdict_names),
        "slices": points.slices,
        "curves": mean_curves(tables["curves"]),
        "predictions": _columnar(named["predictions"], schemas.PREDICTIONS.names),
        "transitions": _columnar(named["transitions"], schemas.TRANSITIONS.names),
        "paired": points.paired,
    })


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


def render(tables: Mapping[str, pa.Table], *, title: str, facts: Mapping[str, str]) -> bytes:
    """The page in UTF-8.

    Args:
        tables: name (a key of `SCHEMAS`) -> table of that schema; missing ones count as empty.
        title: heading of the page.
        facts: what the header lists of the run (series, dates, versions).

    Returns:
        HTML that loads nothing.

    Raises:
        ValueError: for a name that is no table of a run.
    """
    unknown = sorted(set(tables) - set(SCHEMAS))
    if unknown:
        raise ValueError(f"tables: got {unknown}, allowed {sorted(SCHEMAS)}")
    full = {name: tables.get(name, schema.empty_table()) for name, schema in SCHEMAS.items()}
    rows = judged(full["verdicts"])
    parts = {
        "TITLE": html.escape(title),
        "FACTS": _facts(facts),
        "SUMMARY": html.escape(paragraph(rows, full["measurements"])),
        "REASONS": _reasons(without_value(full["measurements"])),
        "STYLE": _resource("page.css"),
        "PLOTLY": get_plotlyjs(),
        "DATA": _data(full, rows),
        "SCRIPT": "".join(_resource(f"{name}.js") for name in SCRIPTS),
    }
    # Split, not replaced: a title that reads like a mark must stay a title.
    pieces = PAGE.split("%%")
    text = "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
    return text.encode("utf-8")


def write_report(
    tables: Mapping[str, pa.Table], *, title: str, facts: Mapping[str, str], out: Path
) -> Path:
    """Writes the report of a run as one HTML file, complete or not at all.

    Args:
        tables: name -> table: measurements, curves, diagrams, verdicts, predictions,
            transitions, of the schemas in `tables`; missing ones count as empty.
        title: heading of the page.
        facts: what the header lists of the run (series, dates, versions).
        out: the file; its folder is made where it does not exist.

    Returns:
        The path written.
    """
    data = render(tables, title=title, facts=facts)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"_part-{out.name}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return out
