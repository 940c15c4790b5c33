"""Series measured again and again, as their checkpoints come: for cron and RayCronJob."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaleinv_ray.config import load_run_config
from scaleinv_ray.inputs.reading import told
from scaleinv_ray.runs.analysis import run
from scaleinv_ray.runs.starting.run_lock import OccupiedError, is_locked
from scaleinv_ray.store import Store

SKIPPED = "another run is at it"


def sweep(configs: Sequence[str | Path], *, address: str | None = None) -> dict[str, str]:
    """Runs every series: what is missing of it is measured, and nothing else.

    A series that cannot be run does not take the others with it; one that another sweep is still
    at is left to it, so that a schedule may be shorter than the work.

    Args:
        address: of a Ray cluster; None embeds Ray.

    Returns:
        Config -> what came of it; what begins with 'error' has failed.
    """
    found: dict[str, str] = {}
    for file in configs:
        try:
            config = load_run_config(file)
            if is_locked(Store(config.out)):  # known before it is planned; `run` looks again
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
