"""Tokens that text hardly ever has."""

from __future__ import annotations

import numpy as np

from scaleinv_ray.probes.registry import ProbeRequest, probe_set

SHARE = 0.25
_PER_DOCUMENT = 1 << 12  # characters read of a document: many documents, not one long one
_IN_ALL = 1 << 21


@probe_set(needs_corpus=True)
def rare(request: ProbeRequest) -> np.ndarray:
    """Random tokens out of the quarter of the vocabulary that the corpus uses least.

    Tokens are ranked by how often they stand in the beginnings (4,096 characters) of the held-out
    documents, equals by falling id (merges that a tokenizer learned last are its rarest), and the
    last quarter of the ordinary ids is drawn from, independently and uniformly. Asked: every token;
    all positions are the answer. A model that knows the set alone pays its logarithm.

    Args:
        request: its corpus gives the counts.

    Returns:
        int64 tokens [sequences, length].

    Raises:
        ValueError: where fewer than four ordinary ids are left.
    """
    ids_V = request.ordinary_ids(least=4)
    count_V = _counts(request)[ids_V]
    order_V = np.lexsort((-ids_V, count_V))
    rarest_R = np.sort(ids_V[order_V[: int(SHARE * len(ids_V))]])
    return request.rng.choice(rarest_R, size=(request.sequences, request.length))


def _counts(request: ProbeRequest) -> np.ndarray:
    """How often each id stands in the held-out text that is looked at."""
    assert request.corpus is not None  # build_tokens refuses
    count_V = np.zeros(request.vocab_size, dtype=np.int64)
    read = 0
    for document in request.corpus.held_out:
        text = document.text[:_PER_DOCUMENT]
        ids = np.asarray(request.encode(text), dtype=np.int64)
        count_V += np.bincount(ids[ids < request.vocab_size], minlength=request.vocab_size)
        read += len(text)
        if read >= _IN_ALL:
            break
    return count_V
