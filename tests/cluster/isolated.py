"""Ray clusters of their own, each run as a program in namespaces of its own.

    python -m tests.cluster.isolated lose_node|autoscale FOLDER

Ray's test clusters end with `ray stop`, which kills every Ray process that it can see, and take
fixed ports: so a program sees neither the processes nor the network of the machine.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own

import ray
import yaml

from scaleinv_ray.cluster.conclude import completed
from scaleinv_ray.cluster.jobs import WeightSource
from scaleinv_ray.series import Checkpoint
from scaleinv_ray.store import Store

CHECKPOINT = Checkpoint(
    model="m", seed=0, step=0, architecture="none", n_params=1, n_layers=1, d_model=1, d_mlp=1,
    vocab_size=1, max_positions=None, dtype="float32", weights_digest="", config_digest="",
)  # fmt: skip
HEALTH = {
    "health_check_initial_delay_ms": 500, "health_check_period_ms": 500,
    "health_check_timeout_ms": 500, "health_check_failure_threshold": 3,
}  # fmt: skip


class Slow(WeightSource):
    """Weights that take a while to be read, and say who reads them where."""

    def __init__(self, key: str, model: Path, log: Path, seconds: float) -> None:
        super().__init__(CHECKPOINT, "trained")
        for name, value in {"key": key, "model": model, "log": log, "seconds": seconds}.items():
            object.__setattr__(self, name, value)  # the base class is frozen

    def folder(self) -> Path:
        """The same model for all."""
        where = ray.get_runtime_context().get_node_id()
        with self.log.open("a") as stream:
            stream.write(f"{self.key} {where}\n")
        time.sleep(self.seconds)
        return self.model


def _lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def lose_node(folder: Path) -> dict[str, Any]:
    """A node dies while it works on measurements."""
    from ray.cluster_utils import Cluster

    from tests.cluster.synthetic_work import execute, of_weights

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH},
    )
    ray.init(address=cluster.address, log_to_driver=False)
    node = cluster.add_node(num_cpus=1)
    log, store = folder / "log", Store(folder / "out")

    def kill() -> None:
        while not any(where == node.node_id for _, where in _lines(log)):
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    model = folder / "model"
    jobs = [of_weights(f"k{i}", Slow(f"k{i}", model, log, 0.5)) for i in range(24)]
    events = execute(store, jobs)
    killer.join()
    started = Counter(key for key, _ in _lines(log))
    ray.shutdown()
    cluster.shutdown()
    return {
        "completed": len(completed(store)), "jobs": len(jobs),
        "lost": sum(e["event"] == "lost" for e in events),
        "failed": [e["error"] for e in events if e["event"] == "measured" and e["error"]],
        "twice": sum(n > 1 for n in started.values()),
        "nodes": len({where for _, where in _lines(log)}),
    }  # fmt: skip


def autoscale(folder: Path) -> dict[str, Any]:
    """From no worker to some and back, around a sweep over a series."""
    from ray.cluster_utils import AutoscalingCluster

    from scaleinv_ray.cluster.sweep import sweep

    class Fake(AutoscalingCluster):
        """The wheel lacks the example.yaml that the base class reads."""

        def _generate_config(
            self, head: Any, workers: Any, autoscaler_v2: bool = False, **more: Any
        ) -> dict[str, Any]:
            module = "ray.autoscaler._private.fake_multi_node.node_provider"
            types = {**workers, "head": {"resources": head, "node_config": {}, "max_workers": 0}}
            return {
                "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": 0.1,
                "upscaling_speed": 1.0, "head_node_type": "head", "available_node_types": types,
                "auth": {}, "docker": {}, "initialization_commands": [], "setup_commands": [],
                "head_setup_commands": [], "worker_setup_commands": [],
                "head_start_ray_commands": [], "worker_start_ray_commands": [],
                "file_mounts": {}, "cluster_synced_files": [],
                "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
                "provider": {
                    "type": "external", "module": f"{module}.FakeMultiNodeProvider",
                    "use_node_id_as_ip": True, "disable_node_updaters": True,
                    "disable_launch_config_check": True,
                },
            }  # fmt: skip

    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    cluster = Fake({"CPU": 0}, {"cpu": worker})
    cluster.start()
    ray.init("auto", log_to_driver=False)

    def workers() -> int:
        return sum(n["Alive"] and n["Resources"].get("CPU", 0) > 0 for n in ray.nodes())

    before, most, done = workers(), [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            most[0] = max(most[0], workers())
            time.sleep(0.2)

    counter = threading.Thread(target=count)
    counter.start()
    found = sweep([str(folder / "series.yaml")], address="auto")
    limit = time.monotonic() + 120
    while workers() and time.monotonic() < limit:
        time.sleep(0.5)
    done.set()
    counter.join()
    after = workers()
    session = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    lines = [line for p in session.glob("monitor.err") for line in p.read_text().splitlines()]
    # a network of its own has no way out, of which Ray warns
    errors = [line for line in lines if "Failed to determine local IP" not in line]
    ray.shutdown()
    cluster.shutdown()
    out = yaml.safe_load((folder / "series.yaml").read_text())["out"]
    return {
        "before": before, "most": most[0], "after": after, "outcome": [*found.values()],
        "completed": len(completed(Store(out))), "monitor_errors": "\n".join(errors),
    }  # fmt: skip


if __name__ == "__main__":
    task = {"lose_node": lose_node, "autoscale": autoscale}[sys.argv[1]]
    print(json.dumps(task(Path(sys.argv[2]))))
