"""An S3-compatible server on loopback."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from tests.cluster.test_jobs import free_port


@contextmanager
def bucket_server() -> Generator[str]:
    """A URI with a place for a path, that holds all that workers need to reach the server."""
    port = free_port()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        filesystem = fs.S3FileSystem(
            access_key="k", secret_key="s", scheme="http", endpoint_override=f"127.0.0.1:{port}",
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip
        filesystem.create_dir("runs")
        query = f"scheme=http&region=us-east-1&endpoint_override=127.0.0.1%3A{port}"
        yield "s3://k:s@runs/{}?" + query
    finally:
        process.terminate()
        process.wait(timeout=30)
