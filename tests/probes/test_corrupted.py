"""Clean and corrupted sequences: what differs, what is asked, what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from scaleinv_ray.probes import Corpus, ProbeRequest
from scaleinv_ray.probes.corpus import Document
from scaleinv_ray.probes.corrupted import CORRUPTED, Pairs, corrupt

WORDS = re.compile(r" ?[A-Za-z]+|\d\d|\d|[^A-Za-z\d]")


def by_bytes(text: str) -> list[int]:
    return list(text.encode())


class Words:
    """A tokenizer of words and of two digits, as large vocabularies have."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        found = WORDS.findall(text)
        return [self.known.setdefault(word, len(self.known)) for word in found]


def corpus() -> Corpus:
    rng = np.random.default_rng(0)
    documents = tuple(
        Document(f"{kind}{n}", kind, " ".join(f"{x}" for x in rng.integers(999, size=400)))
        for kind in ("prose", "code")
        for n in range(9)
    )
    return Corpus(documents, documents, "0")


def request(encode: Callable[[str], list[int]] = by_bytes, **changed: object) -> ProbeRequest:
    given = {
        "encode": encode,
        "sequences": 12,
        "length": 160,
        "vocab_size": 300,
        "corpus": corpus(),
        "rng": np.random.default_rng(0),
    }
    return ProbeRequest(**(given | changed))


@pytest.mark.parametrize("encode", [by_bytes, Words()], ids=["bytes", "words"])
@pytest.mark.parametrize("name", sorted(CORRUPTED))
def test_pairs_are_paired(name: str, encode: Callable[[str], list[int]]) -> None:
    pairs = corrupt(name, request(encode))
    assert pairs.tokens_A_ST.shape == pairs.tokens_B_ST.shape
    assert pairs.tokens_A_ST.shape[0] == 12
    assert (pairs.tokens_A_ST != pairs.tokens_B_ST).any(axis=1).all()
    if pairs.metric != "loss":
        assert (pairs.answer_A_SP != pairs.answer_B_SP).all()
    again = corrupt(name, request(encode))
    np.testing.assert_array_equal(again.tokens_B_ST, pairs.tokens_B_ST)


def test_the_other_block_differs_in_every_token_and_keeps_the_period() -> None:
    pairs = corrupt("induction", request(length=20))
    assert (pairs.tokens_A_ST != pairs.tokens_B_ST).all()
    for tokens in (pairs.tokens_A_ST, pairs.tokens_B_ST):
        np.testing.assert_array_equal(tokens[:, :10], tokens[:, 10:])
    rows = np.arange(12)[:, None]
    at = pairs.positions_SP
    np.testing.assert_array_equal(pairs.tokens_A_ST[rows, at + 1], pairs.answer_A_SP)
    np.testing.assert_array_equal(pairs.tokens_B_ST[rows, at + 1 - 10], pairs.answer_B_SP)


def test_the_other_query_is_all_that_differs() -> None:
    pairs = corrupt("induction.last", request(length=20))
    moved = pairs.tokens_A_ST != pairs.tokens_B_ST
    assert moved[:, -1].all()
    assert not moved[:, :-1].any()
    for tokens, answers in (
        (pairs.tokens_A_ST, pairs.answer_A_SP),
        (pairs.tokens_B_ST, pairs.answer_B_SP),
    ):
        for row, answer in zip(tokens, answers[:, 0], strict=True):
            before = np.flatnonzero(row[:-1] == row[-1])
            assert row[before[0] + 1] == answer


def test_the_partner_of_the_changed_bracket_is_asked() -> None:
    pairs = corrupt("brackets", request(length=24))
    for a, b, at, of_a, of_b in zip(
        pairs.tokens_A_ST,
        pairs.tokens_B_ST,
        pairs.positions_SP[:, 0],
        pairs.answer_A_SP[:, 0],
        pairs.answer_B_SP[:, 0],
        strict=True,
    ):
        changed = np.flatnonzero(a != b)
        assert len(changed) == 1
        closing = {ord("("): ")", ord("["): "]", ord("{"): "}"}
        assert closing[int(a[changed[0]])] == chr(of_a)
        assert closing[int(b[changed[0]])] == chr(of_b)
        inside = bytes(a[changed[0] + 1 : at + 1].tolist()).decode()
        for _ in range(4):
            inside = inside.replace("()", "").replace("[]", "").replace("{}", "")
        assert not inside


