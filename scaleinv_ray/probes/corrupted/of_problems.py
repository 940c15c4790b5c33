"""Pairs of short problems, one a sequence: names, years and sums.

Shape suffixes: S sequences, V vocabulary.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scaleinv_ray.probes.corrupted.pairs import Pairs
from scaleinv_ray.probes.problems import LARGEST, PEOPLE, PLACES, STORIES, THINGS
from scaleinv_ray.probes.registry import ProbeRequest

_TRIES = 200
"""Problems drawn for each that is wanted."""
_CENTURY = 17


class Problem(NamedTuple):
    """A question twice, and the answers to both."""

    clean: str
    other: str
    answer_clean: str
    answer_other: str


class _Spelled(NamedTuple):
    clean: list[int]
    other: list[int]
    answer_clean: int
    answer_other: int


def _pairs(request: ProbeRequest, draw: Callable[[np.random.Generator], Problem]) -> Pairs:
    """Problems whose questions have equal numbers of tokens and whose answers differ at once.

    Raises:
        ValueError: where too few of those drawn do.
    """
    drawn = request.sequences * _TRIES
    by_length: dict[int, list[_Spelled]] = defaultdict(list)
    tried = 0
    while tried < drawn and max(map(len, by_length.values()), default=0) < request.sequences:
        tried += 1
        if (spelled := _spelled(request, draw(request.rng))) is not None:
            by_length[len(spelled.clean)].append(spelled)
    counts = Counter({length: len(rows) for length, rows in by_length.items()})
    length, most = counts.most_common(1)[0] if counts else (0, 0)
    if most < request.sequences:
        raise ValueError(
            f"sequences: got {request.sequences}, {most} of {drawn} problems can be paired (equal "
            f"numbers of tokens, <= {request.length}; other answers); allowed fewer sequences, "
            "a larger length or another tokenizer"
        )
    rows = by_length[length]
    at = np.full((request.sequences, 1), length - 1)
    clean, other, of_clean, of_other = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs(clean, other, at, of_clean[:, None], of_other[:, None], acceptance=most / tried)


def _spelled(request: ProbeRequest, problem: Problem) -> _Spelled | None:
    """Tokens of a problem; None where A and B cannot be paired or the text is too long."""
    clean, other = request.encode(problem.clean), request.encode(problem.other)
    answer_clean = _following(request, clean, problem.clean, problem.answer_clean)
    answer_other = _following(request, other, problem.other, problem.answer_other)
    same = len(os.path.commonprefix([answer_clean, answer_other]))
    if len(clean) != len(other) or same >= min(len(answer_clean), len(answer_other)):
        return None
    # what both answers begin with (of bytes, the space) is given: the first difference is asked
    given = answer_clean[:same]
    if not 2 <= len(clean) + same <= request.length:
        return None
    return _Spelled([*clean, *given], [*other, *given], answer_clean[same], answer_other[same])


def _following(request: ProbeRequest, ids: list[int], question: str, answer: str) -> list[int]:
    """Tokens of an answer; none where the tokenizer joins the question's end with it."""
    whole = request.encode(question + answer)
    return whole[len(ids) :] if whole[: len(ids)] == ids else []


def _story(rng: np.random.Generator) -> tuple[str, list[str], dict[str, str], bool]:
    """A story up to its last name, five people, what else fills it, and who gives."""
    story = STORIES[rng.integers(len(STORIES))].removesuffix(" {io}.\n")
    people = [PEOPLE[n] for n in rng.permutation(len(PEOPLE))[:5]]
    filled = {
        "place": PLACES[rng.integers(len(PLACES))],
        "thing": THINGS[rng.integers(len(THINGS))],
    }
    return story, people, filled, bool(rng.integers(2))


def names(request: ProbeRequest) -> Pairs:
    """Who is given something; in B the giver's second name is the receiver's, order kept."""

    def draw(rng: np.random.Generator) -> Problem:
        story, (a, b, *_), filled, first = _story(rng)
        s, io = (a, b) if first else (b, a)
        clean = story.format(a=a, b=b, s=s, **filled)
        other = story.format(a=a, b=b, s=io, **filled)
        return Problem(clean, other, f" {io}", f" {s}")

    return _pairs(request, draw)


