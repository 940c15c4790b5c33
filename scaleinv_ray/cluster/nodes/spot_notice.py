"""A spot instance of AWS is told two minutes ahead that it will be taken away; Ray is told here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime

from scaleinv_ray.cluster.session import connected, ray

METADATA = "http://169.254.169.254"
"""Where an instance asks about itself (IMDSv2)."""
_TOKEN = "X-aws-ec2-metadata-token"
# the service is on the link: no proxy leads there
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def taken_at(metadata: str = METADATA) -> float | None:
    """When this instance will be taken away.

    Args:
        metadata: URL of the instance's metadata service.

    Returns:
        Seconds since 1970, None where there is no notice.

    Raises:
        HTTPError: where the service refuses to answer.
    """
    ask = urllib.request.Request(
        f"{metadata}/latest/api/token", method="PUT", headers={f"{_TOKEN}-ttl-seconds": "60"}
    )
    with _OPENER.open(ask, timeout=5) as answer:
        headers = {_TOKEN: answer.read().decode()}
    look = urllib.request.Request(
        f"{metadata}/latest/meta-data/spot/instance-action", None, headers
    )
    try:
        with _OPENER.open(look, timeout=5) as answer:
            notice = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:  # an instance without notice has no such thing
            return None
        raise
    return datetime.fromisoformat(notice["time"]).timestamp()


def drain(node: str | None, at: float, *, address: str = "auto") -> None:
    """Tells Ray that a node will be gone: it gets no new work, and finishes what it has.

    Args:
        node: its id; None is the node where this runs.
        at: when, in seconds since 1970.

    Raises:
        ValueError: where Ray does not take the notice.
    """
    if node is None:
        with connected(address):
            node = ray.get_runtime_context().get_node_id()
    left = max(0, int(at - time.time()))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
        *("--address", address, "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", "notice of a spot instance"),
        *("--deadline-remaining-seconds", str(left)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"node {node}: notice is not taken: {done.stderr.strip()[-500:]}")


def pass_on(
    *, metadata: str = METADATA, node: str | None = None, every: float = 5.0, address: str = "auto"
) -> float:
    """Waits for a notice and tells Ray.

    Args:
        metadata: URL of the instance's metadata service.
        node: as of `drain`.
        every: seconds between two questions.

    Returns:
        When the node will be gone, in seconds since 1970.
    """
    while True:
        try:
            at = taken_at(metadata)
        except OSError:  # the service has a bad moment
            at = None
        if at is not None:
            drain(node, at, address=address)
            return at
        time.sleep(every)
