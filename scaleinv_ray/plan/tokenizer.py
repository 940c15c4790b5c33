"""Tokenizers of models: read from their files, told apart, and with the bytes of their tokens.

Shape suffixes: S sequences, T tokens of a sequence, N tokens of a text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import Tokenizer

from scaleinv_ray.inputs.json_files import check_is_there
from scaleinv_ray.inputs.wording import listed, shown
from scaleinv_ray.probes import ProbeRequest, ProbeSet

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SHIFT = 32
"""Ids take the bits below, the bytes that a token covers those above."""


class Around(NamedTuple):
    """Ids of the special tokens of a sequence: those before its text, and those behind it."""

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens in all."""
        return len(self.before) + len(self.behind)


class PerToken(NamedTuple):
    """Bytes of text that a predicted token covers: the mean, and its error over sequences."""

    mean: float
    stderr: float


@lru_cache(maxsize=8)
def read_tokenizer(file: Path, digest: str) -> Tokenizer:
    """The tokenizer of a file, without what would change the tokens of a text.

    Truncation, padding and the dropout of merges are settings of training that a file keeps when it
    is saved after them: they are switched off. Everything else is the model's own.

    Args:
        digest: sha256 of the file, as planned.

    Returns:
        The tokenizer; it is shared, and not to be changed.

    Raises:
        ValueError: in one line that names the file, where it has changed, or holds no tokenizer
            that the installed library can read.
    """
    check_is_there(file)
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file}: changed since it was planned; plan anew")
    try:
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 at byte {error.start}, allowed: JSON") from error
    except BaseException as error:  # its Rust raises Exception itself, and panics beside it
        if not _is_of_library(error):
            raise
        said = " ".join(str(error).split())[:120] or "empty"
        raise ValueError(
            f"{file}: got no tokenizer that tokenizers {tokenizers.__version__} can read "
            f"({said}); a file of a newer library needs that library"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None
    return tokenizer


def _is_of_library(error: BaseException) -> bool:
    return type(error) is Exception or type(error).__name__ == "PanicException"


def encode(tokenizer: Tokenizer, file: Path, text: str) -> list[int]:
    """Ids of a text without special tokens.

    Args:
        tokenizer: of `read_tokenizer`.
        file: where it is from, for the error.

    Raises:
        ValueError: naming the file, where the text has what the vocabulary cannot spell.
    """
    return _encoding(tokenizer, file, text).ids


def _encoding(tokenizer: Tokenizer, file: Path, text: str) -> tokenizers.Encoding:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except BaseException as error:
        if not _is_of_library(error):
            raise
        said = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{file}: cannot encode {text[:20]!r} ({said}); allowed: texts of its alphabet"
        ) from error


@dataclass
class Spelling:
    """Makes ids of texts, and counts the letters that are in no token.

    Byte pairs without a token for the unknown leave out what they cannot spell, and say nothing.
    """

    tokenizer: Tokenizer
    file: Path
    letters: int = 0
    left_out: int = 0

    def encode(self, text: str) -> list[int]:
        """As `encode`; spaces are no letters."""
        found = _encoding(self.tokenizer, self.file, text)
        ends_N = np.array(found.offsets, dtype=int).reshape(-1, 2)
        edges = np.zeros(len(text) + 1, dtype=int)
        np.add.at(edges, ends_N[:, 0], 1)
        np.add.at(edges, ends_N[:, 1], -1)
        spaces = [ord(c) for c in {*text} if c.isspace()]
        is_letter = ~np.isin(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), spaces)
        self.letters += int(is_letter.sum())
        self.left_out += int((is_letter & (edges.cumsum()[:-1] == 0)).sum())
        return found.ids


def around(
    tokenizer: Tokenizer,
    file: Path,
    asked: str | Sequence[str],
    bos: str | int | None,
    *,
    encoder: bool = False,
) -> Around:
    """Ids that stand before a text, once a sequence, and behind it.

    Args:
        asked: 'none'; 'auto' for what the tokenizer puts there itself, by its post-processor or
            else by its settings; or names of tokens that stand before it.
        bos: what its settings put there.
        encoder: of a model that sees what stands behind a text, and so is given it; another one is
            cut, not ended.

    Returns:
        The ids, in order.

    Raises:
        ValueError: naming the file, for a token that the vocabulary does not have.
    """
    if asked == "none":
        return Around()
    if asked != "auto":
        return Around(tuple(_id_of(tokenizer, file, name) for name in asked))
    own = _own_around(tokenizer, file)
    if not encoder:
        own = own._replace(behind=())
    if own.before or bos is None:
        return own
    first = bos if isinstance(bos, int) else tokenizer.token_to_id(bos)
    if first is None:
        raise ValueError(
            f"{file}: bos_token: got {shown(bos, 40)}, asked for by add_bos_token of its settings, "
            "no token of it; allowed: special_tokens: none, or a list of its tokens"
        )
    return own._replace(before=(first,))


def _own_around(tokenizer: Tokenizer, file: Path) -> Around:
    """What the post-processor puts around a text that is not empty."""
    if tokenizer.post_processor is None:
        return Around()
    by_id = sorted(tokenizer.get_vocab(with_added_tokens=False).values())
    texts = ("a", "A", *(tokenizer.decode([i]) for i in by_id))
    text = next((t for t in texts if t.strip() and _spells(tokenizer, file, t)), None)
    if text is None:
        return Around()
    found = tokenizer.encode(text)
    own = [i for i, added in enumerate(found.special_tokens_mask) if not added]
    first, last = (own[0], own[-1]) if own else (0, len(found.ids))
    return Around(tuple(found.ids[:first]), tuple(found.ids[last + 1 :]))


