"""Problems with one right answer: every line is right, and nothing gives it away."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from scaleinv_ray.probes import build_tokens
from scaleinv_ray.probes.problems import STEPS


def encode(text: str) -> list[int]:
    return list(text.encode())


def texts(name: str, *, sequences: int = 50, length: int = 400) -> list[str]:
    rows = build_tokens(
        name, encode, sequences=sequences, length=length, vocab_size=256, corpus=None,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return [bytes(row.tolist()).decode() for row in rows]


def whole_lines(name: str) -> list[str]:
    return [line for text in texts(name) for line in text.split("\n")[:-1]]


def test_results_are_right() -> None:
    lines = whole_lines("arithmetic")
    signs = set()
    for line in lines:
        a, sign, b, result = re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", line).groups()  # type: ignore
        assert int(result) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        signs.add(sign)
    assert signs == {"+", "-"}
    assert len(set(lines)) > 0.9 * len(lines)  # 10,000 pairs of operands, two signs


def test_progressions_go_on_by_their_step() -> None:
    lines = [[int(n) for n in line.split(" ")] for line in whole_lines("counting")]
    assert {len(line) for line in lines} == {8}
    assert {line[1] - line[0] for line in lines} == set(STEPS)
    for line in lines:
        assert len(set(np.diff(line))) == 1


def test_the_answer_is_who_does_not_give_and_the_order_says_nothing() -> None:
    first_gives = []
    for line in whole_lines("names"):
        people = re.findall(r"\b[A-Z][a-z]+\b", re.sub(r"^(When|Then|While)|Afterwards", "", line))
        a, b, giver, receiver = people
        assert a != b
        assert {giver, receiver} == {a, b}
        first_gives.append(giver == a)
    assert abs(np.mean(first_gives) - 0.5) < 4 * 0.5 / np.sqrt(len(first_gives))


@pytest.mark.parametrize("name", ["arithmetic", "counting", "names"])
def test_every_sequence_begins_with_a_problem_of_its_own(name: str) -> None:
    rows = texts(name, length=24)
    assert len({row[:10] for row in rows}) > 5
    whole = {"arithmetic": r"\d+[+-]", "counting": r"\d+ \d+ ", "names": r"(When|Then|While) [A-Z]"}
    assert all(re.match(whole[name], row) for row in rows)


def words(text: str) -> list[int]:
    """A tokenizer with far fewer tokens a character than bytes."""
    return [hash_of(word) for word in re.findall(r"\s*\S+|\s+", text)]


def hash_of(word: str) -> int:
    return sum(map(ord, word)) % 1000


@pytest.mark.parametrize("split", [encode, words])
def test_sequences_are_filled_whatever_the_tokenizer(split: Callable[[str], list[int]]) -> None:
    for name in ("arithmetic", "counting", "names"):
        rows = build_tokens(
            name, split, sequences=3, length=257, vocab_size=1000, corpus=None,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        assert rows.shape == (3, 257)


def test_a_tokenizer_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="tokenizer: got no tokens for"):
        build_tokens(
            "counting", lambda text: [], sequences=1, length=8, vocab_size=9, corpus=None,
            rng=np.random.default_rng(0),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arithmetic", "got one token for all of"),
        ("counting", "got one token for all of"),
        ("names", "got one token for all of"),
        ("brackets", "allowed one of its own for each"),
    ],
)
def test_a_tokenizer_that_knows_none_of_the_characters(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_tokens(
            name, lambda text: [0] * len(text), sequences=2, length=8, vocab_size=4, corpus=None,
            rng=np.random.default_rng(0),
        )  # fmt: skip
