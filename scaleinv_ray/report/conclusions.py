"""The tables of conclusions in the page: their data, and sections of those without a figure."""

from __future__ import annotations

import html

import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.report.pack import columns, packed


def data_of(name: str, table: pa.Table | None) -> str:
    """An element that holds a table, with what each column says; null where the run has none."""
    data = None
    if table is not None:
        meanings = {field.name: tables.meaning(field) for field in table.schema}
        data = columns(table) | {"meanings": meanings}
    return f'<script type="text/plain" id="table-{html.escape(name)}">{packed(data)}</script>\n'


def section_of(name: str, table: pa.Table) -> str:
    """A section in which the table is shown as it is, under its name and what a row of it is."""
    name, title = html.escape(name), html.escape(name.replace("_", " ").capitalize())
    at = f"rows-{name}"
    return (
        f'<section id="{at}" class="later" data-table="{name}" aria-labelledby="{at}-title">\n'
        f'  <h2 id="{at}-title">{title}</h2>\n'
        f'  <p class="sub">{html.escape(tables.says(table.schema))}</p>\n'
        f'  <div id="{at}-body"><p class="waiting note">Opens when it comes into view.</p></div>\n'
        "</section>\n"
    )
