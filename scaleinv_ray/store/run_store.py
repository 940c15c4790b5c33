"""Where a run lives: atomic tables behind a URI (a folder, s3://, gs:// through pyarrow.fs)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc
from pyarrow import fs

from scaleinv_ray.inputs.paths import expanded, is_uri, without_keys
from scaleinv_ray.inputs.reading import reading, writing
from scaleinv_ray.store import sealed_tables
from scaleinv_ray.store.litter import is_litter
from scaleinv_ray.store.patience import patient

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

    @property
    def shown(self) -> str:
        """The URI without keys, for messages and for what is kept."""
        return without_keys(self.uri)

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
            raise ValueError(f"name: got {name!r}, allowed relative paths inside {self.shown}")
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
