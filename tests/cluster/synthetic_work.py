"""Measurements without a model, for tests of what happens around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaleinv_ray.cluster.driving.driver import ClusterOptions, Driver
from scaleinv_ray.plan.jobs import Jobs, MeasureJob, WeightSource
from scaleinv_ray.records import Jacobians
from scaleinv_ray.store import Store, write_records

LABELS: dict[str, Any] = {
    "run_id": "r", "unit": "u", "unit_b": None, "series": "s", "model": "m",
    "architecture": "none", "n_params": 1, "n_layers": 1, "d_model": 8, "seed": 0, "step": 0,
    "train_tokens": None, "eval_loss": None, "variant": "trained", "probe": "prose",
    "probe_tokens": 0, "protocol": "p", "weights_digest": "w", "code_version": "c",
}  # fmt: skip


def capture_file(folder: Path) -> str:
    """A small capture of Jacobians."""
    rng = np.random.default_rng(0)
    record = Jacobians(j_TDD=np.eye(8) + 0.1 * rng.normal(size=(2, 8, 8)), layer=0, num_layers=1)
    path = folder / "j.arrow"
    write_records(path, [record], kind="jacobians", facts={})
    return str(path)


def good(count: int, path: str) -> list[MeasureJob]:
    """Measurements of milliseconds."""
    params = '{"near_radius": 0.1}'
    return [
        MeasureJob(f"good{i}", "holomorphy.resolvent_counts", params, 0, path, LABELS)
        for i in range(count)
    ]


def of_weights(key: str, source: WeightSource) -> MeasureJob:
    """A measurement whose weights come from `source`, which may do anything."""
    return MeasureJob(key, "weights.weight_tail", '{"num_null": 2}', 0, source, LABELS)


def execute(
    store: Store, jobs: Sequence[MeasureJob], settings: ClusterOptions | None = None
) -> list[dict[str, Any]]:
    """Runs them; the events of the driver, with the monotonic clock."""
    events: list[dict[str, Any]] = []

    def log(event: str, **values: Any) -> None:
        events.append({"time": time.monotonic(), "event": event, **values})

    Driver(store, Jobs([], jobs, {}), settings or ClusterOptions(), log).execute()
    return events
