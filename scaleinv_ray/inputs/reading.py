"""What was being read or written when something failed: the error carries it to the end.

A library's error seldom names the file that it choked on. `reading` and `writing` write it on the
error as it passes; `told` makes the one line of it that a user sees.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from scaleinv_ray.inputs.wording import MOST, clipped

_READ = "scaleinv_reading"
"""Attribute of an error; a note (PEP 678) would be printed where the text alone is wanted."""
ROOM = MOST - 10
"""Characters of a line, `error: ` before it left out."""
_PLAIN = (ValueError, OSError)
"""Errors whose text is meant for the user; others are named by their class besides."""
_SAID = {
    RecursionError: "nested too deeply",
    MemoryError: "not enough memory",
}


@contextmanager
def reading(what: object) -> Generator[None, None, None]:
    """Writes on every error out of the block what was being read; the innermost one stays.

    Args:
        what: a file, folder, repository or URI.
    """
    try:
        yield
    except Exception as error:
        if read_by(error) is None:
            setattr(error, _READ, str(what))
        raise


@contextmanager
def writing(path: object) -> Generator[None, None, None]:
    """Names the file in errors that lack it: a full disk does not say which one.

    Raises:
        OSError: the one that came up, with its file.
    """
    try:
        with reading(path):
            yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def read_by(error: BaseException) -> str | None:
    """What was being read when an error came up, None where nobody said."""
    return getattr(error, _READ, None)


def told(error: BaseException) -> str:
    """An error as one line: what was being read, and what is wrong with it.

    Args:
        error: of any kind; of an error in a Ray task, which carries a stack, its cause is told.

    Returns:
        Less than 300 characters.

    >>> told(KeyError("model_type"))
    "KeyError: 'model_type' (--debug shows where)"
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        error = cause
    text = next((said for kind, said in _SAID.items() if isinstance(error, kind)), str(error))
    if "Traceback (most recent call last)" in text:  # of another process: its last line says what
        text = text.strip().splitlines()[-1]
    where, after = read_by(error), ""
    text = "; ".join(text.split("\n  "))  # several mistakes in one config
    if not isinstance(error, _PLAIN):
        name = type(error).__name__
        text, after = f"{name}: {text}" if text else name, " (--debug shows where)"
    before = f"{clipped(where, 120)}: " if where and where not in text else ""
    return before + clipped(text or type(error).__name__, ROOM - len(before) - len(after)) + after
