"""What docstrings say of the fields of a config: the only place where it is written."""

from __future__ import annotations

import inspect
import re
from functools import cache


@cache
def described(documented: type) -> dict[str, str]:
    """Field -> what the Attributes of the docstrings of a class and of its bases say of it.

    Args:
        documented: a class with a docstring in Google style.

    Returns:
        Sentences of one line, those of bases first.

    >>> class Box:
    ...     '''A box.
    ...
    ...     Attributes:
    ...         width: from left to right,
    ...             in metres.
    ...         depth: from front to back.
    ...     '''
    >>> described(Box)
    {'width': 'from left to right, in metres.', 'depth': 'from front to back.'}
    """
    found: dict[str, str] = {}
    for base in reversed(documented.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
        entries = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE) if section else []
        pairs = zip(entries[1::2], entries[2::2], strict=True)
        found |= {name: " ".join(said.split()) for name, said in pairs}
    return found


def purpose(documented: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].split())
