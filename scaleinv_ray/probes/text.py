"""Held-out text of the corpus: prose, code, and prose in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scaleinv_ray.probes.corpus import Document, Kind
from scaleinv_ray.probes.registry import ProbeRequest, TooFewError, probe_set

_PIECE = 1 << 16  # characters tokenised at once: a huge file is read no further than needed
JOIN = "\n\n"
"""Stands between packed documents."""


@probe_set(needs_corpus=True, layout="packed")
def prose(request: ProbeRequest) -> np.ndarray:
    """Held-out prose: documentation strings and help topics, or the user's texts.

    Args:
        request: vocab_size and special_ids are not read.

    Returns:
        int64 tokens [sequences, length].
    """
    return _held_out(request, "prose")


@probe_set(needs_corpus=True, layout="packed")
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
        TooFewError: where they have too few tokens.
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
    most = got // request.length
    raise TooFewError(
        f"sequences: got {got} tokens of {what}, {request.sequences} sequences of "
        f"{request.length} tokens need {needed}; allowed up to {most} (protocol.sequences), a "
        "smaller protocol.length, or more text (corpus: [folder], or the probe's own file)",
        allowed=most,
    )


def _pieces(text: str) -> Iterator[str]:
    """The document in pieces cut behind line ends, the last one closed by an empty line."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        yield text[start:end]
        start = end
    if text:
        yield text[start:] + JOIN


def apart(request: ProbeRequest, documents: Sequence[Document], *, what: str) -> np.ndarray:
    """One document a sequence, in random order, from its beginning and cut at `length`.

    Shorter documents are left out, which is said.

    Args:
        request: vocab_size and special_ids are not read.
        documents: all are tokenised, as far as it takes.
        what: they are, for the error.

    Returns:
        int64 tokens [sequences, length].
    """
    rows = []
    for index in request.rng.permutation(len(documents)):
        ids = _begun(request, documents[index].text)
        if len(ids) == request.length:
            rows.append(ids)
    enough(request, len(rows), len(documents), what=what)
    return np.array(rows[: request.sequences], dtype=np.int64)


def _begun(request: ProbeRequest, text: str) -> list[int]:
    """The first tokens of a text; where it is long, of its beginning."""
    size = 64 * request.length
    while size < len(text):
        # what is cut off may change the last tokens of the rest, not those a factor of two before
        if len(ids := request.encode(text[:size])) >= 2 * request.length:
            return ids[: request.length]
        size *= 4
    return request.encode(text)[: request.length]


def enough(request: ProbeRequest, long: int, known: int, *, what: str) -> None:
    """Says how many documents are long enough.

    Args:
        long: how many of the `known` documents have `length` tokens.

    Raises:
        TooFewError: where fewer are long enough than sequences are wanted.
    """
    line = f"{long} of {known} {what} have {request.length} tokens or more"
    if long < request.sequences:
        fewer = f"up to {long} sequences, or " if long > 1 else ""
        raise TooFewError(
            f"sequences: got {request.sequences}, {line}; allowed: {fewer}a smaller "
            "protocol.length, or more of them",
            allowed=long,
        )
    request.said.append(f"{line}, {request.sequences} of them are read")
