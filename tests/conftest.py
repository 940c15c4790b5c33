"""Settings that must stand before ray is imported, and what many tests share."""

import os

os.environ["RAY_AUTH_MODE"] = "disabled"  # loopback only
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = {"cluster": "ray", "report": "report"}
"""Folder of tests -> group that one process runs: what it sets up is set up once."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes, all tests of the one Ray session go to one of them."""
    for item in items:
        folder = Path(item.path).parent.name
        if "ray_session" in getattr(item, "fixturenames", ()) or folder in SHARED:
            item.add_marker(pytest.mark.xdist_group(SHARED.get(folder, "ray")))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """The one Ray session of the test run: two CPUs on loopback."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; without one the test is skipped, in CI it fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    if os.environ.get("CI") == "true":
        pytest.fail("CI needs Chromium for the browser tests")
    pytest.skip("no Chromium on the PATH: the report is not looked at")


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of one's own: forty files of words, thirty of them long enough to split."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), size=rng.integers(2, 8))) for _ in range(300)]
    folder = tmp_path_factory.mktemp("text")
    for i in range(40):
        text = " ".join(rng.choice(words, size=400))
        (folder / f"part{i:02}.txt").write_text(text + "\n")
    return folder
