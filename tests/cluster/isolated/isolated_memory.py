"""A node whose memory runs out, as its own cgroup tells Ray.

    python -m tests.cluster.isolated.isolated_memory TASK FOLDER

The memory of the machine is not touched by it: in a mount namespace of its own, the program stands
for the kernel and writes what the processes of its namespace have allocated.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own
os.environ["RAY_memory_usage_threshold"] = "0.9"

import numpy as np
import ray
import yaml

from scaleinv_ray import tables
from scaleinv_ray.cluster.driving.driver import Driver
from scaleinv_ray.cluster.telemetry import Telemetry, read_events
from scaleinv_ray.config import load_run_config
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan import make_plan, plan_rows
from scaleinv_ray.plan.jobs import FAILED, WeightSource
from scaleinv_ray.plan.jobs_from_plan import jobs_for
from scaleinv_ray.runs.status import status
from scaleinv_ray.store import Store
from tests.cluster.isolated.isolated import CHECKPOINT

GROUP = Path("/sys/fs/cgroup")
LIMIT = 4 * 2**30


def allocated() -> int:
    """Bytes of all processes that can be seen here."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = entry.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        found += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return 1024 * found


def watch_memory() -> None:
    """Keeps the files of a cgroup up to date, beginning before it returns."""
    subprocess.run(["mount", "-t", "tmpfs", "memory", str(GROUP)], check=True)
    (GROUP / "memory.max").write_text(f"{LIMIT}\n")
    (GROUP / "memory.events").write_text("oom 0\noom_kill 0\n")
    files = {name: (GROUP / name).open("wb", buffering=0) for name in ("current", "stat")}
    stat = "anon {0:020}\nshmem 0\ninactive_file 0\nactive_file 0\n"
    texts = {"current": "{0:020}\n", "stat": stat}

    def write() -> None:
        used = allocated()
        for name, file in files.items():  # in place: a reader never finds it empty
            os.pwrite(file.fileno(), texts[name].format(used).encode(), 0)

    def forever() -> None:
        while True:
            write()
            time.sleep(0.1)

    for name in files:
        (GROUP / name).rename(GROUP / f"memory.{name}")
    write()
    threading.Thread(target=forever, daemon=True).start()


class Greedy(WeightSource):
    """Weights the reading of which takes more memory than there is."""

    def __init__(self, log: Path) -> None:
        super().__init__(CHECKPOINT, "trained")
        object.__setattr__(self, "log", log)  # the base class is frozen

    def folder(self) -> Path:
        """Never comes to an end of its own."""
        asked = ray.get_runtime_context().get_assigned_resources().get("memory", 0)
        with self.log.open("a") as stream:
            stream.write(f"{asked:.0f}\n")
        taken = []
        while sum(block.nbytes for block in taken) < LIMIT:
            taken.append(np.ones(8 * 2**20))
            time.sleep(0.05)
        raise ValueError("nobody stopped it")


def fill(folder: Path) -> dict[str, Any]:
    """A measurement takes all the memory of a node, beside others that take none."""
    from tests.cluster.synthetic_work import capture_file, execute, good, of_weights

    watch_memory()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    log, store = folder / "log", Store(folder / "out")
    jobs = good(8, capture_file(folder))
    jobs.insert(0, of_weights("greedy", Greedy(log)))
    events = execute(store, jobs)
    (node,) = ray.nodes()
    errors = store.read_table(f"measurements/greedy{FAILED}", ["error"])["error"].to_pylist()
    return {
        "completed": sorted(take_inventory(store).done),
        "errors": errors,
        "lost": [e["error"] for e in events if e["event"] == "lost"],
        "asked": [int(line) for line in log.read_text().split()],
        "memory": int(node["Resources"]["memory"]),
    }


class Heavy(WeightSource):
    """Weights the reading of which takes all memory so many times, or has the kernel kill."""

    def __init__(self, of: WeightSource, log: Path, times: int, by: str) -> None:
        super().__init__(of.checkpoint, of.variant)
        for name, value in {"log": log, "times": times, "by": by}.items():
            object.__setattr__(self, name, value)  # the base class is frozen

    def folder(self) -> Path:
        """The model's folder, when it has been read often enough."""
        with self.log.open("a") as stream:
            stream.write("read\n")
        if len(self.log.read_text().splitlines()) > self.times:
            return super().folder()
        if self.by == "kernel":  # which the program stands for
            (GROUP / "memory.events").write_text("oom 1\noom_kill 1\n")
            os.kill(os.getpid(), signal.SIGKILL)
        taken = []
        while sum(block.nbytes for block in taken) < LIMIT:
            taken.append(np.ones(8 * 2**20))
            time.sleep(0.05)
        raise ValueError("nobody stopped it")


def spare(folder: Path) -> dict[str, Any]:
    """Capture actors that are killed for memory, by Ray and by the kernel, as the config lets."""
    watch_memory()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    config = yaml.safe_load((folder / "series.yaml").read_text())
    cases = {"ray": ("auto", 1), "kernel": ("auto", 1), "demanded": ("resident", 9)}
    return {by: spared(folder / by, config, by, *case) for by, case in cases.items()}


def spared(folder: Path, config: dict[str, Any], by: str, load: str, times: int) -> dict[str, Any]:
    """One capture; what was captured how, and what was said."""
    folder.mkdir()
    checked = load_run_config(config | {"out": str(folder / "out"), "cluster": {"load": load}})
    plan, store = make_plan(checked), Store(checked.out)
    missing = plan.missing(set())
    work = jobs_for(plan, missing, checked, scratch=folder / "out" / "captures", run_id="r")
    captures = [
        replace(job, weights=Heavy(job.weights, folder / "log", times, by)) for job in work.captures
    ]
    store.write_table("plan.parquet", tables.encode(plan_rows(plan, set()), tables.PLAN))
    events = Telemetry(store, captures=len(captures), measurements=len(missing))
    events("started")
    Driver(store, replace(work, captures=captures), ClusterOptions(), events).execute()
    events.close()
    seen = list(read_events(store))
    return {
        "captured": [(e["load"], e["reason"]) for e in seen if e["event"] == "captured"],
        "lost": [e["error"] for e in seen if e["event"] == "lost"],
        "errors": {e["invariant"]: e["error"] for e in seen if e["event"] == "measured"},
        "status": status(store, now=time.time()).lines(),
    }


TASKS = {f.__name__: f for f in (fill, spare)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))), flush=True)
