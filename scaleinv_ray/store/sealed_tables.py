"""Tables as sealed Parquet, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scaleinv_ray import tables
from scaleinv_ray.inputs.wording import listed
from scaleinv_ray.store import seal

_GROUP = 2**17
"""Rows that are written at a time."""


class Read(NamedTuple):
    """A table as it was read.

    Attributes:
        table: with its metadata.
        digest: of the file.
        sealed: the file was written by a store; else its digest was made in reading.
    """

    table: pa.Table
    digest: str
    sealed: bool


def to_bytes(table: pa.Table) -> bytes:
    """A table as Parquet (zstd, page checksums) with its seal.

    Args:
        table: with the metadata that it is to have; texts held as dictionaries become texts.

    Returns:
        The content of the file.
    """
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), seal.MARK: "1"})
    plain = tables.plain(table.schema)
    with pq.ParquetWriter(sink, plain, compression="zstd", write_page_checksum=True) as file:
        for start in range(0, max(table.num_rows, 1), _GROUP):
            file.write_table(table.slice(start, _GROUP).cast(plain), row_group_size=_GROUP)
    return seal.sealed(memoryview(sink.getvalue()))


def parse(
    path: str,
    data: pa.Buffer,
    columns: Sequence[str] | None,
    *,
    schema: pa.Schema | None,
    shared: bool = False,
) -> Read:
    """The table of a Parquet file.

    Args:
        path: of the file, for messages.
        columns: those wanted, None for all.
        schema: that it has to have, None for any.
        shared: texts of the schema as dictionaries.

    Returns:
        The table, its seal compared.

    Raises:
        DamagedError: where the file is not as it was written, or no such table.
    """
    with seal.whole(path):
        digest = seal.check(memoryview(data))
        texts = tables.texts_of(schema) if shared and schema is not None else None
        file = pq.ParquetFile(
            pa.BufferReader(data), page_checksum_verification=True, read_dictionary=texts
        )
        names, metadata = file.schema_arrow.names, dict(file.schema_arrow.metadata or {})
        seal.check_mark(metadata, digest)
        asked = list(columns or names) if schema is None else schema.names
        if (schema is not None and names != asked) or set(asked) - set(names):
            raise seal.DamagedError(path, _other_columns(names, asked))
        table = file.read(columns=None if columns is None else list(columns))
        if schema is not None:
            wanted = tables.shared(schema) if shared else schema
            table = table.cast(pa.schema([wanted.field(n) for n in table.schema.names]))
        metadata.pop(seal.MARK.encode(), None)
        table = table.replace_schema_metadata(metadata or None)
        return Read(table, digest or hashlib.blake2b(data).hexdigest(), digest is not None)


def _other_columns(got: Sequence[str], asked: Sequence[str]) -> str:
    """Which columns a table lacks or has besides, and what to do about it."""
    lacks = [name for name in asked if name not in got]
    more = [name for name in got if name not in asked]
    if len(lacks) == len(asked):
        return f"a table with other columns ({listed(got, '')}), not made by scaleinv"
    parts = [f"lacks {listed(lacks, '')}"] if lacks else []
    parts += [f"has {listed(more, '')} besides"] if more else []
    what = ", ".join(parts) or "columns in another order"
    return f"a table of another version ({what}); scaleinv run makes it anew"
