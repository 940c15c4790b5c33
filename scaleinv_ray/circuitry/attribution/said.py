"""How attributions are said: errors over sequences, numbers, tokens as text.

Shape suffixes: N things, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

WIDTH = 96
"""Characters of a line, at most."""


def stderr(x_NS: np.ndarray) -> list[float | None]:
    """Standard errors of means over sequences, None with fewer than two; nan is left out."""
    known_NS = np.isfinite(x_NS)
    count_N = known_NS.sum(axis=1)
    filled_NS = np.where(known_NS, x_NS, 0.0)
    mean_N = filled_NS.sum(axis=1) / np.maximum(count_N, 1)
    square_N = np.where(known_NS, (filled_NS - mean_N[:, None]) ** 2, 0.0).sum(axis=1)
    return [
        None if n < 2 else float(np.sqrt(square / (n - 1) / n))
        for n, square in zip(count_N, square_N, strict=True)
    ]


def clearly(value: float, error: float | None) -> bool:
    """Whether a value is not 0, by two of its errors, so that shares of it mean something."""
    return value != 0 and (error is None or abs(value) >= 2 * error)


def pm(error: float | None) -> str:
    """The error behind a value."""
    return "" if error is None else f" +- {error:.2g}"


def cell(error: float | None) -> str:
    """The error in a table."""
    return "?" if error is None else f"{error:.2g}"


def speller(spell: Callable[[int], str] | None) -> Callable[[int], str]:
    """The text of a token; its id without a tokenizer, or where it is a part of a letter."""

    def text(token: int) -> str:
        found = str(token) if spell is None else spell(token)
        return f"<{token}>" if not found or "\N{REPLACEMENT CHARACTER}" in found else found

    return text


def inline(tokens: Sequence[str], spelled: bool) -> str:
    r"""Tokens on one line: text as it stands, line ends and the like as Python writes them.

    >>> inline(["a b", chr(10)], spelled=True), inline(["3", "14"], spelled=False)
    ('a b\\n', '3 14')
    """
    return ("" if spelled else " ").join(repr(t)[1:-1] for t in tokens)
