"""How 200 measuring tasks scale from one worker to two: efficiency = t1 / (2 t2), target .85.

Each task measures the homology of one cloud for about a quarter of a second, on one thread. Runs
alternate 1 2 1 2; the last line is one JSON object. On a machine with other work it comes out low.
"""

import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # loopback only
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import ray
from _table import machine, record
from task_overhead import UNIT

from scaleinv_ray.cluster.driving.driver import ClusterOptions, Driver
from scaleinv_ray.plan.jobs import Jobs, MeasureJob
from scaleinv_ray.records import Activations
from scaleinv_ray.store import Store, write_records

TASKS, ROUNDS, ROWS, WIDTH = 200, 2, 2400, 32
INVARIANT = "topology.persistence"
PARAMS = '{"num_points": 240, "num_subsamples": 10, "max_dimension": 1}'


def seconds(workers: int, path: str, folder: Path) -> float:
    """Wall time of all tasks on an embedded Ray of so many CPUs, after each worker has begun."""
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:

        def jobs(prefix: str, count: int) -> list[MeasureJob]:
            return [
                MeasureJob(f"{prefix}{i}", INVARIANT, PARAMS, 0, path, UNIT) for i in range(count)
            ]

        store = Store(folder)
        settings = ClusterOptions()
        Driver(
            store, Jobs([], jobs("warm", 8 * workers), {}), settings, lambda *_, **__: None
        ).execute()
        start = time.perf_counter()
        Driver(store, Jobs([], jobs("k", TASKS), {}), settings, lambda *_, **__: None).execute()
        took = time.perf_counter() - start
        good = [n for n in store.names("measurements") if not n.endswith("failed.parquet")]
        assert len(good) == TASKS + 8 * workers
        return took
    finally:
        ray.shutdown()


def main() -> None:
    rng = np.random.default_rng(0)
    x_TD = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    positions = np.full(ROWS, 8, dtype=np.int32)
    cloud = Activations(
        x_TD=x_TD, sequence_T=np.arange(ROWS, dtype=np.int32), position_T=positions,
        sampling="cloud", site="resid_post", layer=0, num_layers=1,
    )  # fmt: skip
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        path = str(Path(name) / "c.arrow")
        write_records(Path(path), [cloud], kind="cloud", facts={})
        for round_ in range(ROUNDS):
            for workers in (1, 2):
                took = seconds(workers, path, Path(name) / f"out-{round_}-{workers}")
                found[workers].append(took)
                print(f"{workers} workers: {took:.1f} s for {TASKS} tasks", flush=True)
    efficiency = min(found[1]) / (2 * min(found[2]))
    spread = max(max(times) / min(times) for times in found.values())
    record("scaling_efficiency", [
        (f"{TASKS} measuring tasks, 1 to 2 workers: efficiency", ">= .85", f"{efficiency:.2f}"),
        ("slowest over fastest of equal runs", "-", f"{spread:.2f}"),
    ])  # fmt: skip
    print(json.dumps({
        "bench": "scaling_efficiency", "tasks": TASKS, "seconds_1": found[1],
        "seconds_2": found[2], "efficiency": round(efficiency, 3), **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
