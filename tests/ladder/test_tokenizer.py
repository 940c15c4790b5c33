from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from scaleinv_ray.ladder.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    VOCAB_SIZE,
    byte_tokenizer,
    encode_bytes,
)

TOKENIZER = byte_tokenizer()


@settings(deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_are_the_bytes_and_decoding_is_exact(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    if END_OF_TEXT not in text:
        assert ids == encode_bytes(text).tolist()


@pytest.mark.parametrize("text", ["", " a  b ,  n't .", "\r\n\t\0", "é€😀", "x" + END_OF_TEXT])
def test_round_trip_after_saving(text: str, tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == VOCAB_SIZE
    assert loaded.eos_token_id == END_OF_TEXT_ID
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text


def test_end_of_text_is_one_token() -> None:
    assert TOKENIZER.encode(END_OF_TEXT) == [END_OF_TEXT_ID]
    assert TOKENIZER.all_special_ids == [END_OF_TEXT_ID]
