"""Series measured again and again, as their checkpoints come: for cron and RayCronJob."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from scaleinv_ray.cluster.alone import OccupiedError
from scaleinv_ray.cluster.run import run
from scaleinv_ray.cluster.telemetry import read_events
from scaleinv_ray.config import load_run_config
from scaleinv_ray.reading import told
from scaleinv_ray.store import Store

SKIPPED = "another run is at it"


def sweep(configs: Sequence[str | Path], *, address: str | None = None) -> dict[str, str]:
    """Runs every series: what is missing of it is measured, and nothing else.

    A series that cannot be run does not take the others with it; one that another sweep is still
    at is left to it, so that a schedule may be shorter than the work.

    Args:
        configs: YAML files of runs.
        address: of a Ray cluster; None embeds Ray.

    Returns:
        Config -> what came of it; what begins with 'error' has failed.
    """
    found: dict[str, str] = {}
    for file in configs:
        try:
            config = load_run_config(file)
            # a driver that has said nothing for longer than its deadline is dead
            if is_running(Store(config.out), patience=config.cluster.deadline):
                found[str(file)] = SKIPPED
                continue
            result = run(config, address=address)
        except OccupiedError:
            found[str(file)] = SKIPPED
        except (ValueError, OSError) as error:
            found[str(file)] = f"error: {told(error)}"
        else:
            failed = f"error: {result.failed} measurements failed; " if result.failed else ""
            found[str(file)] = f"{failed}{result.computed} measurements made"
    return found


def is_running(store: Store, *, patience: float) -> bool:
    """Whether a driver has started, not ended, and said something not long ago.

    Args:
        store: of the run.
        patience: seconds of silence after which it counts as dead.

    Returns:
        Whether it seems alive.
    """
    last = deque(read_events(store), maxlen=1)
    return any(e["event"] != "ended" and time.time() - e["time"] < patience for e in last)