def names_abc(request: ProbeRequest) -> Pairs:
    """Who is given something; B names three other people, none of them twice."""

    def draw(rng: np.random.Generator) -> Problem:
        story, (a, b, *new), filled, first = _story(rng)
        s, io = (a, b) if first else (b, a)
        clean = story.format(a=a, b=b, s=s, **filled)
        other = story.format(a=new[0], b=new[1], s=new[2], **filled)
        return Problem(clean, other, f" {io}", f" {s}")

    return _pairs(request, draw)


def arithmetic(request: ProbeRequest) -> Pairs:
    """A sum or a difference; in B one operand is another one, and the result begins otherwise."""

    def draw(rng: np.random.Generator) -> Problem:
        a, b, c = rng.integers(LARGEST + 1, size=3).tolist()
        if rng.integers(2):
            return Problem(f"{a}+{b}=", f"{a}+{c}=", f"{a + b}\n", f"{a + c}\n")
        a, b, c = max(a, b, c), min(a, b), c
        return Problem(f"{a}-{b}=", f"{a}-{c}=", f"{a - b}\n", f"{a - c}\n")

    return _pairs(request, draw)


def greater_than(request: ProbeRequest) -> Pairs:
    """The year a war ended; in B it began in the first year of the century (Hanna et al. 2023).

    Right are the years after the beginning, wrong those before it. Where a tokenizer spells years
    by single digits, the first digit of the two is asked, and an equal one is neither.

    Raises:
        ValueError: where the tokenizer has neither two-digit tokens nor single digits for years.
    """
    digits = _year_tokens(request)
    step = 100 // len(digits)
    first_S = request.rng.integers(2 * step if step > 1 else 2, 99 - step, size=request.sequences)
    text = f"The war lasted from {_CENTURY}{{:02}} to {_CENTURY}"
    clean = [request.encode(text.format(year)) for year in first_S]
    other = [request.encode(text.format(1))] * len(clean)
    if len({len(ids) for ids in (*clean, *other)}) != 1:
        raise ValueError("tokenizer: got years of unequal numbers of tokens, allowed equal ones")
    begun_S1, of_D = (first_S // step)[:, None], np.arange(len(digits))
    right_SV = np.zeros((request.sequences, request.vocab_size), dtype=bool)
    wrong_SV = right_SV.copy()
    right_SV[:, digits] = of_D > begun_S1
    wrong_SV[:, digits] = of_D < begun_S1 + (step == 1)
    ids_D = np.array(digits)
    return Pairs(
        np.array(clean),
        np.array(other),
        np.full((request.sequences, 1), len(clean[0]) - 1),
        ids_D[begun_S1 + 1],
        ids_D[begun_S1 - 1],
        metric="prob_diff",
        right_SV=right_SV,
        wrong_SV=wrong_SV,
    )


def _year_tokens(request: ProbeRequest) -> list[int]:
    """The tokens that may follow `17`: of 00..99, or of 0..9."""
    begun = request.encode(f"The war lasted from {_CENTURY}10 to {_CENTURY}")
    asked: list[list[int]] = []
    for year in range(100):
        whole = request.encode(f"The war lasted from {_CENTURY}10 to {_CENTURY}{year:02}")
        asked.append(whole[len(begun) :] if whole[: len(begun)] == begun else [])
    if all(len(ids) == 1 for ids in asked):
        return [ids[0] for ids in asked]
    tens = [{tuple(ids[:1]) for ids in asked[10 * n : 10 * n + 10]} for n in range(10)]
    if all(len(ids) == 2 for ids in asked) and all(len(found) == 1 for found in tens):
        return [next(iter(found))[0] for found in tens]
    raise ValueError(
        f"tokenizer: got {asked[42]} for the 42 of {_CENTURY}42, allowed one token for two digits "
        "or one for each"
    )
