"""What a killed run has left behind: its folder knows the processes of its embedded Ray."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scaleinv_ray.cluster.watchdog import PROC, Process, name_of
from scaleinv_ray.store import Store

RECORD = "run.ray"
"""File of a run folder while an embedded Ray is at work for it."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def _machine() -> str:
    """This machine since it was started: ids of processes mean nothing on another."""
    with suppress(OSError):
        return f"{socket.gethostname()} {_BOOT.read_text().strip()}"
    return socket.gethostname()


@contextmanager
def recorded(store: Store, processes: Iterable[Process]) -> Generator[None]:
    """Has a run folder name the processes of a Ray for the block; none are not recorded.

    Yields:
        Nothing. What is left of a killed run's block is for `left_behind`.
    """
    found = [[*process] for process in processes]
    if not found:
        yield
        return
    record = {"machine": _machine(), "driver": os.getpid(), "processes": found}
    store.write_bytes(RECORD, json.dumps(record).encode())
    try:
        yield
    finally:
        with suppress(OSError):  # a later run finds that none of them is alive
            store.delete(RECORD)


def left_behind(store: Store) -> str | None:
    """What still runs of the Ray of an earlier run in this folder, which was killed.

    Args:
        store: of the run; a record of processes that have all ended is deleted.

    Returns:
        A line for people that says how to end them; None where there are none.
    """
    if not PROC.is_dir() or not store.exists(RECORD):
        return None
    record = _recorded(store)
    if record.get("machine", _machine()) != _machine():
        return None
    names = {p.pid: name for p in record.get("processes", ()) if (name := name_of(p)) is not None}
    if not names:
        store.delete(RECORD)
        return None
    listed = ", ".join(f"{pid} ({name})" for pid, name in [*names.items()][:5])
    return (
        f"an earlier run in {store.shown} (process {record['driver']}) was killed; of its Ray "
        f"still run: {listed}; they end by themselves within minutes, or now by: "
        f"kill {' '.join(map(str, names))}"
    )


def _recorded(store: Store) -> dict[str, Any]:
    """The record; empty where it is torn or something else has its name."""
    try:
        record = json.loads(store.read_bytes(RECORD))
        found = [Process(int(pid), int(start)) for pid, start in record["processes"]]
        machine, driver = str(record["machine"]), int(record["driver"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {"machine": machine, "driver": driver, "processes": found}
