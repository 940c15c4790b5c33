"""Chains over three nodes, run as a program in namespaces of its own; see `isolated`.

python -m tests.cluster.isolated_chain spread FOLDER
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, in a network of its own

import ray

from scaleinv_ray.cluster import actors
from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.cluster.members import Member
from scaleinv_ray.cluster.pending import LOST
from scaleinv_ray.plan.costs import model_bytes
from tests.cluster.isolated import HEALTH
from tests.cluster.test_chain import BATCH, CHECKPOINT, TOKENS, job_of, weights_in


def _nodes_of_members() -> list[str]:
    known = ray._private.state.actors().values()
    of_class = [a for a in known if a["ActorClassName"] == "Member" and a["State"] == "ALIVE"]
    return [a["Address"]["NodeID"] for a in of_class]


def spread(folder: Path) -> dict[str, Any]:
    """A model that needs three nodes is held by three, and is lost with one of them."""
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "object_store_memory": 10**8}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**one, "include_dashboard": False, "_system_config": HEALTH},
    )
    ray.init(address=cluster.address, log_to_driver=False)
    others = [cluster.add_node(**one) for _ in range(2)]
    weights = weights_in(folder / "model")
    # 1.3 times the model is between two and three such actors
    actors.available_memory = lambda: int(0.5 * model_bytes(CHECKPOINT))
    take, seen = Member.take, []
    doomed: list[Any] = []

    def watched(self: Member, first: int, *more: Any) -> Any:
        if first == BATCH:
            seen.append(_nodes_of_members())
            if doomed:
                cluster.remove_node(doomed.pop(), allow_graceful=False)
        return take(self, first, *more)

    Member.take = watched  # type: ignore[method-assign]
    capturer = Capturer(num_threads=1, num_gpus=0)
    whole = capturer.capture(job_of(weights, folder / "resident", "resident"), TOKENS)
    parts = capturer.capture(job_of(weights, folder / "chained", "auto"), TOKENS)
    differ = [
        Path(p).name
        for p in parts.written
        if Path(p).read_bytes() != (folder / "resident" / Path(p).name).read_bytes()
    ]
    doomed.append(others[0])
    error = ""
    start = time.monotonic()
    try:
        capturer.capture(job_of(weights, folder / "lost", "auto"), TOKENS)
    except LOST as lost:
        error = type(lost).__name__
    waited = time.monotonic() - start
    left = sorted(p.name for p in (folder / "lost").iterdir() if not p.name.endswith(".arrow"))
    here = ray.get_runtime_context().get_node_id()
    ray.shutdown()
    cluster.shutdown()
    return {
        "load": parts.load, "reason": parts.reason, "whole": len(whole.written),
        "written": len(parts.written), "differ": differ, "nodes": len(set(seen[0])),
        "on_head": here in seen[0], "error": error, "left": left, "waited": waited,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps({"spread": spread}[sys.argv[1]](Path(sys.argv[2]))))
