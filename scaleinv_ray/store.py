"""Where a run lives: atomic tables behind a URI, captures as Arrow IPC on a local disk.

Tables go to the store (a folder, s3://, gs:// through pyarrow.fs). Captures stay on the scratch
disk of the node that made them and are read memory-mapped.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from pyarrow import fs

from scaleinv_ray import seal, sealed_tables
from scaleinv_ray.litter import is_litter
from scaleinv_ray.paths import expanded, is_uri
from scaleinv_ray.patience import patient
from scaleinv_ray.reading import reading, writing
from scaleinv_ray.records import KINDS, Record
from scaleinv_ray.seal import whole

PART, ASIDE = "_part-", "_damaged-"
"""Prefixes of files being written and of those set aside: as Arrow's datasets do, readers here pass
over names that begin with an underscore or a dot."""


class Listing(NamedTuple):
    """What lies directly in a folder of a store, hidden files and litter left out.

    Attributes:
        files: names of complete files, sorted.
        folders: names of folders, sorted.
    """

    files: list[str]
    folders: list[str]


class Store:
    """A folder of a run behind a URI, with writes that appear whole or not at all.

    What a bad moment of an object store has hindered is done again.

    Attributes:
        uri: as given; absolute where it is a local folder.
        local: the folder, where the store is a local one, else None.
    """

    def __init__(self, uri: str | Path) -> None:
        """Opens a store; a local folder is made when something is first written."""
        self.uri = str(uri)
        if is_uri(self.uri):
            self._fs, self._root = fs.FileSystem.from_uri(self.uri)
        else:
            # absolute: workers have other working directories
            self.uri = self._root = str(expanded(self.uri).resolve())
            self._fs = fs.LocalFileSystem()
        self.local = Path(self._root) if isinstance(self._fs, fs.LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Full path of `name` inside the store.

        Args:
            name: relative path with forward slashes.

        Returns:
            The path as the file system knows it.

        Raises:
            ValueError: for a name that leaves the store.
        """
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not parts:
            raise ValueError(f"name: got {name!r}, allowed relative paths inside {self.uri}")
        return f"{self._root.rstrip('/')}/{name}"

    @patient
    def exists(self, name: str) -> bool:
        """Whether a file of that name is complete."""
        return self._fs.get_file_info(self.path(name)).type == fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """Complete files directly inside a folder of the store, sorted; none where it is absent."""
        return self.listing(folder).files

    @patient
    def listing(self, folder: str = "") -> Listing:
        """What lies directly in a folder of the store, without what systems and editors leave.

        Args:
            folder: relative path, none for the store itself; nothing lies in an absent one.

        Returns:
            Names of files and of folders.
        """
        at = self.path(folder) if folder else self._root
        selector = fs.FileSelector(at, allow_not_found=True)
        found = [i for i in self._fs.get_file_info(selector) if not is_litter(i.base_name)]
        return Listing(
            sorted(i.base_name for i in found if i.is_file),
            sorted(i.base_name for i in found if i.type == fs.FileType.Directory),
        )

    @patient
    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a file atomically (object stores make an object visible only when closed)."""
        target = self.path(name)
        if self.local is None:
            with writing(target), self._fs.open_output_stream(target) as stream:
                stream.write(data)
            return
        write_atomically(Path(target), data)

    @patient
    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        path = self.path(name)
        with reading(path), self._fs.open_input_file(path) as stream:
            return stream.read()

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a table as Parquet (zstd, page checksums), sealed, atomically.

        Texts that are held as dictionaries are written as texts.
        """
        self.write_bytes(name, sealed_tables.to_bytes(table))

    def read_table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        schema: pa.Schema | None = None,
        shared: bool = False,
    ) -> pa.Table:
        """Reads a Parquet table, or some of its columns.

        Args:
            name: of the file.
            columns: those wanted, all by default.
            schema: that it has to have.
            shared: texts as dictionaries, which many rows share: of measurements a fifth of the
                memory.

        Returns:
            The table, with its metadata.

        Raises:
            DamagedError: where the file is not as it was written, or no such table.
        """
        return self.read_sealed(name, columns, schema=schema, shared=shared).table

    @patient
    def read_sealed(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        schema: pa.Schema | None = None,
        shared: bool = False,
    ) -> sealed_tables.Read:
        """As `read_table`, with the digest of the file."""
        path = self.path(name)
        with reading(path), self._fs.open_input_file(path) as stream:
            data = stream.read_buffer()
        return sealed_tables.parse(path, data, columns, schema=schema, shared=shared)

    def set_aside(self, name: str) -> str:
        """Renames a file, or a folder, so that no reader takes it for one of the run.

        Args:
            name: of the file.

        Returns:
            Its new name.
        """
        folder, _, base = name.rpartition("/")
        new = f"{folder}{'/' if folder else ''}{ASIDE}{uuid.uuid4().hex[:8]}-{base}"
        self._fs.move(self.path(name), self.path(new))
        return new

    @patient
    def delete(self, name: str) -> None:
        """Removes a file; absent is fine."""
        path = self.path(name)
        if self._fs.get_file_info(path).type == fs.FileType.File:
            self._fs.delete_file(path)


def write_atomically(target: Path, data: bytes | memoryview | pa.Buffer) -> None:
    """Writes under a temporary name in the same folder, syncs, renames.

    Args:
        target: final path; its folder is made.
        data: the whole content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{PART}{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        with writing(target), part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


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
        kind: a key of `records.KINDS`.
        facts: written into the schema's metadata (protocol hash, model revision, versions).

    Returns:
        Size of the file in bytes.

    Raises:
        ValueError: without records, or with records of another class.
    """
    if not records or any(type(r) is not KINDS[kind] for r in records):
        raise ValueError(f"records: got {len(records)}, allowed one or more {KINDS[kind].__name__}")
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
    cls = KINDS[metadata["kind"]]
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

    Returns:
        The record.

    Raises:
        ValueError: where the file holds several.
    """
    records = read_records(path)
    if len(records) != 1:
        raise ValueError(f"capture {path}: got {len(records)} records, allowed 1")
    return records[0]
