"""`ray job submit` against `ray start --head`: a job killed halfway goes on where it was."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.store import Store
from tests.cluster.conftest import ladder_config, run_config

pytestmark = pytest.mark.ray
JOBS = Path(__file__).resolve().parents[2] / "jobs"
LIMIT_S = 240


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Dashboard address of a head node of its own, ended by its process id."""
    dashboard = free_port()
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
            "--num-cpus=2", "--include-dashboard=true", f"--port={free_port()}",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
            # two clusters on one machine: the default port of the agent is taken
            f"--dashboard-agent-listen-port={free_port()}",
            f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", "--disable-usage-stats",
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{dashboard}"
        _await(lambda: _answers(f"{url}/api/version"), "the dashboard")
        _await(lambda: _takes_jobs(url), "an agent that takes jobs")
        yield url
        process.terminate()  # with --block this ends the head's own processes
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _takes_jobs(url: str) -> bool:
    """Whether a job that does nothing can be submitted: the agent starts after the dashboard."""
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(url).submit_job(entrypoint="true")
    except RuntimeError:
        return False
    return True


def _await(condition: Any, what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.2)


def _events(out: Path) -> list[dict[str, Any]]:
    log = out / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.slow
def test_a_job_killed_halfway_and_submitted_again_computes_only_the_rest(
    head: str, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    out = tmp_path / "out"
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(run_config(text_folder, ladder, out)))
    client = JobSubmissionClient(head)
    entrypoint = f"{sys.executable} {JOBS / 'analyze.py'} {file}"

    first = client.submit_job(entrypoint=entrypoint, submission_id="tiny-1")
    store = Store(out)
    _await(lambda: len(store.names("measurements")) >= 60, "sixty measurements")
    client.stop_job(first)
    _await(lambda: client.get_job_status(first).is_terminal(), "the end of the first job")
    assert client.get_job_status(first) == JobStatus.STOPPED
    time.sleep(1)  # tasks that were running may still finish a file
    done = take_inventory(store).done
    finished = {e["key"] for e in _events(out) if e["event"] == "measured"}
    before = len(_events(out))
    assert len(done) >= 60 and not (out / "report.html").exists()

    second = client.submit_job(entrypoint=entrypoint, submission_id="tiny-2")
    _await(lambda: client.get_job_status(second).is_terminal(), "the end of the second job")
    assert client.get_job_status(second) == JobStatus.SUCCEEDED, client.get_job_logs(second)
    again = {e["key"] for e in _events(out)[before:] if e["event"] == "measured"}
    assert again and not again & done and not again & finished
    assert len(again | done) == len(take_inventory(store).done)
    assert (out / "report.html").exists() and (out / "verdicts.parquet").exists()


def test_a_training_job_leaves_ordinary_folders(
    head: str, text_folder: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = ladder_config(text_folder, tmp_path / "models") | {"widths": [16], "seeds": [3]}
    file = tmp_path / "ladder.yaml"
    file.write_text(yaml.safe_dump(config))
    client = JobSubmissionClient(head)
    job = client.submit_job(entrypoint=f"{sys.executable} {JOBS / 'train.py'} {file}")
    _await(lambda: client.get_job_status(job).is_terminal(), "the end of the job")
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)
    folder = tmp_path / "models" / "d16-s3" / "step-000006"
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16
    assert AutoTokenizer.from_pretrained(folder).decode(b"ray") == "ray"
    assert json.loads((folder / "training.json").read_text())["step"] == 6
