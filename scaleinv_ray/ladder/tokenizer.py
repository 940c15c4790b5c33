"""Byte-level tokenizer: token id = byte, and one end-of-text token."""

from __future__ import annotations

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 256
VOCAB_SIZE = 257


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """An ordinary fast tokenizer without merges: one token a byte of the UTF-8 text.

    Returns:
        A tokenizer of `VOCAB_SIZE` tokens; ids 0..255 are the bytes, 256 is `<|endoftext|>`.
        Decoding is exact for every text.
    """
    vocab = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def encode_bytes(text: str) -> np.ndarray:
    """What `byte_tokenizer` makes of a text without special tokens, in one copy.

    Args:
        text: any text that UTF-8 can hold.

    Returns:
        uint8 ids [T], T the number of bytes.

    >>> encode_bytes("aé").tolist()
    [97, 195, 169]
    """
    return np.frombuffer(text.encode(), dtype=np.uint8)
