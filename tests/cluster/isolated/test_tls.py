"""TLS on loopback: nodes with certificates of one authority talk, others are refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.nodes.test_nodes import isolated, namespaces

assert namespaces, "a fixture"
pytestmark = [pytest.mark.ray, pytest.mark.root, pytest.mark.slow]
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def authority(folder: Path) -> None:
    """An authority and a certificate for the nodes on loopback, as docs/cluster.md makes them."""
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(folder, "req", "-x509", *EC, "-keyout", "ca.key", "-out", "ca.crt",
            "-days", "365", "-subj", "/CN=cluster")  # fmt: skip
    openssl(folder, "req", *EC, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    openssl(folder, "x509", "-req", "-in", "node.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "node.crt", "-days", "365", "-extfile", "names")  # fmt: skip


def test_a_run_over_tls_to_which_only_certificates_of_its_authority_are_let(
    namespaces: Path, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    for name in ("ours", "theirs"):
        authority(tmp_path / name)
    found = isolated("talk", tmp_path, namespaces, program="isolated_tls")
    assert (found["completed"], found["failed"]) == (8, [])
    assert found["ours"] and not found["none"] and not found["theirs"]
    assert found["still"] == 1