def test_the_giver_is_named_once_in_b() -> None:
    words = Words()
    pairs = corrupt("names", request(words))
    spelled = {n: word for word, n in words.known.items()}
    for a, b, of_a, of_b in zip(
        pairs.tokens_A_ST, pairs.tokens_B_ST, pairs.answer_A_SP, pairs.answer_B_SP, strict=True
    ):
        giver, receiver = spelled[of_b[0]], spelled[of_a[0]]
        texts = ["".join(spelled[n] for n in row) for row in (a, b)]
        assert [text.count(giver.strip()) for text in texts] == [2, 1]
        assert [text.count(receiver.strip()) for text in texts] == [1, 2]
    other = corrupt("names.abc", request(words))
    spelled = {n: word for word, n in words.known.items()}
    for b, of_b in zip(other.tokens_B_ST, other.answer_B_SP, strict=True):
        assert spelled[of_b[0]].strip() not in "".join(spelled[n] for n in b)


@pytest.mark.parametrize(("encode", "answers"), [(by_bytes, 10), (Words(), 100)])
def test_years_after_the_beginning_are_right(
    encode: Callable[[str], list[int]], answers: int
) -> None:
    pairs = corrupt("greater_than", request(encode))
    assert pairs.right_SV is not None
    assert pairs.wrong_SV is not None
    assert not (pairs.right_SV & pairs.wrong_SV).any()
    counts = (pairs.right_SV | pairs.wrong_SV).sum(axis=1)
    assert set(counts) == {answers - (answers == 10)}  # the same first digit is neither
    rows = np.arange(12)
    assert pairs.right_SV[rows, pairs.answer_A_SP[:, 0]].all()
    assert pairs.wrong_SV[rows, pairs.answer_B_SP[:, 0]].all()


def test_what_a_tokenizer_cannot_spell_is_refused() -> None:
    with pytest.raises(ValueError, match="for the 42 of 1742, allowed one token for two digits"):
        corrupt("greater_than", request(lambda text: [len(text)]))
    with pytest.raises(ValueError, match="sequences: got 12, 0 of 2400 problems"):
        corrupt("arithmetic", request(lambda text: [len(text)]))
    with pytest.raises(ValueError, match="length: got 4, allowed >= 6"):
        corrupt("induction", request(length=4))
    with pytest.raises(ValueError, match="length: got 40, allowed <= 10 "):
        corrupt("induction.last", request(length=40, vocab_size=5))
    with pytest.raises(ValueError, match="length: got 7, allowed >= 8"):
        corrupt("brackets", request(length=7))
    with pytest.raises(ValueError, match="probe: got 'counting', allowed"):
        corrupt("counting", request())


def test_what_stands_before_shifts_the_answers() -> None:
    pairs = corrupt("induction", request(length=8)).after((7, 8))
    assert (pairs.tokens_A_ST[:, :2] == [7, 8]).all()
    rows = np.arange(12)[:, None]
    found = pairs.tokens_A_ST[rows, pairs.positions_SP + 1]
    np.testing.assert_array_equal(found, pairs.answer_A_SP)


def test_pairs_of_other_shapes_are_refused() -> None:
    one = np.ones((2, 1), dtype=int)
    with pytest.raises(ValueError, match=r"tokens_B: got \(2, 4\), allowed \(2, 3\)"):
        Pairs(np.zeros((2, 3), int), np.ones((2, 4), int), one, one, one)
    with pytest.raises(ValueError, match="positions, answer_A, answer_B: got"):
        Pairs(np.zeros((2, 3), int), np.ones((2, 3), int), one, one[:1], one)
