"""From tables to the rows that `conservation` reads and back, by column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scaleinv_ray.conclude.aggregation.rows import ROW_BY_ROW, Column, Rows
from scaleinv_ray.tables import shared


def rows_of(table: pa.Table, names: Iterable[str]) -> Rows:
    """Rows of a table, each distinct value of a column once; lists become arrays.

    Args:
        table: of a schema of `tables`.
    """
    return Rows({name: _column(name, table[name].combine_chunks()) for name in names})


def samples_of(table: pa.Table) -> Column:
    """The samples of trained models, which alone are compared block by block.

    Args:
        table: of `tables.MEASUREMENTS`.
    """
    is_trained = pc.equal(table["variant"], "trained")
    kept_R = pc.and_(is_trained, pc.is_valid(table["samples"])).to_numpy(zero_copy_only=False)
    found = _arrays(table["samples"].combine_chunks().filter(pa.array(kept_R)))
    place_R = np.full(len(kept_R), len(found))
    place_R[kept_R] = np.arange(len(found))
    return Column(place_R, [*found, None])


def table_of(rows: Rows, schema: pa.Schema) -> pa.Table:
    """A table of rows; texts are dictionaries, so that each is held once.

    Args:
        rows: with the columns of the schema.
        schema: of `tables`.

    Returns:
        The table, of `tables.shared(schema)`.
    """
    of = shared(schema)
    columns = [
        _array(rows.columns[field.name], field.type) if len(rows) else pa.array([], field.type)
        for field in of
    ]
    return pa.Table.from_arrays(columns, schema=of)


def _array(column: Column, of: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(of):
        texts = list(column.values)
        absent_R = np.array([text is None for text in texts], dtype=bool)[column.place_R]
        places = pa.array(column.place_R.astype(np.int32), mask=absent_R)
        known = ["" if text is None else text for text in texts]
        return pa.DictionaryArray.from_arrays(places, pa.array(known, of.value_type))
    return pa.array(column.values, of).take(pa.array(column.place_R))


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
