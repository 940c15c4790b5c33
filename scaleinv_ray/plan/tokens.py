"""The tokens of every probe in every tokenizer of a series."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numpy as np

from scaleinv_ray import probes
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.config import RunConfig
from scaleinv_ray.plan.tokenizer import bytes_per_token, encode, names_of, read_tokenizer
from scaleinv_ray.plan.units import ProbeTokens, digest
from scaleinv_ray.probes.corpus import Corpus, load_corpus
from scaleinv_ray.records import Protocol

GIVEN = "tokens"
"""Name of the probe that a user's token ids are."""


def tokenizers_of(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """The tokenizers of a series by the digests of their files; equal names make equal tokens.

    Returns:
        Digest of tokenizer.json -> name of the tokenizer.
    """
    return names_of({
        c.tokenizer_digest: c.tokenizer_file
        for c in checkpoints
        if c.tokenizer_file is not None and c.tokenizer_digest is not None
    })


def probe_tokens(
    config: RunConfig,
    checkpoints: Sequence[Checkpoint],
    protocol: Protocol,
    *,
    named: Mapping[str, str],
) -> dict[tuple[str, str], ProbeTokens]:
    """Builds every probe once for each tokenizer; with several of them, counts their bytes too.

    Args:
        config: names the probes and the corpus.
        named: of `tokenizers_of`.

    Returns:
        (probe, tokenizer digest) -> tokens.

    Raises:
        ValueError: where a checkpoint has no tokenizer, or one that cannot be read.
    """
    first: dict[str, Checkpoint] = {}
    for c in checkpoints:
        if c.tokenizer_file is None or c.tokenizer_digest is None:
            raise ValueError(
                f"model {c.model}: got no tokenizer.json in {c.where}, needed by the probes"
            )
        first.setdefault(c.tokenizer_digest, c)
    corpus = _corpus(config.corpus)
    several = len({named[digest] for digest in first}) > 1
    found = {}
    for tokenizer_digest, checkpoint in first.items():
        vocab = min(c.vocab_size for c in checkpoints if c.tokenizer_digest == tokenizer_digest)
        for probe in _probe_sets(config):
            tokens = _tokens(probe, checkpoint, protocol, corpus, vocab=vocab, count=several)
            found[probe.name, tokenizer_digest] = tokens
    return found


def given_tokens(
    tokens_ST: np.ndarray, checkpoints: Sequence[Checkpoint], protocol: Protocol
) -> dict[tuple[str, str], ProbeTokens]:
    """Token ids that a user has, as the only probe.

    Args:
        tokens_ST: ids, of the protocol's shape.
        checkpoints: that are to read them.

    Returns:
        As `probe_tokens`, of a probe named `tokens`.

    Raises:
        ValueError: for another shape, and for ids that a checkpoint has not.
    """
    shape = protocol.sequences, protocol.length
    if tokens_ST.shape != shape or not np.issubdtype(tokens_ST.dtype, np.integer):
        raise ValueError(
            f"tokens: got {tokens_ST.dtype} of shape {tokens_ST.shape}, allowed: whole numbers, "
            f"{shape} (sequences, length)"
        )
    vocab = min((c.vocab_size for c in checkpoints), default=None)
    if vocab is not None and not 0 <= tokens_ST.min() <= tokens_ST.max() < vocab:
        raise ValueError(
            f"tokens: got ids {tokens_ST.min()}..{tokens_ST.max()}, allowed 0..{vocab - 1} "
            "(vocabulary of the model)"
        )
    ids_ST = np.ascontiguousarray(tokens_ST, dtype=np.int32)
    content = hashlib.sha256(ids_ST.tobytes()).hexdigest()[:20]
    found = ProbeTokens(GIVEN, ids_ST, content)
    return {(GIVEN, c.tokenizer_digest or ""): found for c in checkpoints}


def _tokens(
    probe: probes.ProbeSet,
    checkpoint: Checkpoint,
    protocol: Protocol,
    corpus: Corpus,
    *,
    vocab: int,
    count: bool,
) -> ProbeTokens:
    file, known = checkpoint.tokenizer_file, checkpoint.tokenizer_digest
    assert file is not None and known is not None
    tokenizer = read_tokenizer(file, known)
    added = tokenizer.get_added_tokens_decoder().items()
    seed = int(digest(probe.name, protocol.digest())[:15], 16)

    def request() -> probes.ProbeRequest:
        return probes.ProbeRequest(
            encode=partial(encode, tokenizer, file),
            sequences=protocol.sequences,
            length=protocol.length,
            vocab_size=min(vocab, tokenizer.get_vocab_size()),
            corpus=corpus,
            rng=np.random.default_rng(seed),
            special_ids=frozenset(i for i, token in added if token.special),
        )

    try:
        tokens_ST = probes.build_tokens(probe, **vars(request()))
    except ValueError as error:
        if str(error).startswith(("token ids:", "tokenizer:", "vocab_size:")):
            raise ValueError(f"{file}: probe {probe.name}: {error}") from error
        raise
    content = hashlib.sha256(np.ascontiguousarray(tokens_ST).tobytes()).hexdigest()[:20]
    per_token = bytes_per_token(tokenizer, file, probe, request(), tokens_ST) if count else None
    return ProbeTokens(probe.name, tokens_ST, content, per_token)


def _probe_sets(config: RunConfig) -> list[probes.ProbeSet]:
    return [
        probes.find(p) if isinstance(p, str) else probes.json_lines(p.name, p.file, field=p.field)
        for p in config.probes
    ]


@lru_cache(maxsize=4)
def _corpus(spec: str | tuple[str, ...]) -> Corpus:
    return load_corpus(spec)
