from pathlib import Path

import numpy as np
import pytest

from scaleinv_ray.probes import PROBES, build_tokens, find
from scaleinv_ray.probes.corpus import Corpus, load_corpus


def encode(text: str) -> list[int]:
    return list(text.encode())


def tokens(name: str, corpus: Corpus | None, seed: int = 0, **changes: object) -> np.ndarray:
    arguments = {"sequences": 4, "length": 32, "vocab_size": 257} | changes
    rng = np.random.default_rng(seed)
    return build_tokens(name, encode, corpus=corpus, rng=rng, **arguments)  # type: ignore


@pytest.mark.parametrize("name", sorted(PROBES))
def test_every_probe_gives_the_asked_tokens_again(name: str, texts: Path) -> None:
    corpus = load_corpus(texts, held_out_fraction=0.5)
    first = tokens(name, corpus)
    assert first.shape == (4, 32)
    assert first.dtype == np.int32
    np.testing.assert_array_equal(first, tokens(name, corpus))
    assert not np.array_equal(first, tokens(name, corpus, seed=1))
    assert PROBES[name].description


@pytest.mark.parametrize("length", [2, 7, 32])
def test_induction_repeats_and_is_random_before(length: int) -> None:
    rows = tokens("induction", None, length=length, sequences=200, special_ids=(256,))
    period = (length + 1) // 2
    np.testing.assert_array_equal(rows[:, period:], rows[:, : length - period])
    assert 256 not in rows
    assert len(np.unique(rows[:, 0])) > 100  # 200 uniform draws of 256 ids: 139 +- 5 expected


def test_induction_without_ordinary_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size: got 3 with 1 ordinary ids"):
        tokens("induction", None, vocab_size=3, special_ids=(0, 1))


@pytest.mark.parametrize(("name", "mark"), [("prose", b"note"), ("code", b"value_")])
def test_text_probes_read_held_out_text_of_their_kind(name: str, mark: bytes, texts: Path) -> None:
    corpus = load_corpus(texts)
    flat = bytes(tokens(name, corpus).ravel().tolist())
    assert mark in flat
    assert any(flat.startswith(d.text.encode()[:128]) for d in corpus.documents("held_out", name))  # type: ignore
    assert not any(flat.startswith(d.text.encode()[:128]) for d in corpus.train)


def test_only_needed_text_is_tokenised(texts: Path) -> None:
    seen: list[str] = []

    def counting(text: str) -> list[int]:
        seen.append(text)
        return list(text.encode())

    for name in ("large0.txt", "large1.txt"):
        (texts / name).write_text("a line of text\n" * 40_000)
    corpus = load_corpus([texts / "large0.txt", texts / "large1.txt"])
    rng = np.random.default_rng(0)
    rows = build_tokens(
        "prose", counting, sequences=2, length=64, vocab_size=256, corpus=corpus, rng=rng
    )
    assert len(seen) == 1
    assert len(seen[0]) < 70_000
    assert rows.size == 128


def test_too_few_tokens_are_refused_with_both_numbers(texts: Path) -> None:
    corpus = load_corpus(texts)
    got = sum(len(d.text) + 2 for d in corpus.documents("held_out", "prose"))
    with pytest.raises(ValueError, match=rf"got {got} tokens of held-out prose.* need 32000"):
        tokens("prose", corpus, sequences=1000)


def test_refusals(texts: Path) -> None:
    with pytest.raises(ValueError, match="probe: got 'inducton'.*nearest is 'induction'"):
        find("inducton")
    with pytest.raises(ValueError, match="corpus: got None, probe 'prose'"):
        tokens("prose", None)
    with pytest.raises(ValueError, match="sequences: got 0"):
        tokens("induction", None, sequences=0)
    with pytest.raises(ValueError, match="length: got 1"):
        tokens("induction", None, length=1)
    with pytest.raises(ValueError, match=r"token ids: got .*allowed 0\.\.9"):
        tokens("prose", load_corpus(texts), vocab_size=10)
