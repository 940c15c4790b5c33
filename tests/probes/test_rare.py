"""Rare tokens and the shuffled control."""

from pathlib import Path

import numpy as np
import pytest

from scaleinv_ray.probes import build_tokens, load_corpus
from scaleinv_ray.probes.corpus import Corpus


@pytest.fixture
def corpus(texts: Path) -> Corpus:
    return load_corpus(texts, held_out_fraction=0.5)


def build(name: str, corpus: Corpus, **changes: object) -> np.ndarray:
    arguments: dict = {"sequences": 8, "length": 64, "vocab_size": 128} | changes
    return build_tokens(
        name, lambda text: list(text.encode()), corpus=corpus, rng=np.random.default_rng(0),
        **arguments,
    )  # fmt: skip


def test_rare_tokens_are_those_that_text_lacks(corpus: Corpus) -> None:
    rows = build("rare", corpus, special_ids=(127,))
    held_out = "".join(d.text for d in corpus.held_out).encode()
    assert not set(rows.ravel().tolist()) & set(held_out)
    assert len(np.unique(rows)) == 127 // 4  # a quarter of the ordinary ids, all of them drawn
    assert 127 not in rows


def test_rarity_counts_where_every_token_is_used(corpus: Corpus) -> None:
    # ids modulo 8: all are used, the least used two are drawn
    def encode(text: str) -> list[int]:
        return [b % 8 for b in text.encode()]

    count = np.bincount([i for d in corpus.held_out for i in encode(d.text[:4096])], minlength=8)
    rows = build_tokens(
        "rare", encode, sequences=4, length=16, vocab_size=8, corpus=corpus,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert set(rows.ravel().tolist()) == set(np.argsort(count)[:2].tolist())


def test_too_small_a_vocabulary_has_no_rare_tokens(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="vocab_size: got 4 with 3 ordinary ids, allowed >= 4"):
        build_tokens(
            "rare", lambda text: [0], sequences=1, length=4, vocab_size=4, corpus=corpus,
            rng=np.random.default_rng(0), special_ids=(3,),
        )  # fmt: skip


def test_shuffled_is_prose_in_another_order(corpus: Corpus) -> None:
    prose, shuffled = build("prose", corpus), build("shuffled", corpus)
    np.testing.assert_array_equal(np.sort(prose, axis=1), np.sort(shuffled, axis=1))
    assert (prose != shuffled).mean() > 0.5
