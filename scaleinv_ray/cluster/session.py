"""Connecting to Ray: authentication made explicit, an embedded cluster where none is named."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported: an unset mode leaves
# a token behind that a later `ray start --head` demands
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# a driver notices that the link to a node is cut after a minute; by default after seven
os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "20000")
os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "30000")

import ray


def secure_token() -> None:
    """Makes Ray's token file if token mode has none, and closes it to other users (0600).

    Ray itself writes it 0644. A token given by RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is the
    user's affair.
    """
    if os.environ["RAY_AUTH_MODE"].lower() != "token":
        return
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # another run may be starting at this moment
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
    path.chmod(0o600)


@contextmanager
def connected(address: str | None) -> Generator[None, None, None]:
    """A Ray session: the one that is up, the cluster named, or an embedded one for the block.

    Args:
        address: 'auto' or host:port of a cluster; None embeds Ray in this process, unless the
            process runs as a Ray job (then RAY_ADDRESS names its cluster).

    Yields:
        Nothing; Ray is initialised inside the block and shut down after it if it was opened here.
    """
    if ray.is_initialized():
        yield
        return
    secure_token()
    on_term = signal.getsignal(signal.SIGTERM)
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if target == "local":
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=target, log_to_driver=False)
    if callable(on_term) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray puts its own in its place, which shows a stack
    try:
        yield
    finally:
        ray.shutdown()
