"""A cluster whose gRPC is encrypted, and who gets in.

    python -m tests.cluster.isolated.isolated_tls talk FOLDER

FOLDER holds the certificates of two authorities, `ours` and `theirs`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback: here only certificates decide


def identity(folder: Path) -> dict[str, str]:
    """What Ray is told about the certificates in a folder."""
    files = {"SERVER_CERT": "node.crt", "SERVER_KEY": "node.key", "CA_CERT": "ca.crt"}
    told = {f"RAY_TLS_{what}": str(folder / name) for what, name in files.items()}
    return {"RAY_USE_TLS": "1", **told}


CLIENT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('in')"
PATIENCE_S = 60


def gets_in(address: str, environment: dict[str, str]) -> bool:
    """Whether a client can connect; one that is refused tries until its patience ends."""
    clear = {k: v for k, v in os.environ.items() if "TLS" not in k}
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, address],
        env=clear | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        return b"in" in client.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        client.kill()
        return False


def talk(folder: Path) -> dict[str, Any]:
    """Measurements, then clients with our certificates, with none, and with somebody else's."""
    os.environ |= identity(folder / "ours")  # before ray is imported
    import ray

    from scaleinv_ray.measure.inventory import take_inventory
    from scaleinv_ray.store import Store
    from tests.cluster.synthetic_work import capture_file, execute, good

    context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    store = Store(folder / "out")
    events = execute(store, good(8, capture_file(folder)))
    address = context.address_info["address"]
    return {
        "completed": len(take_inventory(store).done),
        "failed": [e["error"] for e in events if e["event"] == "measured" and e["error"]],
        "ours": gets_in(address, identity(folder / "ours")),
        "none": gets_in(address, {"RAY_USE_TLS": "0"}),
        "theirs": gets_in(address, identity(folder / "theirs")),
        "still": len(ray.nodes()),
    }


if __name__ == "__main__":
    print(json.dumps({"talk": talk}[sys.argv[1]](Path(sys.argv[2]))), flush=True)
