"""The closed list of the tables that follow from measurements.

A new table is a file, with the class of its rows and the function that makes them, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.evaluations import REPLACED
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.value_rows import ValueRow, value_rows
from scaleinv_ray.conclude.columns import table_of
from scaleinv_ray.conclude.conservation.prediction import PredictionRow
from scaleinv_ray.conclude.conservation.verdict import VerdictRow
from scaleinv_ray.conclude.evaluations import (
    CapabilityRow,
    UnjoinedRow,
    capability_row,
    unjoined_row,
)
from scaleinv_ray.conclude.evidence import BEHAVIOUR, Evidence
from scaleinv_ray.conclude.training.emergence_over_runs import EmergenceRow, emergence_table
from scaleinv_ray.conclude.training.order import OrderRow, order_table
from scaleinv_ray.conclude.training.progress.table import KindRow, kinds_table
from scaleinv_ray.conclude.training.stages import StageRow, stages_table
from scaleinv_ray.conclude.training.transitions import TransitionRow
from scaleinv_ray.conclude.universality.classes import ClassRow, classes_table
from scaleinv_ray.conclude.universality.curves import CollapseRow, collapse_table
from scaleinv_ray.conclude.universality.pairs import PairRow, ceiling_table
from scaleinv_ray.singularities.table import INVARIANT, MatchRow, matches_table


@dataclass(frozen=True)
class Conclusion:
    """A table that follows from measurements.

    Attributes:
        name: of its file, without `.parquet`.
        row: TypedDict of its rows: columns, types, what each says, and in its docstring what a row
            says (`tables.schema_of`).
        rows: makes them.
        figure: the section of the page that draws it; None: the page shows it as a table.
    """

    name: str
    row: type
    rows: Callable[[Evidence], Iterable[Mapping[str, Any]]]
    figure: str | None = None

    @property
    def file(self) -> str:
        """Its name in the folder of a run."""
        return f"{self.name}.parquet"

    @property
    def schema(self) -> pa.Schema:
        """The schema of its rows."""
        return tables.schema_of(self.row)

    def table(self, of: Evidence) -> pa.Table:
        """The table, made anew."""
        rows = self.rows(of)
        if isinstance(rows, Rows):
            return table_of(rows, self.schema)
        return tables.encode(rows, self.schema)


def _classes(of: Evidence) -> list[ClassRow]:
    return classes_table(
        of.measured,
        quantities=of.quantities,
        curve_rows=of.curves_between,
        margin=of.config.conservation.margin,
    )


def _stages(of: Evidence) -> list[StageRow]:
    return stages_table(of.transitions, of.moving, quantities=of.quantities)


def _orders(of: Evidence) -> list[OrderRow]:
    return order_table(of.transitions, of.moving, quantities=of.quantities)


def _matches(of: Evidence) -> list[MatchRow]:
    return matches_table(of.measured.where(of.measured.equal(invariant=INVARIANT)))


def _capabilities(of: Evidence) -> list[CapabilityRow]:
    # a curve of a model that was not measured is drawn beside the others
    beside = [r for r in of.joined.lost if r["value"] is not None and r["reason"] != REPLACED]
    return [*of.capabilities, *map(capability_row, beside)]


def _unjoined(of: Evidence) -> list[UnjoinedRow]:
    return [unjoined_row(row) for row in of.joined.lost]


def _emergence(of: Evidence) -> list[EmergenceRow]:
    inner = of.followed.where(~of.followed.equal(family=BEHAVIOUR))
    return emergence_table(inner, of.capabilities, quantities=of.quantities, rng=of.rng)


def _kinds(of: Evidence) -> list[KindRow]:
    return kinds_table(of.moving, quantities=of.quantities, rng=of.rng)


CONCLUSIONS: tuple[Conclusion, ...] = (
    Conclusion("values", ValueRow, lambda of: value_rows(of.measured), "families"),
    Conclusion("verdicts", VerdictRow, lambda of: of.judged[0], "verdicts"),
    Conclusion("predictions", PredictionRow, lambda of: of.judged[1], "families"),
    Conclusion("pairs", PairRow, lambda of: ceiling_table(of.measured), "pairs"),
    Conclusion("classes", ClassRow, _classes, "classes"),
    Conclusion("collapses", CollapseRow, lambda of: collapse_table(of.curves_between), "collapses"),
    Conclusion("transitions", TransitionRow, lambda of: of.transitions, "transitions"),
    Conclusion("kinds", KindRow, _kinds, "kinds"),
    Conclusion("stages", StageRow, _stages, "spectroscopy"),
    Conclusion("orders", OrderRow, _orders, "transitions"),
    Conclusion("matches", MatchRow, _matches, "spectroscopy"),
    Conclusion("capabilities", CapabilityRow, _capabilities, "capabilities"),
    Conclusion("emergence", EmergenceRow, _emergence, "capabilities"),
    Conclusion("unjoined", UnjoinedRow, _unjoined, "capabilities"),
)
"""In the order in which they are made; what several of them need is made once (`Evidence`)."""
SCHEMAS: Mapping[str, pa.Schema] = {of.name: of.schema for of in CONCLUSIONS}


def concluded_files() -> list[str]:
    """Names of the files of all conclusions in the folder of a run."""
    return [of.file for of in CONCLUSIONS]
