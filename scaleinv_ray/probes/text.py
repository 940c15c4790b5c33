"""Held-out text of the corpus: prose, code, and prose in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scaleinv_ray.probes.corpus import Document, Kind
from scaleinv_ray.probes.registry import ProbeRequest, probe_set

_PIECE = 1 << 16  # characters tokenised at once: a huge file is read no further than needed


@probe_set(needs_corpus=True)
def prose(request: ProbeRequest) -> np.ndarray:
    """Held-out prose: documentation strings and help topics, or the user's texts.

    Args:
        request: vocab_size and special_ids are not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _held_out(request, "prose")


@probe_set(needs_corpus=True)
def code(request: ProbeRequest) -> np.ndarray:
    """Held-out source code.

    Args:
        request: vocab_size and special_ids are not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _held_out(request, "code")


@probe_set(needs_corpus=True)
def shuffled(request: ProbeRequest) -> np.ndarray:
    """Held-out prose with the tokens of every sequence in random order: a control.

    The tokens are those of prose, what comes before says nothing of what comes next but which
    tokens are about. Asked: every token; all positions are the answer.

    Args:
        request: vocab_size and special_ids are not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return request.rng.permuted(_held_out(request, "prose"), axis=1)


def _held_out(request: ProbeRequest, kind: Kind) -> np.ndarray:
    assert request.corpus is not None  # build_tokens refuses
    return packed(request, request.corpus.documents("held_out", kind), what=f"held-out {kind}")


def packed(request: ProbeRequest, documents: Sequence[Document], *, what: str) -> np.ndarray:
    """Consecutive sequences of documents in random order.

    Args:
        request: vocab_size and special_ids are not read.
        documents: read until there are tokens enough.
        what: they are, for the error.

    Returns:
        int64 tokens [sequences, length].

    Raises:
        ValueError: where they have too few tokens.
    """
    # Sequences of one document stay neighbours: replicates are blocks of consecutive sequences,
    # and what is correlated has to lie within a block.
    needed = request.sequences * request.length
    parts: list[np.ndarray] = []
    got = 0
    for index in request.rng.permutation(len(documents)):
        for piece in _pieces(documents[index].text):
            parts.append(np.asarray(request.encode(piece), dtype=np.int64))
            got += len(parts[-1])
            if got >= needed:
                return np.concatenate(parts)[:needed].reshape(request.sequences, request.length)
    raise ValueError(
        f"sequences: got {got} tokens of {what}, {request.sequences} sequences of "
        f"{request.length} tokens need {needed}; allowed up to {got // request.length} sequences"
    )


def _pieces(text: str) -> Iterator[str]:
    """The document in pieces cut behind line ends, the last one closed by an empty line."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        yield text[start:end]
        start = end
    if text:
        yield text[start:] + "\n\n"
