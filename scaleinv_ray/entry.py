"""How a command ends: every error one line and exit code 2, a signal one line, never a stack."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from scaleinv_ray.inputs.reading import told

DEBUG = "--debug"
"""Option of every command, wherever it stands: an error shows its traceback."""
STOPPED = "stopped; what is written is kept; run again to go on"


def enter(command: Callable[[], object]) -> None:
    """Runs a command as a program of its own; the process ends here where it does not succeed.

    Exit codes: 2 for a mistake or what the system refuses, 130 and 143 for ctrl-C and SIGTERM, and
    what the command itself exits with.

    Args:
        command: reads sys.argv, from which `--debug` has been taken.

    Raises:
        SystemExit: with the exit code.
    """
    arguments = [a for a in sys.argv[1:] if a != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    sys.argv[1:] = arguments
    received: list[int] = []
    try:
        with _signals(received):
            command()
    except (Exception, SystemExit) as error:  # the last resort: what came this far is one line
        # a signal first: Ray makes an exit of its own out of ours
        if not received and isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        print(STOPPED if received else f"error: {told(error)}", file=sys.stderr)
        raise SystemExit(128 + received[0] if received else 2) from None


@contextmanager
def _signals(received: list[int]) -> Generator[None, None, None]:
    """Ctrl-C and SIGTERM end the block; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
