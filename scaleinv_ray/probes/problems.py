"""Short problems with one right answer, in words of the tokenizer: arithmetic, counting, names.

Every sequence begins with a problem of its own; the last one is cut where the sequence ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaleinv_ray.probes.registry import ProbeRequest, probe_set

LARGEST = 99
TERMS = 8
STEPS = (1, 2, 3, 5, 10)
# Wang et al. 2023 (Interpretability in the Wild), shortened; {io} is the answer, {s} stands twice.
PEOPLE = (
    "Mary", "John", "Tom", "James", "Dan", "Anna", "Paul", "Mark", "Kate", "Jack", "Lucy", "Alice",
    "Peter", "Sarah", "David", "Laura", "Simon", "Emma", "Henry", "Julia",
)  # fmt: skip
PLACES = ("store", "park", "school", "office", "garden", "station", "house", "library")
THINGS = ("book", "drink", "ring", "ball", "bag", "key", "letter", "flower")
STORIES = (
    "When {a} and {b} went to the {place}, {s} gave a {thing} to {io}.\n",
    "Then {a} and {b} had a long day at the {place}. Afterwards {s} gave a {thing} to {io}.\n",
    "While {a} and {b} were at the {place}, {s} handed the {thing} to {io}.\n",
)


@probe_set()
def arithmetic(request: ProbeRequest) -> np.ndarray:
    """Sums and differences of whole numbers up to 99, as in `17+25=42`, one a line.

    Asked: the result. The answer are the tokens between `=` and the end of the line; operands are
    uniform, no difference is negative, and nothing before the sign `=` can be known.

    Args:
        request: the corpus is not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _rows(request, _sums)


def _sums(rng: np.random.Generator, count: int) -> list[str]:
    operands = rng.integers(LARGEST + 1, size=(count, 2)).tolist()
    plus = rng.integers(2, size=count).tolist()
    return [
        f"{a}+{b}={a + b}\n" if sign else f"{max(a, b)}-{min(a, b)}={abs(a - b)}\n"
        for (a, b), sign in zip(operands, plus, strict=True)
    ]


@probe_set()
def counting(request: ProbeRequest) -> np.ndarray:
    """Counting on by a fixed step, as in `14 16 18 20 22 24 26 28`, eight numbers a line.

    Asked: the next number. The answer are the tokens of the third to the eighth number of a line;
    the first is uniform in 0..99 and the step out of 1, 2, 3, 5, 10.

    Args:
        request: the corpus is not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _rows(request, _progressions)


def _progressions(rng: np.random.Generator, count: int) -> list[str]:
    first_N = rng.integers(LARGEST + 1, size=count)
    step_N = rng.choice(STEPS, size=count)
    terms = first_N[:, None] + step_N[:, None] * np.arange(TERMS)
    return [" ".join(map(str, row)) + "\n" for row in terms.tolist()]


@probe_set()
def names(request: ProbeRequest) -> np.ndarray:
    """Indirect objects: who is given something, by one of two people, as in `John gave it to Mary`.

    Asked: the receiver, of two people of whom the giver is named twice (Wang et al. 2023,
    Interpretability in the Wild). The answer are the tokens of the last name of a line; whether the
    giver was named first or second is even, so that the order says nothing.

    Args:
        request: the corpus is not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _rows(request, _stories)


def _stories(rng: np.random.Generator, count: int) -> list[str]:
    first_N = rng.integers(len(PEOPLE), size=count)
    second_N = (first_N + rng.integers(1, len(PEOPLE), size=count)) % len(PEOPLE)  # another one
    giver_N = rng.integers(2, size=count)
    story_N, place_N, thing_N = (
        rng.integers(len(words), size=count) for words in (STORIES, PLACES, THINGS)
    )
    found = []
    for n in range(count):
        a, b = PEOPLE[first_N[n]], PEOPLE[second_N[n]]
        s, io = (a, b) if giver_N[n] else (b, a)
        place, thing = PLACES[place_N[n]], THINGS[thing_N[n]]
        found.append(STORIES[story_N[n]].format(a=a, b=b, s=s, io=io, place=place, thing=thing))
    return found


def _rows(
    request: ProbeRequest, draw: Callable[[np.random.Generator, int], list[str]]
) -> np.ndarray:
    """Sequences of problems, each tokenised as one text; ValueError where that gives no tokens."""
    rows = []
    count = 1 + request.length // 16
    for _ in range(request.sequences):
        problems = draw(request.rng, count)
        while len(ids := request.encode("".join(problems))) < request.length:
            if not ids:
                raise ValueError(f"tokenizer: got no tokens for {problems[0]!r}, allowed some")
            problems += draw(request.rng, len(problems))
        if len(set(ids)) < 2:
            raise ValueError(
                f"tokenizer: got one token for all of {problems[0]!r}, allowed several"
            )
        count = max(count, len(problems))
        rows.append(ids[: request.length])
    return np.asarray(rows, dtype=np.int64)