def _spells(tokenizer: Tokenizer, file: Path, text: str) -> bool:
    try:
        return bool(encode(tokenizer, file, text))
    except ValueError:  # a vocabulary without a word for what it lacks
        return False


def _id_of(tokenizer: Tokenizer, file: Path, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        special = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        raise ValueError(
            f"special_tokens: got {shown(name, 40)}, {file} has {listed(special, name)}"
        )
    return int(found)


def unknown_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that stand for what the vocabulary cannot spell."""
    model = json.loads(tokenizer.to_str())["model"]
    named = model.get("unk_token")
    ids = [model.get("unk_id"), None if named is None else tokenizer.token_to_id(named)]
    return [i for i in ids if i is not None]


def names_of(files: dict[str, Path]) -> dict[str, str]:
    """Which files hold the same tokenizer: one name for each, by what makes tokens of text.

    Files of one family differ in layout, truncation or a template of chats, and make the same
    tokens: vocabulary, merges, normalizer, splitting and added tokens decide.

    Args:
        files: digest -> tokenizer.json.

    Returns:
        Digest -> name, twelve hex digits. A file that cannot be read is one of its own.
    """
    names = {digest: digest[:12] for digest in files}
    if len(files) < 2:
        return names
    for digest, file in files.items():
        with contextlib.suppress(ValueError):  # it is refused where it is needed
            names[digest] = _identity(read_tokenizer(file, digest))
    return names


def _identity(tokenizer: Tokenizer) -> str:
    whole = json.loads(tokenizer.to_str())
    told = {key: whole[key] for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def bytes_per_token(
    tokenizer: Tokenizer,
    file: Path,
    probe: ProbeSet,
    request: ProbeRequest,
    tokens_ST: np.ndarray,
    *,
    before: int = 0,
    behind: int = 0,
) -> PerToken | None:
    """Bytes of text that the predicted tokens of a probe cover, a token.

    The first token of a sequence is not predicted, so neither are its bytes; a sequence may begin
    and end within a word, even within a character. The probe is made once more of ids that carry
    the bytes of their token: whatever it does to tokens it does to them.

    Args:
        tokenizer: of `read_tokenizer`.
        request: with which its tokens were made; its generator in the state of then.
        tokens_ST: those tokens.
        before: tokens without text that stand before them and are predicted but for the first.
        behind: those that stand behind them.

    Returns:
        Mean over sequences and its standard error; None where tokens stand for no text: drawn from
        the vocabulary, or unknown words of it.
    """
    heavy = ProbeRequest(**vars(request) | {"encode": partial(_with_bytes, _bare(tokenizer), file)})
    marked_ST = probe.function(heavy)
    bytes_ST = marked_ST >> _SHIFT
    same = np.array_equal(marked_ST & ((1 << _SHIFT) - 1), tokens_ST)
    if (
        not same
        or np.isin(tokens_ST, unknown_ids(tokenizer)).any()
        or not bytes_ST.any(axis=1).all()
    ):
        return None
    per_S = np.pad(bytes_ST, ((0, 0), (before, behind)))[:, 1:].mean(axis=1)
    error = float(per_S.std(ddof=1) / np.sqrt(len(per_S))) if len(per_S) > 1 else 0.0
    return PerToken(float(per_S.mean()), error)


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """A copy without the step that trims spaces off the places of tokens; the ids are the same."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.post_processor = None
    return copy


def _with_bytes(tokenizer: Tokenizer, file: Path, text: str) -> list[int]:
    """Ids of a text, each with the bytes that its token covers in the bits above the 32nd."""
    found = _encoding(tokenizer, file, text)
    bytes_N = token_bytes(text, found.tokens, found.offsets)
    return [i | (size << _SHIFT) for i, size in zip(found.ids, bytes_N, strict=True)]


def token_bytes(text: str, tokens: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Bytes of the text in UTF-8 that each token covers; together those up to the last one's end.

    What no token names (spaces that a tokenizer drops) counts for the token after it. A character
    of several tokens is divided as their own spelling says: a byte a symbol where the vocabulary
    spells bytes, a byte a token where it falls back to them; otherwise it counts for the last.

    Args:
        tokens: as the vocabulary spells them.
        offsets: of each the characters from, to.

    Returns:
        Bytes by token.

    >>> token_bytes("aé b", ["a", "\u00c3", "\u00a9", "\u0120b"], [(0, 1), (1, 2), (1, 2), (2, 4)])
    [1, 1, 1, 2]
    """
    ends = np.concatenate([[0], np.cumsum([len(c.encode()) for c in text])]).astype(int).tolist()
    sizes: list[int] = []
    done = 0
    group: list[str] = []
    for i, (token, (_, stop)) in enumerate(zip(tokens, offsets, strict=True)):
        group.append(token)
        if i + 1 < len(tokens) and offsets[i + 1][0] < stop:
            continue  # the next one shares a character
        whole = max(ends[stop] - done, 0)
        sizes += _divided(group, whole)
        done += whole
        group = []
    return sizes


def _divided(group: Sequence[str], whole: int) -> list[int]:
    spelled = [1 if _BYTE.fullmatch(token) else len(token) for token in group]
    if len(group) > 1 and sum(spelled) == whole:
        return spelled
    return [0] * (len(group) - 1) + [whole]
