"""Clusters of two nodes with a scratch folder each, run as programs in namespaces of their own.

    python -m tests.cluster.isolated.isolated_scratch TASK FOLDER

FOLDER holds series.yaml, whose scratch has a folder for every node.
"""

import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own

import ray
import yaml

from scaleinv_ray import tables
from scaleinv_ray.cluster.telemetry import read_events
from scaleinv_ray.conclude.concluding import read_folder
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.runs.analysis import run
from scaleinv_ray.store import Store
from tests.cluster.buckets import bucket_server
from tests.cluster.isolated.isolated import HEALTH

POLL_S = 0.02
MORE = {
    "geometry.neighbour_dimension": {
        "num_points": 80, "num_subsamples": 2, "neighbour_order": 4, "max_neighbour_order": 16,
    }
}  # fmt: skip


def rows(store: Store) -> list[dict[str, Any]]:
    """The measurements but for what differs from run to run, ordered, as JSON has them."""
    found = tables.decode(read_folder(store, "measurements"))
    same = [{k: v for k, v in r.items() if k not in {"run_id", "wall_s"}} for r in found]
    plain: list[dict[str, Any]] = json.loads(json.dumps(same))
    return sorted(plain, key=lambda row: json.dumps(row, sort_keys=True))


def cluster_of(num_cpus: int) -> tuple[Any, dict[str, Any]]:
    """A head without CPUs and two nodes, by id."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=num_cpus) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    return cluster, {node.node_id: node for node in nodes}


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((folder / "series.yaml").read_text())
    return config


def scratch_files(folder: Path) -> list[str]:
    """What lies on the scratch of any node."""
    return sorted(p.name for p in (folder / "scratch").rglob("*") if p.is_file())


def into_a_bucket(folder: Path) -> dict[str, Any]:
    """A run into a bucket that keeps its captures, and one that measures more and discards them."""
    config = config_of(folder)
    cluster, nodes = cluster_of(2)
    with bucket_server() as bucket:
        uri = bucket.format("a/run")
        first = run(config, out=uri)
        store = first.store
        events = list(read_events(store))
        kept = scratch_files(folder)
        made = rows(store)
        config["invariants"] |= MORE
        again = run(config | {"captures": "discard"}, out=uri)
        later = list(read_events(store))[len(events) :]
        same = [r for r in rows(store) if r["invariant"] not in MORE] == made
        done = len(take_inventory(store).done)
    found = {
        "planned": len(again.plan.measurements), "completed": done, "rows": made,
        "failed": [e["error"] for e in events + later if e["event"] == "measured" and e["error"]],
        "lost": [e["error"] for e in events + later if e["event"] in {"lost", "remake"}],
        "makers": sorted({e["node"] for e in events if e["event"] == "captured"}),
        "nodes": sorted(nodes),
        "fetched": [
            (e["file"], e["source"], e["node"], e["bytes_fetched"])
            for e in events if e["event"] == "fetched"
        ],
        "kept": kept,
        "again": again.computed, "same": same, "after": scratch_files(folder),
        "captured_again": sum(e["event"] == "captured" for e in later),
    }  # fmt: skip
    ray.shutdown()
    cluster.shutdown()
    return found


def lose_captures(folder: Path) -> dict[str, Any]:
    """The node that made the first capture dies as soon as something was measured."""
    config = config_of(folder)
    store = Store(config["out"])
    cluster, nodes = cluster_of(2)
    killed: list[str] = []
    ended = threading.Event()
    versions: dict[str, set[int]] = defaultdict(set)

    def seen(event: str) -> list[dict[str, Any]]:
        return [e for e in read_events(store) if e["event"] == event]

    def strike() -> None:
        while not seen("captured") or not seen("measured"):
            time.sleep(POLL_S)
        node = seen("captured")[0]["node"]
        killed.append(node)
        cluster.remove_node(nodes[node], allow_graceful=False)

    def watch() -> None:
        """Every table that ever stood under a name, until all are compacted into one."""
        while not ended.is_set():
            for path in (Path(config["out"]) / "measurements").glob("[!_]*.parquet"):
                with suppress(FileNotFoundError):
                    versions[path.name].add(path.stat().st_ino)
            time.sleep(POLL_S)

    threads = [threading.Thread(target=task, daemon=True) for task in (strike, watch)]
    for thread in threads:
        thread.start()
    result = run(config)
    ended.set()
    for thread in threads:
        thread.join()
    events = list(read_events(store))
    times = Counter(e["key"] for e in events if e["event"] == "measured")
    found = {
        "planned": len(result.plan.measurements), "completed": len(take_inventory(store).done),
        "failed": [n for n in store.names("measurements") if n.endswith(FAILED)],
        "twice": [key for key, count in times.items() if count > 1],
        "written": sum(f"{key}.parquet" in versions for key in times),
        "rewritten": [name for name, files in versions.items() if len(files) > 1],
        "remade": [e["tries"] for e in events if e["event"] == "remake"],
        "makers": [e["node"] for e in events if e["event"] == "captured"],
        "killed": killed, "rows": rows(store),
        "after": [p.name for n in nodes if n not in killed
                  for p in (folder / "scratch" / n).rglob("*") if p.is_file()],
    }  # fmt: skip
    ray.shutdown()
    cluster.shutdown()
    return found


TASKS = {f.__name__: f for f in (into_a_bucket, lose_captures)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))))
