"""Hidden states between blocks on a local disk: Arrow IPC, a row for every sequence, by level."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from scaleinv_ray.store import PART, is_complete, seal

STATES = "states-"
"""Prefix of folders with hidden states, beside the captures that come out of them."""


class StateFiles:
    """Levels of hidden states in a folder; a level exists under its final name once it is whole.

    A level is one column of `arrow.fixed_shape_tensor` [T, D], a batch of sequences a record batch,
    so that it is read by sequences through a memory map.
    """

    def __init__(self, folder: str | Path, *, keep: bool = False) -> None:
        """States in `folder`; unless `keep`, a level is deleted when the next one is whole."""
        self.folder, self._keep = Path(folder), keep
        self._checked: set[int] = set()

    def path(self, level: int) -> Path:
        """File of a level."""
        return self.folder / f"level-{level:04d}.arrow"

    def complete(self, level: int) -> bool:
        """Whether the level was written to its end and is as it was written."""
        if not is_complete(self.path(level)):
            return False
        try:
            self._check(level)
        except seal.DamagedError:
            return False
        return True

    def _check(self, level: int) -> None:
        """Once for every level: the digest takes as long as it takes to read the file."""
        path = str(self.path(level))
        if level not in self._checked:
            with seal.whole(path), pa.memory_map(path) as source:
                if seal.check(memoryview(source.read_buffer())) is None:
                    raise ValueError("no states of this version")
            self._checked.add(level)

    def latest(self) -> int | None:
        """The highest complete level, None before the first."""
        levels = [int(p.stem[6:]) for p in self.folder.glob("level-*.arrow")]
        return max((level for level in levels if self.complete(level)), default=None)

    @contextmanager
    def write(self, level: int) -> Generator[Callable[[np.ndarray], None]]:
        """Opens a level; what it gives takes arrays [B, T, D] in order.

        Yields:
            A function that appends a batch. After an exception nothing stays behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{PART}{self.path(level).name}"
        writer: list[pa.ipc.RecordBatchFileWriter] = []
        self._checked.discard(level)

        with part.open("wb") as stream:
            sealing = seal.SealingStream(stream)

            def append(x_BTD: np.ndarray) -> None:
                column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x_BTD))
                batch = pa.record_batch([column], names=["x"])
                if not writer:
                    writer.append(pa.ipc.new_file(sealing, batch.schema))
                writer[0].write_batch(batch)

            try:
                yield append
                for opened in writer:
                    sealing.hold()
                    opened.close()
                    sealing.close()
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:  # whatever ends it, an interrupt or a full disk, leaves no part
                part.unlink(missing_ok=True)
                raise
        part.replace(self.path(level))
        if not self._keep and level > 0:
            self.path(level - 1).unlink(missing_ok=True)
            self._checked.discard(level - 1)

    def read(self, level: int, first: int, count: int) -> np.ndarray:
        """Some sequences of a level.

        Args:
            level: a complete one.
            first: number of the first sequence.

        Returns:
            x_BTD, views of the file where one record batch holds them all.

        Raises:
            ValueError: where the level has fewer sequences.
        """
        self._check(level)
        with pa.memory_map(str(self.path(level))) as source:
            file = pa.ipc.open_file(source)
            parts, start = [], 0
            for i in range(file.num_record_batches):
                batch = file.get_batch(i)
                stop = start + batch.num_rows
                low, high = max(first, start), min(first + count, stop)
                if low < high:
                    parts.append(batch.column(0).to_numpy_ndarray()[low - start : high - start])
                start = stop
        if sum(len(p) for p in parts) != count:
            raise ValueError(f"{self.path(level)}: got {start} sequences, needs {first + count}")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
