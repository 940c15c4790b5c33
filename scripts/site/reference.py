"""Pages of reference, made of the models of the config, the schemas and the report's page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import CONCLUSIONS
from scaleinv_ray.config import DesignConfig, ProgramsConfig, RunConfig, TrainConfig
from scaleinv_ray.report.skeleton import PAGE
from scaleinv_ray.singularities.jets import DictionaryRow, dictionary_table

MEASURED: Mapping[str, tuple[pa.Schema, str]] = {
    "measurements/": (tables.MEASUREMENTS, "A number that was measured, or why there is none."),
    "curves/": (tables.CURVES, "A function that was measured."),
    "diagrams/": (tables.DIAGRAMS, "A persistence diagram that was measured."),
    "plan.parquet": (tables.PLAN, "A measurement that the newest plan asks for."),
    "tokens.parquet": (tables.TOKENS, "A probe as a tokenizer cuts it; of series with several."),
    "sanity.parquet": (
        tables.SANITY,
        "What a trained model pays a token of a text before it is captured.",
    ),
}
_LARGEST = 10**15
_SIGNS = (("exclusiveMinimum", ">"), ("minimum", ">="), ("gt", ">"), ("exclusiveMaximum", "<"),
          ("maximum", "<="), ("le", "<="), ("lt", "<"))  # fmt: skip


CONFIGS = (
    ("A run", RunConfig, "run"),
    ("A ladder", TrainConfig, "train"),
    ("A design", DesignConfig, "design"),
    ("Programs", ProgramsConfig, "programs"),
)


def configuration() -> str:
    """Every key of every config: type, range, default, meaning."""
    parts = [
        "# Configuration",
        "Every key of a config, from the models that check it. A key that is not among them is an "
        "error that names the nearest one. Paths start at the folder of the config, or at `~`.",
    ]
    for title, model, verb in CONFIGS:
        schema = model.model_json_schema()
        known = schema.get("$defs", {})
        parts += [f"## {title}: `scaleinv {verb} CONFIG`", *_section(schema)]
        for name in sorted(known, key=lambda name: _first_use(name, schema)):
            parts += [f"### {name}", *_section(known[name])]
    return "\n\n".join(parts) + "\n"


def columns() -> str:
    """Every column of every table of a run folder: type and meaning."""
    parts = [
        "# Columns of the tables",
        "The tables of a run folder are Parquet files. A failure is a row with its reason, never a "
        "gap; a number that is not known is null, never 0 or NaN.",
    ]
    for name, (schema, what) in MEASURED.items():
        parts += [f"## `{name}`", f"A row: {what[0].lower()}{what[1:]}", _columns(schema)]
    for of in CONCLUSIONS:
        parts += [f"## `{of.file}`", tables.says(of.schema), _columns(of.schema)]
    return "\n\n".join(parts) + "\n"


def glossary() -> str:
    """The words of a verdict, as they stand above the table of every report."""
    found = re.search(r"<summary>How to read this table</summary>\s*(<dl>.*?</dl>)", PAGE, re.S)
    assert found, "the report has lost its glossary"
    return (
        "# Glossary of verdicts\n\nAs it stands at the head of every report; "
        "[theory](theory.md#conservation) says how each is reached.\n\n"
        + re.sub(r"\n\s+", " ", found[1])
        + "\n"
    )


def dictionary() -> str:
    """Every singularity with its coefficient and, where it has a polynomial, its jets."""
    head = ("entry", "lambda", "multiplicity", "real threshold by jets", "complex", "reached at m",
            "divisors that compute it", "dim J_0, J_1, ..", "source")  # fmt: skip
    parts = [
        "---\nhide: [toc]\n---",  # leaves its room to the tables
        "# Dictionary of singularities",
        "Exact learning coefficients that a measured one is matched with. Where an entry has a "
        "polynomial f, its threshold is counted again from jets "
        "([theory](theory.md#jets-and-contact-loci)): lambda is the real threshold for K = f, half "
        "of it for K = f^2. The complex one is shown where it differs. A divisor is the weight of "
        "every variable; (0, .., 0) is the hypersurface f = 0 itself.",
    ]
    rows = dictionary_table()
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [_entry(row) for row in rows if row["family"] == family]
        # Columns that say something of this family; one source for all is a sentence.
        sources = {cells[-1] for cells in own}
        kept = [i for i in range(len(head)) if any(cells[i] for cells in own)]
        kept = kept[:-1] if len(sources) == 1 else kept
        said = [f"Source: {sources.pop()}."] if len(sources) == 1 else []
        shown = [[cells[i] for i in kept] for cells in own]
        parts += [f"## {family}", *said, _markdown([head[i] for i in kept], shown)]
    return "\n\n".join(parts) + "\n"


def _entry(row: DictionaryRow) -> tuple[str, ...]:
    return (
        row["name"],
        row["llc"],
        f"{row['multiplicity']}",
        f"{row['lct_jets']}{' (bound)' if row['status'] == 'bound' else ''}"
        if row["lct_jets"]
        else "",
        (row["lct_jets_complex"] or "") if row["lct_jets_complex"] != row["lct_jets"] else "",
        "" if row["reached_at"] is None else f"{row['reached_at']}",
        ", ".join(row["divisors"]),
        " ".join(map(str, row["dimensions"])),
        row["source"],
    )


def _section(schema: Mapping[str, Any]) -> list[str]:
    if "properties" not in schema:
        return [schema.get("description", "")]
    needed = schema.get("required", ())
    rows = [
        (f"`{name}`", field["description"], _type(field), _default(field, name in needed))
        for name, field in schema["properties"].items()
    ]
    return [schema["description"], _markdown(("key", "what it says", "type", "default"), rows)]


def _first_use(name: str, schema: Mapping[str, Any]) -> int:
    """Sections in the order of the keys that lead to them; those deeper come last."""
    properties = [str(field) for field in schema["properties"].values()]
    reference = f"#/$defs/{name}'"
    return next((i for i, text in enumerate(properties) if reference in text), len(properties))


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in field:
            kinds = [_type(one) for one in field[several] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "allOf" in field:
        return _type(field["allOf"][0])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if "items" in field else "list"
    if field.get("type") == "object":
        return "mapping"
    words = {"string": "text", "boolean": "`true`, `false`", "integer": "integer"}
    kind = words.get(field.get("type", ""), field.get("type", "any"))
    limits = [
        f"{sign} {field[key]:g}"
        for key, sign in _SIGNS
        if key in field and abs(field[key]) < _LARGEST
    ]
    return " ".join([kind, ", ".join(limits)]).strip()


def _default(field: Mapping[str, Any], needed: bool) -> str:
    if needed:
        return "needed"
    value = field.get("default")
    if isinstance(value, Mapping):
        return "that of its keys"
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value)
    text = str(value).lower() if isinstance(value, bool) else f"{value}"
    return f"`{text}`"


def _columns(schema: pa.Schema) -> str:
    rows = [(f"`{f.name}`", tables.meaning(f), _column_type(f.type)) for f in schema]
    return _markdown(("column", "what it says", "type"), rows)


def _column_type(of: pa.DataType) -> str:
    if pa.types.is_list(of):
        return f"list of {_column_type(of.value_type)}"
    if pa.types.is_map(of):
        return "mapping of text"
    return {"string": "text", "int64": "integer", "double": "number", "bool": "yes or no"}[str(of)]


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; a bar inside a cell would end it."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
