"""Functions of words over the symbols 0 (A), 1 (B), .. that automata are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Word = tuple[int, ...]

FUNCTIONS: Mapping[str, Callable[[Word], bool]] = {
    "contains A": lambda word: 0 in word,
    "odd number of A": lambda word: word.count(0) % 2 == 1,
    "last symbol is A": lambda word: word[-1:] == (0,),
    "first symbol is A": lambda word: word[:1] == (0,),
    "constant yes": lambda word: True,
    "constant no": lambda word: False,
}


def name_of(outputs: Sequence[object], inputs: Sequence[Word]) -> str | None:
    """Name of a function that is known by what it says of words.

    Args:
        outputs: of every input.
        inputs: the words, in the same order.

    Returns:
        None for a function without a name.

    >>> name_of([True, False], [(0,), (1,)])  # the first that agrees
    'contains A'
    """
    return next(
        (n for n, f in FUNCTIONS.items() if [f(word) for word in inputs] == list(outputs)), None
    )
