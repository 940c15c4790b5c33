"""Rows by column: the same rows, whatever they are made of."""

import math

import numpy as np
import pyarrow as pa

from scaleinv_ray.conclude.aggregation.cells import gather
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.values import comparisons
from scaleinv_ray.conclude.columns import rows_of
from tests.conclude.measured_rows import measurement

ROWS = [
    measurement(
        n_params=n, model=f"m{n}", seed=seed, layer=layer, depth=(layer + 1) / 3,
        value=n * (1 + 0.01 * seed) + layer, stderr=None if layer == 2 else 0.1,
        status="refused" if (seed, layer) == (1, 1) else "ok", error="too few",
    )
    for n in (10, 20)
    for seed in (0, 1)
    for layer in range(3)
]  # fmt: skip


def test_rows_come_back_as_they_were() -> None:
    rows = Rows.of([{"a": 1, "b": [1.0]}, {"a": None, "b": None}, {"a": 1, "b": [1.0]}])
    assert len(rows) == 3
    assert list(rows) == [{"a": 1, "b": [1.0]}, {"a": None, "b": None}, {"a": 1, "b": [1.0]}]
    assert list(rows.where(np.array([False, True, True])))[0] == {"a": None, "b": None}
    assert Rows.of(rows) is rows


def test_zeros_of_either_sign_stay_apart_in_values() -> None:
    rows = Rows.of([{"value": 0.0}, {"value": -0.0}])
    assert [math.copysign(1, row["value"]) for row in rows] == [1, -1]


def test_combinations_in_the_order_in_which_they_occur() -> None:
    rows = Rows.of([{"a": a, "b": b} for a, b in ((2, "x"), (None, "x"), (2, "y"), (2, "x"))])
    places, found = rows.distinct(("a", "b"))
    assert places.tolist() == [0, 1, 2, 0] and found == [(2, "x"), (None, "x"), (2, "y")]
    assert rows.among(("a", "b"), {(2, "y")}).tolist() == [False, False, True, False]
    assert rows.equal(a=2, b="x").tolist() == [True, False, False, True]
    assert rows.known("a").tolist() == [True, False, True, True]


def test_columns_with_more_combinations_than_an_integer_holds() -> None:
    names = [f"c{i}" for i in range(12)]
    rows = [{name: i * (k + 1) for k, name in enumerate(names)} for i in range(64)]
    places, found = Rows.of(rows * 2).distinct(names)
    assert places.tolist() == [*range(64), *range(64)] and len(found) == 64


def test_joined_rows_have_no_value_twice() -> None:
    first = Rows.of([{"a": "x", "value": 1.0}, {"a": "y", "value": 2.0}])
    both = first.joined([{"a": "y", "value": 2.0, "more": 1}])
    assert list(both)[2] == {"a": "y", "value": 2.0}
    assert both.distinct(("a",))[1] == [("x",), ("y",)]
    assert first.joined([]) is first
    assert list(Rows.of([]).joined([{"a": 1}])) == [{"a": 1}]


def test_nothing_of_no_rows() -> None:
    rows = Rows.of([])
    assert len(rows) == 0 and list(rows) == []
    assert rows.distinct(("a",))[1] == []
    assert gather(rows) == []


def test_a_table_gives_the_rows_it_holds() -> None:
    table = pa.table({
        "a": ["x", None, "x"],
        "value": [1.0, None, 0.5],
        "x": pa.array([[1.0, 2.0], None, []], pa.list_(pa.float64())),
    })
    for given in (table, table.set_column(0, "a", table["a"].dictionary_encode()), table[:0]):
        rows = list(rows_of(given, ["a", "value", "x"]))
        told = [r | {"x": None if r["x"] is None else r["x"].tolist()} for r in rows]
        assert told == given.to_pylist()


def test_groups_of_columns_are_those_of_rows() -> None:
    by_row, by_column = gather(ROWS), gather(Rows.of(ROWS))
    assert [g.place for g in by_row] == [g.place for g in by_column]
    for ours, theirs in zip(by_row, by_column, strict=True):
        assert comparisons(ours) == comparisons(theirs)
    rows = Rows.of(ROWS)
    assert gather(rows) is gather(rows), "several tables ask for the same groups"
