"""From tables to the rows that `conservation` reads, by column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from scaleinv_ray.conclude.aggregation.rows import ROW_BY_ROW, Column, Rows


def rows_of(table: pa.Table, names: Iterable[str]) -> Rows:
    """Rows of a table, each distinct value of a column once; lists become arrays.

    Args:
        table: of a schema of `tables`.
        names: the columns wanted.
    """
    return Rows({name: _column(name, table[name].combine_chunks()) for name in names})


def _column(name: str, array: pa.Array) -> Column:
    if pa.types.is_list(array.type):
        return Column(np.arange(len(array)), _arrays(array))
    if name in ROW_BY_ROW:
        return Column(np.arange(len(array)), array.to_pylist())
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    places = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    return Column(places, values)


def _arrays(lists: pa.ListArray) -> list[Any]:
    """Views of the numbers of every list, None where there is no list."""
    numbers = lists.flatten().to_numpy(zero_copy_only=False)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    stops = np.cumsum(lengths, dtype=np.int64)
    spans = zip((stops - lengths).tolist(), stops.tolist(), strict=True)
    there = lists.is_valid().to_pylist()
    return [numbers[a:b] if known else None for (a, b), known in zip(spans, there, strict=True)]
