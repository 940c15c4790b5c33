"""From the corpus to batches: half prose, half code, drawn by (seed, step) alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from scaleinv_ray.ladder.tokenizer import END_OF_TEXT_ID, encode_bytes
from scaleinv_ray.probes.corpus import KINDS, Corpus, Split

NUM_EVALUATED = 64  # sequences of each kind: stderr of the mean loss about 0.03 nats


@lru_cache(maxsize=4)
def token_stream(corpus: Corpus, split: Split) -> Mapping[str, np.ndarray]:
    """All documents of one side, joined by empty lines, as bytes.

    Returns:
        kind -> uint8 ids [T], without kinds that have no text there.
    """
    joined = {
        kind: "\n\n".join(d.text for d in corpus.documents(split, kind) if d.text) for kind in KINDS
    }
    return {kind: encode_bytes(text) for kind, text in joined.items() if text}


def training_batch(
    streams: Mapping[str, np.ndarray],
    *,
    batch: int,
    length: int,
    seed: int,
    step: int,
    repeated: float = 0.0,
) -> np.ndarray:
    """The windows of one step: a function of (seed, step), the same at every width.

    Row i is drawn from kind i mod (number of kinds), uniformly over its windows; the last rows are
    `repeats` of random bytes.

    Args:
        streams: kind -> ids, from `token_stream`.
        batch: rows.
        length: tokens that are predicted in a row.
        repeated: share of the rows that repeat.

    Returns:
        int64 ids [batch, length + 1].

    Raises:
        ValueError: where no kind has length + 1 tokens.
    """
    long_enough = [ids_T for ids_T in streams.values() if len(ids_T) > length]
    if not long_enough:
        got = {kind: len(ids_T) for kind, ids_T in streams.items()}
        raise ValueError(f"corpus: got {got} tokens to train on, a window needs {length + 1}")
    rng = np.random.default_rng((seed, step))
    rows = []
    from_text = batch - round(repeated * batch)
    for row in range(from_text):
        ids_T = long_enough[row % len(long_enough)]
        start = int(rng.integers(len(ids_T) - length))
        rows.append(ids_T[start : start + length + 1])
    rows += [repeats(length + 1, rng) for _ in range(batch - from_text)]
    return np.stack(rows).astype(np.int64)


def repeats(length: int, rng: np.random.Generator) -> np.ndarray:
    """Random bytes again and again, with a period of length / 8 to length / 2.

    The period is another in every row: only a model that looks for what followed the last
    occurrence, not one that looks a fixed way back, predicts them (Olsson et al. 2022).

    Returns:
        int64 ids [length].
    """
    period = int(rng.integers(max(length // 8, 1), max(length // 2, 1) + 1))
    return np.resize(rng.integers(END_OF_TEXT_ID, size=period), length)


def evaluation_set(streams: Mapping[str, np.ndarray], *, length: int) -> dict[str, np.ndarray]:
    """Fixed held-out windows, evenly spaced, the same for every run on the corpus.

    Args:
        streams: kind -> held-out ids.
        length: tokens that are predicted in a row.

    Returns:
        kind -> int64 ids [S, length + 1] with S = min(NUM_EVALUATED, windows without overlap).

    Raises:
        ValueError: where no kind has length + 1 held-out tokens.
    """
    chosen: dict[str, np.ndarray] = {}
    for kind, ids_T in streams.items():
        available = len(ids_T) // (length + 1)
        if available:
            count = min(NUM_EVALUATED, available)
            starts = np.arange(count) * (available // count) * (length + 1)
            chosen[kind] = np.stack([ids_T[s : s + length + 1] for s in starts]).astype(np.int64)
    if not chosen:
        got = {kind: len(ids_T) for kind, ids_T in streams.items()}
        raise ValueError(f"corpus: got {got} held-out tokens, a window needs {length + 1}")
    return chosen
