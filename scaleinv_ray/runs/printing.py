"""What a run found, on a terminal or as JSON: sentences, a table of what holds, the next step."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaleinv_ray.conclude.conservation.requirements import LEAST_SIZES
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.report.findings import values_by_size, with_error
from scaleinv_ray.report.summary import judged, null_kind, spoken, verdict_kind
from scaleinv_ray.store import Store

_MOST_ROWS = 20
_WIDTH = 120
_NULL = "random_init"
_STYLES = {"conserved": "green", "scales": "cyan", "not conserved": "yellow", "undetermined": "dim"}


@dataclass(frozen=True)
class Found:
    """What is said of a run at its end.

    Attributes:
        sentences: as at the head of its report.
        rows: of the verdicts that are counted, those that hold first.
        report: URI of the page.
        next_step: what would say more.
    """

    sentences: list[str]
    rows: list[dict[str, Any]]
    report: str
    next_step: str

    def to_json(self, **more: object) -> str:
        """Everything, with what else is to be said."""
        whole = {"findings": self.sentences, "verdicts": self.rows}
        after = {"report": self.report, "next": self.next_step}
        return json.dumps({**whole, **after, **more}, indent=1, default=str)

    def show(self) -> None:
        """Writes it to the terminal, at a fixed width to a file."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH)
        for sentence in self.sentences:
            console.print(sentence, markup=False, highlight=False)
        if self.rows:
            console.print(_table(self.rows[:_MOST_ROWS]))
        if len(self.rows) > _MOST_ROWS:
            console.print(f"and {len(self.rows) - _MOST_ROWS:,} more in the report")
        # one line each, however long the path: they are copied
        for line in (f"report: {self.report}", f"next: {self.next_step}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def found_in(store: Store, verdicts: pa.Table, *, failed: int = 0) -> Found:
    """Reads the values of a run that is concluded.

    Args:
        verdicts: of `VerdictRow`.
        failed: measurements that failed.
    """
    quantities = {(s.name, n): q for s in REGISTRY.values() for n, q in s.quantities.items()}
    rows = judged(verdicts)
    values = store.read_table("values.parquet")
    told = spoken(rows, values, quantities)
    counted = [row for row in rows if _is_counted(row)]
    numbers = values_by_size(values.to_pylist(), counted)
    order = {"conserved": 0, "scales": 1, "not conserved": 2}
    counted.sort(key=lambda row: (row["null_kind"] != "learned", order.get(row["verdict_kind"], 3)))
    place = ("series", "probe", "invariant", "quantity", "site", "depth_bin")
    lines = []
    for row in counted:
        by_variant = numbers.get(tuple(row[k] for k in place), {})
        lines.append({
            "verdict": row["verdict"],
            "beside_null": row["null_class"],
            "invariant": row["invariant"],
            "quantity": row["quantity"],
            "probe": row["probe"],
            "site": row["site"],
            "trained": _largest(by_variant.get("trained")),
            "untrained": _largest(by_variant.get(_NULL)),
            "fragile": bool(row["fragile"]),
            "why": row["brief"],
        })
    page = store.path("report.html")
    again = f"scaleinv status {store.shown} says why {failed:,} failed; a run tries them again"
    return Found(told.sentences, lines, page, again if failed else _next(rows, page))


def _is_counted(row: dict[str, Any]) -> bool:
    whole = row["depth_bin"] == "all" and not row["is_part"] and not row["control"]
    return bool(whole and row["n_models"] and row["comparison"] in {"equal_steps", "final"})


def _largest(by_size: dict[int, list[float]] | None) -> str:
    """The value at the largest size with its error over seeds."""
    return with_error(by_size[max(by_size)]) if by_size else ""


def _next(rows: list[dict[str, Any]], page: str) -> str:
    sizes = max((row["n_models"] or 0 for row in rows), default=0)
    seeds = max((row["n_seeds"] or 0 for row in rows), default=0)
    if sizes < LEAST_SIZES:
        return (
            f"a verdict needs {LEAST_SIZES} sizes, got {sizes}: more under models:, or scaleinv "
            "inspect, which looks at one model"
        )
    if not any(row["n_models"] for row in rows):
        return f"nothing has a value; why is under 'Without a value' of {page}"
    if seeds < 2:
        return "a verdict needs two seeds a size, here is one: add the seed runs under models:"
    return f"open {page}"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(header_style="bold", pad_edge=False)
    for name in ("verdict", "beside untrained", "quantity"):
        table.add_column(name, overflow="fold")
    for name in ("trained", "untrained"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for row, name in zip(rows, _names(rows), strict=True):
        table.add_row(
            Text(row["verdict"].replace("_", " "), _STYLES.get(verdict_kind(row["verdict"]), "")),
            null_kind(row["beside_null"]),
            name,
            row["trained"],
            row["untrained"],
            f"fragile: {row['why']}" if row["fragile"] else row["why"],
        )
    return table


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """What tells the rows apart: the quantity, and probe and site where they have several."""
    several = {row["probe"] for row in rows if row["probe"]}
    names = []
    for row in rows:
        probe = f" on {row['probe']}" if row["probe"] and len(several) > 1 else ""
        names.append(f"{row['invariant'].partition('.')[2]}.{row['quantity']}{probe}")
    counts = Counter(names)
    return [
        f"{name} at {row['site']}" if counts[name] > 1 else name
        for row, name in zip(rows, names, strict=True)
    ]
