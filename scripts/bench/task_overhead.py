"""What the driver costs for each measuring task: many tiny measurements on a real embedded Ray.

Every measurement takes milliseconds, so that submitting, collecting, logging and the atomic writes
of the tables show. Target: at most 3 ms of the driver for each, and flat memory of the driver.
Prints the driver's own CPU time, the wall time beyond the workers' shares and the driver's resident
memory at every tenth of the run, and as its last line one JSON object.
"""

import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # loopback only

import numpy as np
import ray
from _table import machine, record

from scaleinv_ray.cluster.driving.driver import ClusterOptions, Driver
from scaleinv_ray.plan.jobs import Jobs, MeasureJob
from scaleinv_ray.records import Jacobians
from scaleinv_ray.store import Store, write_records

TASKS = 10_000
INVARIANT = "holomorphy.resolvent_counts"
UNIT = {
    "run_id": "bench", "unit": "bench", "unit_b": None, "series": "bench", "model": "m",
    "architecture": "none", "n_params": 1, "n_layers": 1, "d_model": 8, "seed": 0, "step": 0,
    "train_tokens": None, "eval_loss": None, "variant": "trained", "probe": "prose",
    "probe_tokens": 0, "protocol": "p", "weights_digest": "w", "code_version": "c",
}  # fmt: skip


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Log:
    """Counts seconds spent inside the workers, and looks at the driver's memory."""

    def __init__(self, folder: Path) -> None:
        self.path, self.worked = folder / "log.jsonl", 0.0
        self.measured, self.resident = 0, [resident_mb()]

    def __call__(self, event: str, **values: object) -> None:
        """Takes an event of the driver."""
        if event == "measured":
            self.worked += float(str(values["wall_s"]))
            self.measured += 1
            if self.measured % (TASKS // 10) == 0:
                self.resident.append(resident_mb())
        with self.path.open("a") as stream:
            stream.write(json.dumps({"event": event, **values}) + "\n")


def main() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        jacobians = Jacobians(
            j_TDD=np.eye(8) + 0.1 * rng.normal(size=(2, 8, 8)), layer=0, num_layers=1
        )
        path = str(folder / "captures" / "j.arrow")
        write_records(Path(path), [jacobians], kind="jacobians", facts={})
        jobs = [
            MeasureJob(
                f"k{i}", "holomorphy.resolvent_counts", '{"near_radius": 0.1}', 0, path, UNIT
            )
            for i in range(TASKS + 50)
        ]
        store = Store(folder)
        Driver(store, Jobs([], jobs[:50], {}), ClusterOptions(), Log(folder)).execute()
        log = Log(folder)
        cpu, start = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
        Driver(store, Jobs([], jobs[50:], {}), ClusterOptions(), log).execute()
        wall = time.perf_counter() - start
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
        written = len(store.names("measurements")) - 50
    ray.shutdown()
    assert written == TASKS
    driver_ms, beyond_ms = 1e3 * cpu / TASKS, 1e3 * (wall - log.worked / 2) / TASKS
    print(f"{TASKS} measurements: wall {wall:.1f} s, inside workers {log.worked:.1f} s on 2 CPUs")
    print(f"driver CPU {driver_ms:.2f} ms, wall beyond the workers' share {beyond_ms:.2f} ms each")
    # the first tenth fills caches and allocators
    growth = log.resident[-1] - log.resident[1]
    print("driver's resident memory, MB:", *(f"{mb:.0f}" for mb in log.resident))
    record("task_overhead", [
        (f"{TASKS} small units: CPU of the driver, each", "<= 3 ms", f"{driver_ms:.2f} ms"),
        ("wall time beyond the workers' share, each", "<= 3 ms", f"{beyond_ms:.2f} ms"),
        ("driver's memory, last tenth less first", "flat", f"{growth:+.1f} MB"),
    ])  # fmt: skip
    print(json.dumps({
        "bench": "task_overhead", "tasks": TASKS, "driver_cpu_ms": round(driver_ms, 3),
        "wall_beyond_workers_ms": round(beyond_ms, 3), "target_ms": 3.0,
        "resident_mb": [round(mb, 1) for mb in log.resident], **machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
