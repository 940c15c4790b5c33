"""Which tokenizer each measurement was made with, as the plan of a run folder says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.tokenizers import Bytes
from scaleinv_ray.measure.inventory import read_or_say
from scaleinv_ray.plan import Plan, token_rows
from scaleinv_ray.store import Store

_UNTOLD = "losses of several tokenizers are not told apart or not compared"
_TOKENS = "tokens.parquet"
_CHANGED = ("value", "stderr", "status", "error")


@dataclass(frozen=True)
class Tokenized:
    """Tokenizers of the measurements of a plan.

    Attributes:
        of_key: key of a measurement -> name of the tokenizer.
        bytes_of: (probe, tokenizer) -> bytes of its tokens.
    """

    of_key: Mapping[str, str] = field(default_factory=dict)
    bytes_of: Mapping[tuple[str, str], Bytes] = field(default_factory=dict)

    def marked(self, rows: Rows) -> Rows:
        """Measurements with the `tokenizer` of their model, None where unknown."""
        return rows.with_column("tokenizer", "key", self.of_key.get)


def write_tokens(store: Store, plan: Plan) -> None:
    """Writes how much text the tokens of each tokenizer cover, beside a plan that has several."""
    if rows := token_rows(plan):
        store.write_table(_TOKENS, tables.encode(rows, tables.TOKENS))


def tokenized(store: Store) -> Tokenized:
    """The tokenizers that the plan of a run folder names.

    Returns:
        The tokenizers; none where the plan is from before they were written down, or is no plan.
    """
    plan = read_or_say(store, "plan.parquet", _UNTOLD)
    if plan is None or "tokenizer" not in plan.column_names:
        return Tokenized()
    pairs = zip(plan["key"].to_pylist(), plan["tokenizer"].to_pylist(), strict=True)
    of_key = {key: name for key, name in pairs if name is not None}
    several = len(set(of_key.values())) > 1
    tokens = read_or_say(store, _TOKENS, _UNTOLD) if several else None
    bytes_of = {
        (row["probe"], row["tokenizer"]): Bytes(row["bytes_per_token"], row["stderr"])
        for row in (tables.decode(tokens) if tokens is not None else ())
        if row["bytes_per_token"] is not None
    }
    return Tokenized(of_key, bytes_of)


def with_values(measurements: pa.Table, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The table of measurements with the values, errors and refusals of these rows.

    Args:
        rows: in its order.
    """
    for name in _CHANGED:
        at = tables.MEASUREMENTS.get_field_index(name)
        column = pa.array([row[name] for row in rows], tables.MEASUREMENTS.field(name).type)
        measurements = measurements.set_column(at, tables.MEASUREMENTS.field(name), column)
    return measurements
