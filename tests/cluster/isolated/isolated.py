"""Ray clusters of their own, each run as a program in namespaces of its own.

    python -m tests.cluster.isolated.isolated TASK FOLDER

Ray's test clusters end with `ray stop`, which kills every Ray process that it can see, and take
fixed ports: so a program sees neither the processes nor the network of the machine.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own

import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import AutoscalingCluster

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import MeasureJob, WeightSource
from scaleinv_ray.store import Store

CHECKPOINT = Checkpoint(
    model="m", seed=0, step=0, architecture="none", n_params=1, n_layers=1, d_model=1, d_mlp=1,
    vocab_size=1, max_positions=None, dtype="float32", weights_digest="", config_digest="",
)  # fmt: skip
HEALTH = {
    "health_check_initial_delay_ms": 500, "health_check_period_ms": 500,
    "health_check_timeout_ms": 1500, "health_check_failure_threshold": 4,
}  # fmt: skip


NOTICE_S = 25.0


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
            stream.write(f"{self.key} {where} {time.monotonic()}\n")
        time.sleep(self.seconds)
        return self.model


def started(log: Path) -> list[tuple[str, str, float]]:
    """Key, node and time of whatever has begun, again or for the first time.

    By the monotonic clock, which all processes of a machine share.
    """
    lines = log.read_text().splitlines() if log.exists() else []
    words = [line.split() for line in lines]
    return [(key, where, float(at)) for key, where, at in words]


def outcome(
    store: Store, jobs: list[MeasureJob], events: list[dict[str, Any]], log: Path
) -> dict[str, Any]:
    """What came of jobs during which something broke."""
    finished = {e["key"]: e["time"] for e in events if e["event"] == "measured"}
    begun = started(log)
    return {
        "completed": len(take_inventory(store).done), "jobs": len(jobs),
        "lost": [e["error"] for e in events if e["event"] == "lost"],
        "failed": [e["error"] for e in events if e["event"] == "measured" and e["error"]],
        "twice": sum(n > 1 for n in Counter(key for key, _, _ in begun).values()),
        "redone": [key for key, _, at in begun if at > finished[key]],
        "nodes": len({where for _, where, _ in begun}),
    }  # fmt: skip


def during(
    folder: Path,
    fault: Callable[[Any, Any], None],
    *,
    seconds: float,
    count: int = 12,
    settings: ClusterOptions | None = None,
) -> dict[str, Any]:
    """Measurements of so many seconds on two nodes, one of which has a fault while it works.

    Args:
        folder: has the model.
        fault: takes the cluster and its node.
        seconds: that a measurement takes.
        count: of measurements.
        settings: of the driver.
    """
    from ray.cluster_utils import Cluster

    from tests.cluster.synthetic_work import execute, of_weights

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH},
    )
    ray.init(address=cluster.address, log_to_driver=False)
    node = cluster.add_node(num_cpus=1)
    log, store = folder / "log", Store(folder / "out")
    began: list[float] = []

    def strike() -> None:
        # the first one takes long: its worker starts
        while sum(where == node.node_id for _, where, _ in started(log)) < 2:
            time.sleep(0.05)
        began.append(time.monotonic())
        fault(cluster, node)

    striker = threading.Thread(target=strike)
    striker.start()
    sources = {f"k{i}": Slow(f"k{i}", folder / "model", log, seconds) for i in range(count)}
    jobs = [of_weights(key, source) for key, source in sources.items()]
    events = execute(store, jobs, settings)
    striker.join()
    found = outcome(store, jobs, events, log)
    late = [(where == node.node_id, at - began[0]) for _, where, at in started(log)]
    found |= {"there": max(t for on, t in late if on), "here": max(t for on, t in late if not on)}
    ray.shutdown()
    cluster.shutdown()
    return found


def lose_node(folder: Path) -> dict[str, Any]:
    """A node dies while it works on measurements."""
    return during(
        folder, lambda cluster, node: cluster.remove_node(node, allow_graceful=False), seconds=0.5
    )


def kill_raylet(folder: Path) -> dict[str, Any]:
    """The raylet of a node is killed by its pid."""

    def kill(_: Any, node: Any) -> None:
        (raylet,) = node.all_processes[ray._private.ray_constants.PROCESS_TYPE_RAYLET]
        os.kill(raylet.process.pid, signal.SIGKILL)
        raylet.process.wait()  # its workers take a raylet for alive that nobody has buried

    return during(folder, kill, seconds=2.0)


def preempt(folder: Path) -> dict[str, Any]:
    """A node has notice that it will be taken away, and is."""
    from tests.cluster.nodes.test_spot_notice import Metadata

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    job = Path(__file__).resolve().parents[3] / "jobs" / "spot_notice.py"

    def notice(cluster: Any, node: Any) -> None:
        given = {
            "metadata": f"http://127.0.0.1:{server.server_port}", "node": node.node_id,
            "address": cluster.address, "every": "0.2",
        }  # fmt: skip
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        watcher = subprocess.Popen([sys.executable, str(job), *words], stdout=sys.stderr)
        time.sleep(1)
        assert watcher.poll() is None, "there is no notice yet"
        at = datetime.now(UTC) + timedelta(seconds=NOTICE_S)
        Metadata.notice = json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
        assert watcher.wait(timeout=NOTICE_S) == 0
        time.sleep(max(0.0, at.timestamp() - time.time()))
        cluster.remove_node(node, allow_graceful=False)

    found = during(folder, notice, seconds=1.0, count=40, settings=ClusterOptions(workers=4))
    server.shutdown()
    return found


class Fake(AutoscalingCluster):
    """The wheel lacks the example.yaml that the base class reads."""

    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"

    def _generate_config(
        self, head: Any, workers: Any, autoscaler_v2: bool = False, **more: Any
    ) -> dict[str, Any]:
        name = "ray.head.default"  # as the provider calls it, whatever it is told
        types = {**workers, name: {"resources": head, "node_config": {}, "max_workers": 0}}
        return {
            "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": 0.1,
            "upscaling_speed": 1.0, "head_node_type": name, "available_node_types": types,
            "auth": {}, "docker": {}, "initialization_commands": [], "setup_commands": [],
            "head_setup_commands": [], "worker_setup_commands": [],
            "head_start_ray_commands": [], "worker_start_ray_commands": [],
            "file_mounts": {}, "cluster_synced_files": [],
            "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
            "provider": {
                "type": "external", "module": self.provider,
                "use_node_id_as_ip": True, "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "launch_multiple": autoscaler_v2, "head_node_id": FAKE_HEAD_NODE_ID,
            },
        }  # fmt: skip


def autoscale(folder: Path) -> dict[str, Any]:
    """From no worker to some and back, around a sweep over a series."""
    from scaleinv_ray.runs.sweep import sweep

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
        "completed": len(take_inventory(Store(out)).done), "monitor_errors": "\n".join(errors),
    }  # fmt: skip


TASKS = {f.__name__: f for f in (lose_node, kill_raylet, preempt, autoscale)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))))
