"""Nodes that die, and nodes that come and go with the work."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.driving.test_faults import small_config

pytestmark = [pytest.mark.ray, pytest.mark.root, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[3]
UNSHARE = [
    "unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "bash", "-c",
]  # fmt: skip


@pytest.fixture(scope="module")
def namespaces() -> Iterator[Path]:
    """A short folder for Ray's sockets; skipped where namespaces cannot be made."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    tried = subprocess.run([*UNSHARE, "ip link set lo up"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        yield Path(folder)


def isolated(
    task: str, folder: Path, scratch: Path, *, program: str = "isolated", **settings: str
) -> dict[str, Any]:
    """What the program prints as JSON; `settings` are added to its environment."""
    command = f"{sys.executable} -m tests.cluster.isolated.{program} {task} {folder}"
    # bash stays as the first process of the namespace and buries the dead
    script = f"ip link set lo up; {command}; exit $?"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PATH": path, "RAY_TMPDIR": str(scratch), "PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run(
        [*UNSHARE, script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("fault", ["lose_node", "kill_raylet"])
def test_what_a_lost_node_had_is_done_again(
    fault: str, namespaces: Path, ladder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ladder / "d16-s0" / "step-000006", tmp_path / "model")
    found = isolated(fault, tmp_path, namespaces)
    assert found["nodes"] == 2 and found["lost"] and found["twice"] >= 1
    assert found["completed"] == found["jobs"]
    assert found["failed"] == found["redone"] == []


def test_a_node_with_notice_finishes_what_it_has_and_gets_no_more(
    namespaces: Path, ladder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ladder / "d16-s0" / "step-000006", tmp_path / "model")
    found = isolated("preempt", tmp_path, namespaces)
    assert found["nodes"] == 2 and found["there"] < 20.0 < found["here"], "notice of 25 s"
    assert found["completed"] == found["jobs"] and found["twice"] == 0
    assert found["failed"] == found["lost"] == []


def test_workers_come_for_a_sweep_and_go_after_it(
    namespaces: Path, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    config = small_config(text_folder, ladder, tmp_path / "out")
    config["models"] = [{"path": str(ladder / "d16-s0"), "steps": "all"}]
    config["invariants"] = {"weights.weight_tail": {"num_null": 2}}
    (tmp_path / "series.yaml").write_text(yaml.safe_dump(config))
    found = isolated("autoscale", tmp_path, namespaces)
    assert (found["before"], found["after"]) == (0, 0) and found["most"] >= 1
    assert found["outcome"] == ["3 measurements made"]
    assert found["completed"] == 3
    assert found["monitor_errors"] == ""
