"""One column of a Parquet file, as `datasets` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scaleinv_ray.inputs.wording import shown

if TYPE_CHECKING:
    import pyarrow as pa


def column_of(file: Path, name: str) -> pa.ChunkedArray:
    """A column; the others are not read.

    Args:
        file: Parquet.

    Returns:
        Its values.

    Raises:
        ValueError: naming the file, where it is no Parquet or lacks the column.
    """
    import pyarrow.lib
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(file).names
        if known.count(name) == 1:
            return pq.read_table(file, columns=[name], partitioning=None)[name]
    except (pyarrow.lib.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:100]
        raise ValueError(f"probes: got {str(file)!r}, allowed Parquet ({said})") from error
    which = "once" if name in known else "as its field, or another of these (field: ..)"
    raise ValueError(f"{file}: got columns {shown(known)}, needs {shown(name, 40)} {which}")
