"""Rows of a table by column, each distinct value once: as dicts a million rows take 2 GB.

Shape suffix: R rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

_SLICE = 20_000
"""Rows that are dicts at a time where rows are asked for one by one."""
ROW_BY_ROW = {"value", "stderr"}
"""Columns whose values are not looked for among others: few repeat, and 0.0 equals -0.0."""


class Column(NamedTuple):
    """A column: of each row the place of its value among `values`."""

    place_R: np.ndarray
    values: Sequence[Any]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Column:
        """A column of values in the order of the rows; what has no hash is kept row by row."""
        seen: dict[Any, int] = {}
        try:
            places = [seen.setdefault(value, len(seen)) for value in values]
        except TypeError:
            return cls(np.arange(len(values)), values)
        return cls(np.array(places, dtype=np.int64), list(seen))

    @property
    def float_R(self) -> np.ndarray:
        """The values as floats, NaN where there is none."""
        found = [np.nan if value is None else value for value in self.values]
        return np.array(found, dtype=np.float64)[self.place_R]


class Rows:
    """Rows of a table, iterated as mappings, selected and counted by columns."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        """Columns by name, of one length."""
        self.columns = columns
        self.gathered: Any = None
        """What `values.gather` made of these rows: several tables ask for it."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Rows:
        """Rows of any kind; `Rows` themselves are returned as they are."""
        if isinstance(rows, Rows):
            return rows
        listed = list(rows)
        names = listed[0] if listed else ()
        columns = {name: [row[name] for row in listed] for name in names}
        return cls({
            name: Column(np.arange(len(listed)), of) if name in ROW_BY_ROW else Column.of(of)
            for name, of in columns.items()
        })

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())).place_R) if self.columns else 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows as dicts, in order."""
        names = list(self.columns)
        for start in range(0, len(self), _SLICE):
            cells = [
                [c.values[i] for i in c.place_R[start : start + _SLICE].tolist()]
                for c in self.columns.values()
            ]
            for values in zip(*cells, strict=True):
                yield dict(zip(names, values, strict=True))

    def where(self, mask_R: np.ndarray) -> Rows:
        """The rows of a mask, in order."""
        return Rows({n: Column(c.place_R[mask_R], c.values) for n, c in self.columns.items()})

    def holds(self, name: str, test: Callable[[Any], bool]) -> np.ndarray:
        """Of each row whether its value in a column passes a test."""
        if not len(self):
            return np.zeros(0, dtype=bool)
        column = self.columns[name]
        return np.array([test(v) for v in column.values], dtype=bool)[column.place_R]

    def known(self, name: str) -> np.ndarray:
        """Of each row whether it has a value in a column."""
        return self.holds(name, lambda value: value is not None)

    def equal(self, **wanted: Any) -> np.ndarray:
        """Of each row whether these columns have these values."""
        mask_R = np.ones(len(self), dtype=bool)
        for name, value in wanted.items():
            mask_R &= self.holds(name, partial(operator.eq, value))
        return mask_R

    def among(self, names: Sequence[str], wanted: Collection[tuple[Any, ...]]) -> np.ndarray:
        """Of each row whether its values in some columns are one of these combinations."""
        place_R, found = self.distinct(names)
        return np.array([combination in wanted for combination in found], dtype=bool)[place_R]

    def beside(self, name: str, column: Column) -> Rows:
        """The rows with a column more."""
        return Rows({**self.columns, name: column})

    def with_column(self, name: str, of: str, made: Callable[[Any], Any]) -> Rows:
        """These rows with a further column, made of the values of another."""
        if not len(self):
            return self
        column = Column.of([made(value) for value in self.columns[of].values])
        place_R = column.place_R[self.columns[of].place_R]
        return Rows({**self.columns, name: Column(place_R, column.values)})

    def distinct(self, names: Iterable[str]) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
        """Of each row its place among the distinct combinations of some columns, and these.

        Returns:
            Places [R], and the combinations in the order in which they occur first.
        """
        if not len(self):
            return np.zeros(0, dtype=np.int64), []
        columns = {name: self.columns[name] for name in names}
        grouped = pd.DataFrame({n: c.place_R for n, c in columns.items()}).groupby(
            [*columns], sort=False
        )
        first = grouped.size().reset_index()
        found = [[c.values[i] for i in first[name]] for name, c in columns.items()]
        return grouped.ngroup().to_numpy(), list(zip(*found, strict=True))

    def joined(self, others: Sequence[Mapping[str, Any]]) -> Rows:
        """These rows and after them others with the same columns."""
        if not others or not len(self):
            return self if not others else Rows.of(others)
        more = Rows.of(others)
        return Rows({n: _joined(n, c, more.columns[n]) for n, c in self.columns.items()})


def _joined(name: str, first: Column, second: Column) -> Column:
    place_R = np.concatenate([first.place_R, second.place_R + len(first.values)])
    values = [*first.values, *second.values]
    if name in ROW_BY_ROW:
        return Column(place_R, values)
    both = Column.of(values)
    return Column(both.place_R[place_R], both.values)
