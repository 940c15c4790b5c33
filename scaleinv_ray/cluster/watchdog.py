"""Ends what an embedded Ray has started when its driver dies without ending it.

The kernel ends the processes that a driver has started itself, but not those that they have
started: after a SIGKILL Ray's agents stay behind for a minute or two. A small process of ours reads
a pipe that closes when the driver dies, however it dies, and then ends what it has seen of this one
Ray: by process id and time of start, so that nothing else is ever touched.

    python watchdog.py DRIVER FOLDER-OF-RAY

Needs nothing but the standard library, and Linux's /proc; elsewhere nothing is watched.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
LOOK_S = 1.0
"""Seconds between two looks at what the driver's Ray has started."""
GRACE_S = 1.0
"""Seconds for processes to end by themselves, and then to heed SIGTERM."""


class Process(NamedTuple):
    """A process: its id alone may come to name another.

    Attributes:
        pid: its id.
        start: ticks of the kernel's clock, at which it began.
    """

    pid: int
    start: int


def _stat(pid: int | str) -> tuple[Process, int] | None:
    """A process that has not ended, with the id of its parent."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):  # it has ended
        return None
    state, parent, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else (Process(int(pid), int(rest[17])), int(parent))


def name_of(process: Process) -> str | None:
    """What a process calls itself; None where it has ended, even if its id lives on."""
    found = _stat(process.pid)
    if found is None or found[0] != process:
        return None
    with suppress(OSError):
        return (PROC / str(process.pid) / "comm").read_text().strip()
    return None


def of_ray(driver: int, folder: str, since: int = 0) -> set[Process]:
    """What an embedded Ray of a driver consists of, with all that its processes have started.

    Args:
        folder: of the Ray package, from which the driver's own children run.
        since: ticks; children that are older belong to something else.

    Returns:
        The processes that have not ended.
    """
    children: dict[int, list[Process]] = {}
    for entry in os.listdir(PROC):
        if entry.isdigit() and (found := _stat(entry)) is not None:
            children.setdefault(found[1], []).append(found[0])
    roots = [p for p in children.get(driver, ()) if p.start >= since and _runs(p.pid, folder)]
    everything = set(roots)
    while roots:
        roots = [child for process in roots for child in children.get(process.pid, ())]
        everything |= set(roots)
    return everything


def _runs(pid: int, folder: str) -> bool:
    try:
        # something in the folder: the watchdog's own command has the folder itself
        return f"{folder}/".encode() in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def end(processes: Collection[Process]) -> None:
    """Ends processes, politely first; returns when none is left, or none heeds even SIGKILL."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        left = [process for process in processes if name_of(process) is not None]
        for process in left:
            _send(process, number)
        limit = time.monotonic() + GRACE_S
        while any(name_of(process) is not None for process in left):
            if time.monotonic() > limit:
                break
            time.sleep(0.05)


def _send(process: Process, number: int) -> None:
    """Through a descriptor that can mean no other process, even if the id is given again."""
    with suppress(OSError):  # it has ended
        descriptor = os.pidfd_open(process.pid)
        try:
            if name_of(process) is not None:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


@contextmanager
def watched(folder: str) -> Generator[int]:
    """Has the Ray that is embedded inside the block ended with this process.

    Yields:
        Since when this Ray's processes may have begun, as `of_ray` takes it.
    """
    if not PROC.is_dir() or not hasattr(os, "pidfd_open"):
        yield 0
        return
    # -I -S: nothing of the environment; a session of its own: a signal to the driver's is not to it
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), folder]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
    ) as dog:  # fmt: skip
        found = _stat(dog.pid)
        yield found[0].start if found else 0
        # leaving the block closes the pipe, and waits until nothing of this Ray is left


def _watch(driver: int, folder: str) -> None:
    """Until the pipe closes; then ends what was seen and still runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    me = _stat(os.getpid())
    since = me[0].start if me else 0
    seen: set[Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        now = of_ray(driver, folder, since)
        # what was seen before and has lost its parents stays on the list while it lives
        seen = now | {process for process in seen - now if name_of(process) is not None}
    end(seen)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
