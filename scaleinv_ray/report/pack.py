"""How tables travel inside the page: by column, each value once, compressed.

A column is either a list of values or `{"d": distinct values, "i": place of each row in d}`. What
the first view does not need is JSON, gzip and base64; the browser unpacks it when it is asked for.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from scaleinv_ray.tables import shared

Column = list[Any] | dict[str, list[Any]]
DIGITS = 8


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Value to so many significant digits; None where it is missing or not finite.

    Args:
        value: a number or none.

    Returns:
        The nearest such number.

    >>> rounded(1234.5678, 3), rounded(float("nan"))
    (1230.0, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def plain(value: Any) -> Any:
    """A value as JSON has it: floats to eight digits, NaN and infinity as null."""
    if isinstance(value, float):
        return rounded(value, DIGITS)
    return [plain(v) for v in value] if isinstance(value, list) else value


def column(values: Sequence[Any]) -> Column:
    """A column by its distinct values where that is shorter.

    Args:
        values: what JSON can hold; floats are kept as they come.

    Returns:
        The values, or distinct values and indices.

    >>> column(["a", "b", "a", "a", "b"])
    {'d': ['a', 'b'], 'i': [0, 1, 0, 0, 1]}
    >>> column([1.5, 2.5])
    [1.5, 2.5]
    """
    values = list(values)
    seen: dict[Any, int] = {}
    try:
        places = [seen.setdefault(v, len(seen)) for v in values]
    except TypeError:  # lists and maps have no hash
        return values
    return {"d": list(seen), "i": places} if 2 * len(seen) < len(values) else values


def columns(table: pa.Table) -> dict[str, Any]:
    """A table by its columns.

    Args:
        table: of texts, numbers and lists of them.

    Returns:
        `rows` (their number) and `columns`: name -> column.
    """
    values = {name: [plain(v) for v in table[name].to_pylist()] for name in table.column_names}
    return {"rows": table.num_rows, "columns": {name: column(v) for name, v in values.items()}}


def distinct_rows(table: pa.Table) -> tuple[pa.Table, list[int]]:
    """The distinct rows of a table, and which of them each row is.

    Args:
        table: of columns that can be dictionary encoded.

    Returns:
        The distinct rows in order of first occurrence, and the place of each row among them.

    >>> found, places = distinct_rows(pa.table({"a": [1, 2, 1], "b": ["x", "y", "x"]}))
    >>> found.num_rows, places
    (2, [0, 1, 0])
    """
    if not table.num_rows:
        return table, []
    place_R = _codes(table)
    first = ~pd.Series(place_R).duplicated()
    return table.filter(pa.array(first)), place_R.tolist()


def among(table: pa.Table, others: pa.Table, names: Sequence[str]) -> pa.Array:
    """Of each row whether its values in some columns are those of a row of another table.

    Args:
        table: of columns that can be dictionary encoded.
        others: with these columns, too.
        names: of the columns.

    Returns:
        One bool a row.

    >>> one, other = pa.table({"a": [1, 2, None]}), pa.table({"a": [None, 1]})
    >>> among(one, other, ["a"]).to_pylist()
    [True, False, True]
    """
    both = [one.select(names) for one in (table, others)]
    code_R = _codes(pa.concat_tables([one.cast(shared(one.schema)) for one in both]))
    return pa.array(np.isin(code_R[: table.num_rows], code_R[table.num_rows :]))


def _codes(table: pa.Table) -> np.ndarray:
    """Of each row the place of its combination of values, in order of first occurrence."""
    frame = table.unify_dictionaries().to_pandas()
    grouped = frame.groupby(table.column_names, sort=False, dropna=False, observed=True)
    return grouped.ngroup().to_numpy()


def packed(data: Any) -> str:
    """JSON, gzip, base64: text that may stand in a script element and be unpacked there.

    Args:
        data: what `json.dumps` accepts, without NaN.

    Returns:
        Base64 without line breaks; the same data give the same text.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return packed_text(text)


def packed_text(text: str) -> str:
    """Gzip and base64 of a text."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")


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
