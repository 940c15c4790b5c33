"""Clusters whose nodes come while a run goes, or never.

python -m tests.cluster.isolated.isolated_places TASK FOLDER
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own

import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

from scaleinv_ray import tables
from scaleinv_ray.cluster.driving.driver import Driver
from scaleinv_ray.cluster.nodes.preflight import posted
from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED, Jobs
from scaleinv_ray.store import Store
from tests.cluster.isolated.isolated import HEALTH, Fake, Slow, started
from tests.cluster.synthetic_work import of_weights


def join(folder: Path) -> dict[str, Any]:
    """Two nodes come to a working run; one of them has nothing where the store is."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False)
    out, log = folder / "out", folder / "log"
    store = Store(out)
    nodes: dict[str, str] = {}
    started_here: list[subprocess.Popen[bytes]] = []
    ended = threading.Event()

    def come() -> None:
        while not started(log):
            time.sleep(0.05)
        before = {n["NodeID"] for n in ray.nodes()}
        # of two nodes of the same disk the first has another one over the folder of the run
        for name, first in (("bad", f"mount -t tmpfs none {out}"), ("good", "true")):
            script = f"{first} && exec ray start --address={cluster.address} --num-cpus=1 --block"
            command = ["unshare", "--mount", "bash", "-c", script]
            started_here.append(subprocess.Popen(command, stdout=sys.stderr))
            while not (found := {n["NodeID"] for n in ray.nodes() if n["Alive"]} - before):
                time.sleep(0.1)
            nodes[name] = found.pop()
            before.add(nodes[name])
        ended.wait()

    comer = threading.Thread(target=come, daemon=True)
    comer.start()
    sources = {f"k{i}": Slow(f"k{i}", folder / "model", log, 1.5) for i in range(40)}
    jobs = [of_weights(key, source) for key, source in sources.items()]
    events: list[dict[str, Any]] = []

    def take(event: str, **values: Any) -> None:
        events.append({"event": event, **values})

    with posted(store) as terms:
        Driver(store, Jobs([], jobs, {}), ClusterOptions(), take, terms).execute()
    ended.set()
    found = {
        **nodes, "completed": len(take_inventory(store).done), "jobs": len(jobs),
        "worked": sorted({where for _, where, _ in started(log)}),
        "notices": [e["text"] for e in events if e["event"] == "notice"],
        "failed": [e["error"] for e in events if e["event"] == "measured" and e["error"]],
        "lost": [e["error"] for e in events if e["event"] == "lost"],
    }  # fmt: skip
    ray.shutdown()
    for process in started_here:
        process.terminate()
        process.wait(timeout=60)
    cluster.shutdown()
    return found


class Stuck(FakeMultiNodeProvider):
    """A cloud that is asked for nodes and gives none."""

    def create_node_with_resources_and_labels(self, *_: Any, **__: Any) -> None:
        """Says nothing."""


class FullCloud(Fake):
    """An autoscaling cluster in such a cloud."""

    provider = "tests.cluster.isolated.isolated_places.Stuck"


def never(folder: Path) -> dict[str, Any]:
    """An autoscaler may bring a node with a GPU, and the cloud has none."""
    worker = {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 1}
    cluster = FullCloud({"CPU": 2}, {"gpu": worker | {"min_workers": 0}}, autoscaler_v2=True)
    cluster.start()
    command = [sys.executable, "-m", "scaleinv_ray.cli", "run", str(folder / "series.yaml")]
    done = subprocess.run(
        [*command, "--address", "auto"], capture_output=True, text=True, timeout=240
    )
    cluster.shutdown()
    store = Store(yaml.safe_load((folder / "series.yaml").read_text())["out"])
    failed = [n for n in store.names("measurements") if n.endswith(FAILED)]
    rows = [r for n in failed for r in tables.decode(store.read_table(f"measurements/{n}"))]
    said = done.stdout + done.stderr
    return {"code": done.returncode, "said": said, "errors": [r["error"] for r in rows]}


TASKS = {f.__name__: f for f in (join, never)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))))
