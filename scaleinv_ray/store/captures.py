"""Captures as Arrow IPC on the disk of the node that made them, read memory-mapped."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from scaleinv_ray.inputs.reading import writing
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.records import Record
from scaleinv_ray.store import seal
from scaleinv_ray.store.run_store import PART
from scaleinv_ray.store.seal import whole


def _as_stored(array: np.ndarray, dtype: str | None) -> tuple[np.ndarray, str]:
    """The array as written and its logical dtype: exact bf16 values take two bytes."""
    array = np.ascontiguousarray(array)
    if dtype == "bfloat16" and array.dtype == np.float32:
        bits = array.view(np.uint32)
        if not (bits & 0xFFFF).any():
            return (bits >> 16).astype(np.uint16), "bfloat16"
    return array, str(array.dtype)


def _from_stored(array: np.ndarray, logical: str) -> np.ndarray:
    if logical == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _tensor_column(array: np.ndarray) -> pa.ExtensionArray:
    """[R, ...] to R cells of the standard fixed_shape_tensor extension, without a copy."""
    rows, shape = array.shape[0], array.shape[1:] or (1,)
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(array.dtype), shape)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(shape)))
    if len(storage) != rows:
        raise ValueError(
            f"array: got shape {array.shape}, allowed no empty dimension but the first"
        )
    return pa.ExtensionArray.from_storage(kind, storage)


def write_records(
    path: Path, records: Sequence[Record], *, kind: str, facts: Mapping[str, str]
) -> int:
    """Writes the records of one kind into one uncompressed Arrow IPC file, atomically.

    Every array of every record is a column `<record>.<array>` of the `arrow.fixed_shape_tensor`
    extension. Where all arrays have the same number of rows (activations: tokens) a row of the
    file is a row of the arrays; otherwise the file has one row and a cell is a whole array. Values
    that are bfloat16 take two bytes, with the dtype in the field's metadata.

    Args:
        path: final path on a local disk.
        records: records of the class that belongs to `kind`, at least one.
        kind: a key of `kinds.KINDS`.
        facts: written into the schema's metadata (protocol hash, model revision, versions).

    Returns:
        Size of the file in bytes.

    Raises:
        ValueError: without records, or with records of another class.
    """
    cls = KINDS[kind].record
    if not records or any(type(r) is not cls for r in records):
        raise ValueError(f"records: got {len(records)}, allowed one or more {cls.__name__}")
    arrays = [
        (f"{i}.{name}", record, getattr(record, name))
        for i, record in enumerate(records)
        for name in record.arrays
        if getattr(record, name) is not None
    ]
    by_row = len({a.shape[0] for _, _, a in arrays}) == 1
    fields, columns = [], []
    for name, record, array in arrays:
        stored, logical = _as_stored(array, record.dtype)
        shape = json.dumps(list(stored.shape))
        column = _tensor_column(stored if by_row else stored[None])
        fields.append(pa.field(name, column.type, metadata={"dtype": logical, "shape": shape}))
        columns.append(column)
    metadata = {
        **facts,
        "kind": kind,
        seal.MARK: "1",
        "by_row": str(int(by_row)),
        "records": json.dumps([r.labels() for r in records]),
    }
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))
    return _write_ipc(path, table)


def _write_ipc(path: Path, table: pa.Table) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PART}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with writing(path), part.open("wb") as stream:
            sealing = seal.SealingStream(stream)
            with pa.ipc.new_file(sealing, table.schema) as writer:
                writer.write_table(table)
                sealing.hold()
            sealing.close()
            stream.flush()
            os.fsync(stream.fileno())
        size = part.stat().st_size
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def is_complete(path: Path) -> bool:
    """Whether a capture file exists and has its footer."""
    try:
        with pa.memory_map(str(path)) as source:
            pa.ipc.open_file(source)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def read_records(path: Path) -> list[Record]:
    """Reads the records of an IPC file, memory-mapped: arrays are views of the file.

    Args:
        path: a file of `write_records`.

    Returns:
        The records, in the order written (bfloat16 comes back as float32, a copy).

    Raises:
        DamagedError: where the file is absent, truncated, changed or no capture.
    """
    with whole(str(path), "not a complete Arrow IPC file: "):
        mapped = pa.memory_map(str(path)).read_buffer()
        digest = seal.check(memoryview(mapped))
        table = pa.ipc.open_file(pa.BufferReader(mapped)).read_all()
        seal.check_mark(table.schema.metadata, digest)
        return _records_of(table)


def _records_of(table: pa.Table) -> list[Record]:
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if metadata.get("kind") not in KINDS:
        raise ValueError("got no capture of this project: no 'kind' in the schema's metadata")
    cls = KINDS[metadata["kind"]].record
    labels = json.loads(metadata["records"])
    arrays: list[dict[str, np.ndarray]] = [{} for _ in labels]
    for field in table.schema:
        index, name = field.name.split(".", 1)
        arrays[int(index)][name] = _array_of(table.column(field.name), field)
    fields: list[dict[str, Any]] = [{**a, **b} for a, b in zip(labels, arrays, strict=True)]
    return [cls(**given) for given in fields]


def _array_of(column: pa.ChunkedArray, field: pa.Field) -> np.ndarray:
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat = chunk.storage.flatten().to_numpy(zero_copy_only=True)
    shape = json.loads(field.metadata[b"shape"])
    return _from_stored(flat, field.metadata[b"dtype"].decode()).reshape(shape)


def write_record(path: Path, record: Record, *, kind: str, facts: Mapping[str, str]) -> int:
    """Writes a single record; see `write_records`."""
    return write_records(path, [record], kind=kind, facts=facts)


def read_record(path: Path) -> Record:
    """Reads a file that holds a single record.

    Args:
        path: a file of `write_record`.

    Raises:
        ValueError: where the file holds several.
    """
    records = read_records(path)
    if len(records) != 1:
        raise ValueError(f"capture {path}: got {len(records)} records, allowed 1")
    return records[0]
