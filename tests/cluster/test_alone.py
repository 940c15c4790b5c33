"""One run at a time in a folder, and none that is shut out by one that was killed."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray.cluster import alone as alone_module
from scaleinv_ray.cluster.alone import BEAT, LOCK, OccupiedError, alone
from scaleinv_ray.cluster.run import run
from scaleinv_ray.cluster.sweep import SKIPPED, sweep
from scaleinv_ray.store import Store
from tests.test_plan import net

ME = f"process {os.getpid()} on {socket.gethostname()} since "
HOLD = """
import sys, time
from scaleinv_ray.cluster import alone
from scaleinv_ray.store import Store

def unknown(*_):
    raise OSError(38, "Function not implemented")

alone.BEAT_S, alone.SETTLE_S = 0.05, 0.01
if sys.argv[2] == "without locks":
    alone.fcntl.flock = unknown
with alone.alone(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def unknown(*_: Any) -> None:
    """What a network disk says that has no locks; with beats it is as an object store."""
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.fixture(params=["with locks", "without locks"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, seconds in {"BEAT_S": 0.05, "DEAD_S": 1.0, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(alone_module, name, seconds)
    if request.param == "without locks":
        monkeypatch.setattr(alone_module.fcntl, "flock", unknown)
    return str(request.param)


def test_another_run_is_refused_with_the_name_of_the_first_until_it_has_ended(
    kind: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    for _ in range(2):
        with alone(store):
            said = rf"out: .* is in use by {ME}[-0-9: ]+UTC, allowed: one run at a time$"
            with pytest.raises(OccupiedError, match=said), alone(Store(tmp_path / "out")):
                pass
            with alone(Store(tmp_path / "other")):
                pass
    left = [p.name for p in (tmp_path / "out").iterdir()]
    assert left == [LOCK] and not (tmp_path / "out" / LOCK).read_text()


def test_a_killed_run_shuts_nobody_out(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), kind]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    store = Store(tmp_path)
    with pytest.raises(OccupiedError, match=f"process {holder.pid} on "), alone(store):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with alone(store):
        held = LOCK if kind == "with locks" else BEAT
        assert (tmp_path / held).read_text().startswith(ME)


def test_of_two_that_begin_together_the_one_that_wrote_last_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.local = None  # as s3:// has none

    def meanwhile(_: float) -> None:
        store.write_bytes(BEAT, b"process 7 on elsewhere since today beat 0123")

    monkeypatch.setattr(alone_module.time, "sleep", meanwhile)
    with pytest.raises(OccupiedError, match="by process 7 on elsewhere since today"), alone(store):
        pass


def test_a_second_run_into_a_folder_measures_nothing_and_a_sweep_leaves_it_alone(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    config = {
        "name": "made", "models": [net(tmp_path, 4, 0)], "invariants": ["weights.weight_tail"],
        "out": str(out),
    }  # fmt: skip
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(config))
    with alone(Store(out)):
        began = time.monotonic()
        with pytest.raises(ValueError, match=f"out: {out} is in use by {ME}"):
            run(config)
        assert sweep([file]) == {str(file): SKIPPED}
        assert time.monotonic() - began < alone_module.DEAD_S, "at once, not after a wait"
    assert [p.name for p in out.iterdir()] == [LOCK]
