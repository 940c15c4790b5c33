"""A digest inside a Parquet or Arrow IPC file, by which a change of any of its bytes is seen.

Both formats end in a footer, its length and a magic, and refer to everything else by offsets from
the beginning: bytes between the data and the footer are read by nobody. There the seal stands, so
that it is written, copied, renamed and deleted with its file. It is the BLAKE2b of the CRC-32 of
every 16 MiB and of the footer: four times faster than a cryptographic hash of the bytes, and each
CRC sees every single burst of up to 32 bits in its block. It is no protection against intent.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

TAG = b"scaleinv.seal.1\n"
MARK = "scaleinv.sealed"
"""Key of a schema's metadata: a file that has it and no seal has lost it with the bytes around."""
SIZE = 64
"""Bytes of a seal, tag, digest and tag again; a multiple of 8 keeps footers aligned."""
_BLOCK = 2**24
_MAGICS = (b"PAR1", b"ARROW1")
_LEAST = 16
_OTHER = "other bytes than were written"


class DamagedError(ValueError):
    """A file that is not what was written, or no file of this project.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Names the file and says what is wrong with it."""
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Both go along from process to process."""
        return type(self), (self.path, self.reason)


@contextmanager
def whole(path: str, what: str = "") -> Generator[None]:
    """Whatever goes wrong in the block, where bytes in memory are made a table, is their file's.

    Args:
        what: the beginning of the reason.

    Raises:
        DamagedError: with the path and the first line of what went wrong.
    """
    try:
        yield
    except DamagedError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(path, f"{what}{reason}") from error


class Sink(Protocol):
    """What can be written to."""

    def write(self, data: memoryview, /) -> object:
        """Takes bytes."""


def check_mark(metadata: Mapping[bytes, bytes] | None, digest: str | None) -> None:
    """Refuses a file that was sealed and is not any more.

    Args:
        digest: as of `check`.

    Raises:
        ValueError: where the mark is there and the seal is not.
    """
    if digest is None and MARK.encode() in (metadata or {}):
        raise ValueError(_OTHER)


class SealingStream:
    """A stream that seals what is written through it; `close` writes the seal and the footer.

    What comes after `hold` is kept in memory: it is little more than the footer.
    """

    def __init__(self, sink: Sink) -> None:
        """Writes to `sink`, which stays open."""
        self._sink = sink
        self._digest = _Digest()
        self._held: bytearray | None = None
        self.closed = False

    def writable(self) -> bool:
        """Asked by pyarrow."""
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Takes bytes, in order."""
        view = memoryview(data).cast("B")
        if self._held is not None:
            self._held += view
            return len(view)
        self._digest.update(view)
        self._sink.write(view)
        return len(view)

    def flush(self) -> None:
        """Asked by pyarrow; the owner of the sink flushes it."""

    def hold(self) -> None:
        """Says that all data were written: what follows ends with the footer."""
        self._held = bytearray()

    def close(self) -> None:
        """Writes what was held, with the seal in its place."""
        if self.closed:
            return
        self.closed = True
        with memoryview(self._held or b"") as held:
            at = _footer_at(held)
            if at is None:
                raise ValueError("seal: got a file without a footer, allowed: Parquet, Arrow IPC")
            self._digest.update(held[:at])
            for part in (held[:at], memoryview(self._digest.seal(held[at:])), held[at:]):
                self._sink.write(part)


def sealed(data: bytes | memoryview) -> bytes:
    """A whole Parquet or Arrow IPC file with its seal.

    Args:
        data: the file without one.

    Returns:
        A file of `SIZE` bytes more, in which readers of the format find the same.

    Raises:
        ValueError: where the data are no such file.
    """
    view = memoryview(data).cast("B")
    at = _footer_at(view)
    if at is None:
        raise ValueError("seal: got data without a footer, allowed: Parquet, Arrow IPC")
    digest = _Digest()
    digest.update(view[:at])
    return b"".join([view[:at], digest.seal(view[at:]), view[at:]])


def check(data: bytes | memoryview) -> str | None:
    """Compares a file with its seal.

    Returns:
        The digest in hexadecimal; None for a file that was never sealed.

    Raises:
        ValueError: where the bytes are others than those that were sealed.
    """
    view = memoryview(data).cast("B")
    at = _footer_at(view)
    if at is None:
        raise ValueError(f"{len(view)} bytes, empty, truncated or no Parquet or Arrow file")
    seal = bytes(view[max(0, at - SIZE) : at])
    if not (seal.startswith(TAG) or seal.endswith(TAG)):
        # the length of the footer may be what was damaged: the seal is then elsewhere
        if TAG in bytes(view[-_BLOCK:]):
            raise ValueError(_OTHER)
        return None
    digest = _Digest()
    digest.update(view[: at - SIZE])
    if seal != digest.seal(view[at:]):
        raise ValueError(_OTHER)
    return seal[len(TAG) : -len(TAG)].hex()


def _footer_at(view: memoryview) -> int | None:
    """Where the footer begins, None where the end of the data is not that of such a file."""
    for magic in _MAGICS:
        if len(view) >= _LEAST and bytes(view[-len(magic) :]) == magic:
            length = int.from_bytes(view[-len(magic) - 4 : -len(magic)], "little", signed=True)
            at = len(view) - len(magic) - 4 - length
            return at if length > 0 and at >= 0 else None
    return None


class _Digest:
    """Of bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._crcs = hashlib.blake2b(digest_size=SIZE - 2 * len(TAG))
        self._crc, self._room = 0, _BLOCK

    def update(self, view: memoryview) -> None:
        while view:
            part, view = view[: self._room], view[self._room :]
            self._crc = zlib.crc32(part, self._crc)
            self._room -= len(part)
            if not self._room:
                self._end_block()

    def _end_block(self) -> None:
        self._crcs.update(self._crc.to_bytes(4, "little"))
        self._crc, self._room = 0, _BLOCK

    def seal(self, footer: memoryview) -> bytes:
        """Ends the digest with the footer, as a block of its own."""
        self._end_block()
        self._crcs.update(zlib.crc32(footer).to_bytes(4, "little"))
        return TAG + self._crcs.digest() + TAG
