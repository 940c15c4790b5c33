"""What an embedded Ray has started ends with its driver, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from scaleinv_ray.cluster.watchdog import Process, end, name_of, of_ray
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.runs.starting import leftovers
from scaleinv_ray.runs.starting.leftovers import RECORD, left_behind, recorded
from scaleinv_ray.store import Store
from tests.cluster.conftest import run_config
from tests.cluster.driving.test_faults import events

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
SLEEP = "import time; time.sleep(600)"
DRIVER = """
import subprocess, sys, time
from scaleinv_ray.cluster.watchdog import watched

folder = sys.argv[1]
with watched(folder):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # of the user
    subprocess.Popen([sys.executable, folder + "/raylet.py"])
    print("started", flush=True)
    time.sleep(600)
"""
RAYLET = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
agent.wait()
"""


def process(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(pid, int(fields[19]))


def wait_until(condition: object, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


@contextmanager
def sleeping() -> Generator[subprocess.Popen[bytes]]:
    """A process that does nothing, and is ended."""
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as child:
        try:
            yield child
        finally:
            child.kill()


def test_a_killed_driver_takes_its_ray_along_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "raylet.py").write_text(RAYLET)
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(command, stdout=said)
    wait_until(lambda: (tmp_path / "said").read_text() == "started\n")
    since = process(driver.pid).start
    wait_until(lambda: len(of_ray(driver.pid, str(tmp_path), since)) == 2)
    ray = of_ray(driver.pid, str(tmp_path), since)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    user = process(int(children[1]))
    assert len(children) == 3 and user not in ray
    time.sleep(1.5)  # a look of the watchdog
    driver.kill()
    driver.wait()
    wait_until(lambda: all(name_of(p) is None for p in ray))
    assert name_of(user) is not None, "what the user's program has started is his"
    end([user])


def test_a_process_is_its_id_and_its_start() -> None:
    with sleeping() as child:
        found = process(child.pid)
        other = found._replace(start=found.start - 1)
        assert name_of(found) is not None and name_of(other) is None
        end([other])
        assert child.poll() is None, "the id alone is another's"
        end([found])
        assert child.wait(timeout=10) == -signal.SIGTERM
    assert name_of(found) is None


def test_only_younger_children_that_run_from_the_folder_are_of_a_ray() -> None:
    with sleeping() as child:
        found, folder = process(child.pid), str(Path(sys.executable).parent)
        assert found in of_ray(os.getpid(), folder)
        assert found in of_ray(os.getpid(), folder, found.start)
        assert found not in of_ray(os.getpid(), folder, found.start + 1)
        assert found not in of_ray(os.getpid(), "/no/such/folder")
        assert of_ray(child.pid, folder) == set()


def test_the_next_run_names_what_a_killed_one_has_left_and_how_to_end_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert left_behind(store) is None
    with sleeping() as child:
        with recorded(store, [process(child.pid)]):
            record = store.read_bytes(RECORD)
            said = left_behind(store)
        assert said is not None and said.endswith(f"or now by: kill {child.pid}")
        assert f"(process {os.getpid()}) was killed; of its Ray still run: {child.pid} (" in said
        assert not store.exists(RECORD), "an orderly end leaves none"
        store.write_bytes(RECORD, json.dumps(json.loads(record) | {"machine": "other"}).encode())
        assert left_behind(store) is None and store.exists(RECORD), "another machine's affair"
    store.write_bytes(RECORD, record)
    assert left_behind(store) is None and not store.exists(RECORD), "it has ended by now"
    with recorded(store, []):
        assert not store.exists(RECORD), "a cluster is not ours to end"


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"processes": [1]}', "{" * 9999, '{"a": 1}'])
def test_a_torn_record_is_none(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes(leftovers.RECORD, text.encode())
    assert left_behind(store) is None and not store.exists(RECORD)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_process_and_goes_on_when_it_is_called_again(
    number: signal.Signals, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(run_config(text_folder, ladder, out)))
    command = [sys.executable, "-m", "scaleinv_ray.cli", "run", str(file)]
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    import ray

    folder = str(Path(ray.__file__).parent)
    wait_until(lambda: sum(e["event"] == "measured" for e in events(out)) > 10, 120)
    running = of_ray(driver.pid, folder, process(driver.pid).start)
    names = {name_of(p) for p in running}
    assert {"raylet", "gcs_server"} <= names and len(running) > 5
    assert (out / RECORD).exists()
    os.kill(driver.pid, number)
    code = driver.wait(timeout=60)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: not any(name_of(p) for p in running), 20)
    text = (tmp_path / "said").read_text()
    assert "***" not in text and "Traceback" not in text, text
    assert (out / RECORD).exists() == (number == signal.SIGKILL)
    before = take_inventory(Store(out)).done
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "was killed" not in done.stderr
    assert before < take_inventory(Store(out)).done and not (out / RECORD).exists()
