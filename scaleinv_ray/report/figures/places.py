"""Single rows at the places at which they count, and those of the replicates that count there.

Shape suffixes: R rows, E entries (a row counts at several places), W combinations of the columns
that decide at which.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from scaleinv_ray.conclude.aggregation.places import bins_of, sites_of
from scaleinv_ray.report.pack import distinct_rows

WHERE: tuple[str, ...] = ("site", "role", "layer", "depth")


def placed(table: pa.Table, *, thirds_only: bool = False) -> pa.Table:
    """Every row at each of its sites and depth bins.

    Args:
        table: with the columns of `WHERE`.
        thirds_only: whether rows stand in the third of their depth alone, not in `all` besides.

    Returns:
        The table with a further column `bin`; missing sites are empty.

    >>> rows = pa.table({"site": ["mlp", None], "role": [None, "up"], "layer": [0, 0],
    ...                  "depth": [0.5, 1.0]})
    >>> found = placed(rows, thirds_only=True)
    >>> found["site"].to_pylist(), found["bin"].to_pylist()
    (['mlp', 'up', 'all'], ['middle', 'late', 'late'])
    """
    wheres, where_R = distinct_rows(table.select(WHERE))
    places_W = [
        [
            (site or "", depth_bin)
            for site in sites_of(row)
            for depth_bin in bins_of(row["depth"])[-1 if thirds_only else 0 :]
        ]
        for row in wheres.to_pylist()
    ]
    row_E = np.repeat(np.arange(table.num_rows), [len(places_W[w]) for w in where_R])
    places_E = [place for w in where_R for place in places_W[w]]
    entries = table.take(pa.array(row_E, pa.int64()))
    site = table.schema.get_field_index("site")
    entries = entries.set_column(site, "site", _encoded([site for site, _ in places_E]))
    return entries.append_column("bin", _encoded([depth_bin for _, depth_bin in places_E]))


def _encoded(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.string()).dictionary_encode()
