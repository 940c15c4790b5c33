"""One run at a time in a folder: another is refused, with the name of the one that is at it.

A local folder is locked by the kernel, which frees it when the process ends, however it ends. An
object store has no locks, nor have some network disks: there a run writes a beat every few seconds,
and a beat that stands still for `DEAD_S` seconds is that of a run that was killed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from scaleinv_ray.inputs.reading import writing
from scaleinv_ray.store import Store

LOCK, BEAT = "run.lock", "run.beat"
"""Files of a run folder. The lock stays there; it is held by who has it open, not by its being."""
BEAT_S = 10.0
DEAD_S = 45.0
LOOK_S = 0.05
SETTLE_S = 1.0
"""Seconds in which one of two that begin together sees that the other wrote after it."""


class OccupiedError(ValueError):
    """Another run is at the folder."""


@contextmanager
def alone(store: Store) -> Generator[None]:
    """Holds a run folder for the block.

    Yields:
        Nothing. Begins at once, but for a killed run's folder that cannot be locked: there after
        `DEAD_S` seconds.

    Raises:
        OccupiedError: where another run, of this or of another process, is at the folder.
    """
    with ExitStack() as stack:
        if store.local is None or not stack.enter_context(_locked(store)):
            stack.enter_context(_beating(store))
        yield


def is_locked(store: Store) -> bool | None:
    """Whether a run is at a folder, which is left as it is.

    Returns:
        What the lock says; None where there is none: in an object store, on a network disk without
        locks, in a folder that no run has begun in.
    """
    if store.local is None or not (store.local / LOCK).is_file():
        return None
    try:
        with (store.local / LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _me() -> str:
    now = datetime.now(UTC)
    return f"process {os.getpid()} on {socket.gethostname()} since {now:%Y-%m-%d %H:%M:%S UTC}"


def _occupied(store: Store, by: str) -> OccupiedError:
    return OccupiedError(
        f"out: {store.shown} is in use by {by or 'another process'}, allowed: one run at a time"
    )


@contextmanager
def _locked(store: Store) -> Generator[bool]:
    """Whether the file system knows locks; where it does, the folder's is held for the block."""
    assert store.local is not None
    with _opened(store.local / LOCK) as stream:
        if not _lock(store, stream):
            yield False
            return
        with writing(store.local / LOCK):
            stream.truncate(0)
            stream.write(_me())
            stream.flush()
        try:
            yield True
        finally:
            stream.truncate(0)


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", errors="replace")
    except OSError as error:
        raise ValueError(
            f"out: {error.filename}: {error.strerror}, allowed: a folder that can be written to, "
            f"with {LOCK} a file or absent"
        ) from error


def _lock(store: Store, stream: TextIO) -> bool:
    for tries in range(3):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if tries == 2:
                stream.seek(0)
                raise _occupied(store, stream.read()) from error
            time.sleep(LOOK_S)  # `is_locked` holds it for a moment
        except OSError:  # a network disk without locks
            return False
        else:
            return True
    raise AssertionError("the last try has returned or raised")


@contextmanager
def _beating(store: Store) -> Generator[None]:
    _await_the_dead(store)
    me = f"{_me()} beat {uuid.uuid4().hex}"
    store.write_bytes(BEAT, me.encode())
    time.sleep(SETTLE_S)
    if (found := _beat_of(store)) != me:
        raise _occupied(store, _who(found))
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(store, me, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(OSError):  # it stands still from now on
            if (_beat_of(store) or "").startswith(me):
                store.delete(BEAT)


def _beat(store: Store, me: str, ended: threading.Event) -> None:
    count = 0
    while not ended.wait(BEAT_S):
        count += 1
        with suppress(OSError):  # the next one may be written
            store.write_bytes(BEAT, f"{me} {count}".encode())


def _await_the_dead(store: Store) -> None:
    """Returns when nobody is at the folder; compares beats, for clocks of machines differ."""
    first = _beat_of(store)
    limit = time.monotonic() + DEAD_S
    while first is not None and time.monotonic() < limit:
        time.sleep(SETTLE_S)
        found = _beat_of(store)
        if found is None:
            return
        if found != first:
            raise _occupied(store, _who(found))


def _beat_of(store: Store) -> str | None:
    try:
        return store.read_bytes(BEAT).decode(errors="replace") if store.exists(BEAT) else None
    except FileNotFoundError:  # deleted between the two
        return None


def _who(beat: str | None) -> str:
    return (beat or "").partition(" beat ")[0]
