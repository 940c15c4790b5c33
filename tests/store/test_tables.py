"""The codec between rows and tables is strict."""

import pyarrow as pa
import pytest

from scaleinv_ray import tables

SCHEMA = pa.schema([("a", pa.int64()), ("flags", pa.map_(pa.string(), pa.string()))])


def test_rows_round_trip() -> None:
    rows = [{"a": 1, "flags": {"n_tail": "20"}}, {"a": None, "flags": {}}]
    assert tables.decode(tables.encode(rows, SCHEMA)) == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1, "flags": {}, "b": 2}, r"unknown keys \['b'\]"),
        ({"a": 1}, r"missing keys \['flags'\]"),
    ],
)
def test_a_key_too_many_or_too_few_raises(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.encode([row], SCHEMA)


def test_no_rows_give_an_empty_table_of_the_schema() -> None:
    assert tables.encode([], tables.MEASUREMENTS).schema == tables.MEASUREMENTS


def test_list_children_are_named_element() -> None:
    assert tables.CURVES.field("x").type.value_field.name == "element"
