"""How a command ends: every error one line and exit code 2, a signal one line, never a stack."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from scaleinv_ray.reading import told

DEBUG = "--debug"
"""Option of every command, wherever it stands: an error shows its traceback."""
STOPPED = "stopped; what is done is kept; run again to go on"


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM; unwinds as an exit does, so that nobody takes it for an error."""


def enter(command: Callable[[], object]) -> None:
    """Runs a command as a program of its own; the process ends here where it does not succeed.

    Exit codes: 2 for a mistake or what the system refuses, 130 and 143 for ctrl-C and SIGTERM, and
    what the command itself exits with.

    Args:
        command: reads sys.argv, from which `--debug` has been taken.

    Raises:
        Stopped: on a signal, its one line printed.
    """
    arguments = [a for a in sys.argv[1:] if a != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    sys.argv[1:] = arguments
    try:
        with _signals():
            command()
    except Stopped:
        print(STOPPED, file=sys.stderr)
        raise
    except Exception as error:  # the one last resort: whatever came this far is told, not shown
        if debug:
            traceback.print_exc()
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _signals() -> Generator[None, None, None]:
    """Ctrl-C and SIGTERM raise `Stopped` in the block; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(128 + number)
