"""Two nodes in network namespaces of their own, joined by a bridge, and the link between them cut.

python -m tests.cluster.isolated.isolated_link cut_link FOLDER
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # in a network of its own
# by default gRPC notices after seven minutes that nobody answers
os.environ |= {f"RAY_grpc_client_keepalive_{what}_ms": "2000" for what in ("time", "timeout")}

import ray

from scaleinv_ray.store import Store
from tests.cluster.isolated.isolated import HEALTH, Slow, outcome, started
from tests.cluster.synthetic_work import execute, of_weights

HEAD, WORKER, PORT = "10.77.0.1", "10.77.0.2", 6379
RAY = str(Path(sys.executable).with_name("ray"))
NODE = ["--num-cpus=1", "--block", "--disable-usage-stats"]


def ip(*words: str, inside: int | None = None) -> None:
    where = [] if inside is None else ["nsenter", f"--net=/proc/{inside}/ns/net"]
    subprocess.run([*where, "ip", *words], check=True)


def join() -> int:
    """Joins a new network to this one; the process that keeps it."""
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"]).pid
    ip("link", "add", "bridge", "type", "bridge")
    ip("addr", "add", f"{HEAD}/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")
    ip("route", "add", "default", "via", HEAD)  # by its default route Ray finds a node's address
    ip("link", "add", "here", "type", "veth", "peer", "name", "there")
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{keeper}/ns/net") == ours:
        time.sleep(0.01)
    ip("link", "set", "there", "netns", str(keeper))
    ip("link", "set", "here", "master", "bridge", "up")
    ip("link", "set", "lo", "up", inside=keeper)
    ip("addr", "add", f"{WORKER}/24", "dev", "there", inside=keeper)
    ip("link", "set", "there", "up", inside=keeper)
    ip("route", "add", "default", "via", HEAD, inside=keeper)
    return keeper


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)


def connect(folder: Path, keeper: int) -> None:
    """Starts a node on either side and connects to them."""
    ours = [
        RAY, "start", "--head", f"--node-ip-address={HEAD}", f"--port={PORT}", *NODE,
        "--include-dashboard=false", f"--system-config={json.dumps(HEALTH)}",
    ]  # fmt: skip
    theirs = [RAY, "start", f"--address={HEAD}:{PORT}", f"--node-ip-address={WORKER}", *NODE]
    head = start(ours, folder / "head.log")
    limit = time.monotonic() + 120
    while "Ray runtime started" not in (folder / "head.log").read_text():
        assert head.poll() is None and time.monotonic() < limit
        time.sleep(0.2)
    start(["nsenter", f"--net=/proc/{keeper}/ns/net", *theirs], folder / "worker.log")
    ray.init(address=f"{HEAD}:{PORT}", _node_ip_address=HEAD, log_to_driver=False)
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        assert time.monotonic() < limit, (folder / "worker.log").read_text()
        time.sleep(0.2)


def cut_link(folder: Path) -> dict[str, Any]:
    """The link goes down while the other node works; it stays up and goes on by itself."""
    connect(folder, join())
    (there,) = (n["NodeID"] for n in ray.nodes() if n["NodeManagerAddress"] == WORKER)
    log, store = folder / "log", Store(folder / "out")
    cut: list[float] = []

    def cutter() -> None:
        while sum(where == there for _, where, _ in started(log)) < 3:
            time.sleep(0.05)
        ip("link", "set", "here", "down")
        cut.append(time.monotonic())

    thread = threading.Thread(target=cutter)
    thread.start()
    jobs = [of_weights(f"k{i}", Slow(f"k{i}", folder / "model", log, 2.0)) for i in range(16)]
    events = execute(store, jobs)
    thread.join()
    return {
        **outcome(store, jobs, events, log),
        "seconds": time.monotonic() - cut[0],
        "addresses": sorted(n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]),
    }


if __name__ == "__main__":
    task = {"cut_link": cut_link}[sys.argv[1]]
    print(json.dumps(task(Path(sys.argv[2]))), flush=True)
    os._exit(0)  # a shutdown would wait for the node that cannot be reached
