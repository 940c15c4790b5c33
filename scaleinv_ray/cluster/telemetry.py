"""What can be seen of a run while it goes: one JSON line an event, bars by stage, Ray metrics."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from scaleinv_ray.store import Store

LOG, LOGS = "log.jsonl", "log"
"""The log of a local run; the folder of its parts in an object store, which cannot append."""
FLUSH_S = 30.0
_LATEST_S = 1e12
"""Seconds from 1970 that no clock shows; not-a-number is above it too."""


def read_events(store: Store) -> Iterator[dict[str, Any]]:
    """The events of all runs into a folder, in order; a line that is no event is left out.

    The last line may be being written; one before it was, when its run was killed or the disk full.

    Yields:
        Events with `time` (seconds since 1970) and `event`.
    """
    parts = [LOG] if store.exists(LOG) else []
    parts += [f"{LOGS}/{name}" for name in store.names(LOGS)]
    for part in parts:
        for line in store.read_bytes(part).splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue
            if (event := _event(line)) is not None:
                yield event


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    at = event.get("time")
    timed = isinstance(at, int | float) and not isinstance(at, bool) and abs(at) < _LATEST_S
    return event if timed else None


class Telemetry:
    """Takes the events of a driver.

    Attributes:
        counts: events by name, and `failed_measurements`.
    """

    def __init__(self, store: Store, *, captures: int, measurements: int) -> None:
        """Opens log and bars for that many capture jobs and measurements."""
        self._store = store
        self._held: list[str] = []
        self._flushed = time.monotonic()
        every = 1.0 if sys.stderr.isatty() else 15.0  # a job's log gets a line now and then
        self._bars = {
            "captured": tqdm(total=captures, desc="capture", unit="model", mininterval=every),
            "measured": tqdm(
                total=measurements, desc="measure", unit="measurement", mininterval=every
            ),
        }
        self._metrics = _Metrics()
        self.counts: Counter[str] = Counter()

    def __call__(self, event: str, **values: Any) -> None:
        """Logs an event.

        Args:
            **values: of JSON.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values}) + "\n"
        self._write(line)
        self.counts[event] += 1
        if event == "measured":
            self.counts["failed_measurements"] += bool(values["failed"])
        if bar := self._bars.get(event):
            bar.update()
            bar.set_postfix(
                failed=self.counts["failed_measurements"], lost=self.counts["lost"],
                queue=values.get("queue", 0), refresh=False,
            )  # fmt: skip
        if event == "notice":  # the few that a person wants to know at once
            tqdm.write(values["text"], file=sys.stderr)
        self._metrics.take(event, values)

    def _write(self, line: str) -> None:
        if self._store.local is not None:
            with (self._store.local / LOG).open("a") as stream:
                stream.write(line)
            return
        self._held.append(line)
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._held:
            return
        name = f"{LOGS}/{time.time_ns():020d}.jsonl"
        with suppress(OSError):  # held back until the store is there again: no log ends a run
            self._store.write_bytes(name, "".join(self._held).encode())
            self._held.clear()

    def close(self) -> None:
        """Ends the bars and writes what is held back."""
        self._flush()
        for bar in self._bars.values():
            bar.close()


class _Metrics:
    """Counters and a gauge that Ray exports to Prometheus; rates are taken there."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter as Rising
        from ray.util.metrics import Gauge

        self._done = Rising("scaleinv_units_done", "Measurements made", tag_keys=("status",))
        self._read = Rising("scaleinv_bytes_read", "Bytes of captures read by measurements")
        self._fetched = Rising("scaleinv_bytes_fetched", "Bytes of captures copied to other nodes")
        self._tokens = Rising("scaleinv_tokens", "Tokens that went through models")
        self._queue = Gauge("scaleinv_queue", "Jobs that wait to be submitted")

    def take(self, event: str, values: dict[str, Any]) -> None:
        """Counts an event."""
        if event == "measured":
            self._done.inc(1, tags={"status": "failed" if values["failed"] else "ok"})
        amounts = {
            "bytes_read": self._read, "bytes_fetched": self._fetched, "tokens": self._tokens
        }  # fmt: skip
        for name, metric in amounts.items():
            if amount := values.get(name):
                metric.inc(amount)
        if "queue" in values:
            self._queue.set(values["queue"])
