"""Connecting to Ray: authentication made explicit, an embedded cluster where none is named."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from scaleinv_ray.cluster.watchdog import Process, of_ray, watched

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
def connected(address: str | None) -> Generator[frozenset[Process]]:
    """A Ray session: the one that is up, the cluster named, or an embedded one for the block.

    SIGTERM ends the block as ctrl-C does, with exit code 143 unless the program has a handler of
    its own. An embedded Ray ends with this process, however that ends.

    Args:
        address: 'auto' or host:port of a cluster; None embeds Ray in this process, unless the
            process runs as a Ray job (then RAY_ADDRESS names its cluster).

    Yields:
        The processes of an embedded Ray, none where it is another's; Ray is initialised inside the
        block and shut down after it if it was opened here.
    """
    if ray.is_initialized():
        yield frozenset()
        return
    secure_token()
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    folder, since = str(Path(ray.__file__).parent), 0
    with ExitStack() as stack:
        take_over = stack.enter_context(_heeding_sigterm())
        if target == "local":
            since = stack.enter_context(watched(folder))
        stack.callback(ray.shutdown)
        embedded: dict[str, Any] = {"include_dashboard": False} if target == "local" else {}
        ray.init(address=target, log_to_driver=False, **embedded)
        take_over()
        yield frozenset(of_ray(os.getpid(), folder, since) if since else ())


def _stop(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


@contextmanager
def _heeding_sigterm() -> Generator[Callable[[], object]]:
    """Leaves SIGTERM to the program: Ray would print a stack and exit with 15.

    Yields:
        What is to be called when Ray, too, has set its handlers.

    Raises:
        SystemExit: where SIGTERM came while Ray was being initialised.
    """
    if threading.current_thread() is not threading.main_thread():  # others cannot set handlers
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    handler = _stop if before == signal.SIG_DFL else before
    try:
        yield lambda: signal.signal(signal.SIGTERM, handler)
    except SystemExit as error:  # by Ray's own handler, while it was being initialised
        if error.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
