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

from scaleinv_ray.runs.analysis import run
from scaleinv_ray.runs.starting import run_lock as alone_module
from scaleinv_ray.runs.starting.run_lock import BEAT, LOCK, OccupiedError, alone, is_locked
from scaleinv_ray.runs.sweep import SKIPPED, sweep
from scaleinv_ray.store import Store
from tests.plan.test_plan import net

ME = f"process {os.getpid()} on {socket.gethostname()} since "
HOLD = """
import sys, time
from scaleinv_ray.runs.starting import run_lock as alone
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


def test_who_only_asks_learns_it_and_shuts_nobody_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    assert is_locked(store) is None, "no run has begun there"
    with alone(store):
        assert is_locked(store) and is_locked(Store(tmp_path / "out"))
        assert (tmp_path / "out" / LOCK).read_text().startswith(ME), "it is left as it was"
    assert is_locked(store) is False
    with alone(store):
        pass
    store.local = None  # as s3:// has none
    assert is_locked(store) is None


def test_a_look_at_the_moment_of_a_start_does_not_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = (tmp_path / LOCK).open("a")
    alone_module.fcntl.flock(looking, alone_module.fcntl.LOCK_SH)
    monkeypatch.setattr(alone_module.time, "sleep", lambda _: looking.close())
    with alone(Store(tmp_path)):
        assert (tmp_path / LOCK).read_text().startswith(ME)


def test_a_network_disk_without_locks_is_not_known_to_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    monkeypatch.setattr(alone_module.fcntl, "flock", unknown)
    assert is_locked(Store(tmp_path)) is None


@pytest.mark.parametrize("what", ["folder", "dangling", "binary"])
def test_a_lock_that_is_no_text_file(what: str, tmp_path: Path) -> None:
    store, lock = Store(tmp_path / "out"), tmp_path / "out" / LOCK
    lock.parent.mkdir()
    if what == "binary":
        lock.write_bytes(b"\xff\xfe\x00" * 30)
        with alone(store), pytest.raises(OccupiedError, match=ME), alone(Store(tmp_path / "out")):
            pass
        return
    if what == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "gone" / "lock")
    said = rf"^out: \S+/{LOCK}: .*, allowed: a folder that can be written to, with {LOCK} a file"
    with pytest.raises(ValueError, match=said), alone(store):
        pass


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
