"""How messages are worded: cut to a length, sizes in units that fit, the nearest of many names."""

from __future__ import annotations

import difflib
from collections.abc import Collection

MOST = 300
"""Characters of a message; a longer one is not read."""
_FEW = 8
_NEAREST = 5
_NEAR = 0.7
"""Of equal letters, twice over both lengths: two letters out of six or seven may be others."""


def clipped(text: object, limit: int = MOST) -> str:
    """A text on one line, its middle left out where it is too long.

    Args:
        text: of any length, on any number of lines.

    Returns:
        At most `limit` characters: both ends are there, as they say what and what is allowed.

    >>> clipped("a  b")
    'a b'
    >>> clipped("0123456789", 6)
    '012..9'
    """
    whole = str(text)
    line = " ".join(whole[: 4 * limit].split())
    if len(whole) <= 4 * limit and len(line) <= limit:
        return line
    end = " ".join(whole[-4 * limit :].split())
    kept = (limit - 2) // 3
    return f"{line[: limit - 2 - kept]}..{end[len(end) - kept :]}"


def shown(value: object, limit: int = 80) -> str:
    """What was got, as Python writes it, cut to a length."""
    return clipped(repr(value), limit)


def four_digits(value: object) -> str:
    """A value in a sentence: floats with four digits.

    >>> four_digits(1 / 3), four_digits(2)
    ('0.3333', '2')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sized(num_bytes: float) -> str:
    """A number of bytes with three digits, in the unit that fits.

    Returns:
        With its unit; a KB is 1000 bytes, as in configs.

    >>> sized(12), sized(45_600), sized(1.5e9)
    ('12 B', '45.6 KB', '1.50 GB')
    """
    value, units = float(num_bytes), ["B", "KB", "MB", "GB", "TB", "PB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    if units[0] == "B" or abs(value) >= 99.95:
        return f"{value:.0f} {units[0]}"
    return f"{value:.{1 if abs(value) >= 9.995 else 2}f} {units[0]}"


def listed(known: Collection[object], got: object) -> str:
    """The names that are allowed; of many the nearest to what was got.

    Returns:
        Names in their order, and how many more there are.

    >>> listed(["a", "b"], "c")
    'a, b'
    >>> listed([f"name_{i}" for i in range(20)], "name_7")
    'name_6, name_7, name_8, name_9, name_17 and 15 more'
    """
    names = [str(name) for name in known]
    if len(names) <= _FEW:
        return ", ".join(names) or "none"
    close = difflib.get_close_matches(str(got)[:200], names, n=_NEAREST, cutoff=0.0)
    near = [name for name in names if name in close]
    return f"{', '.join(near)} and {len(names) - len(near)} more"


def nearest(got: object, known: Collection[object]) -> str:
    """'did you mean ..?' in parentheses where a known name is a slip away, else nothing.

    >>> nearest("Sequence", ["sequences", "steps"]), nearest("margin", ["metric", "variants"])
    (" (did you mean 'sequences'?)", '')
    """
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(str(got)[:200].lower(), names, n=1, cutoff=_NEAR)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""
