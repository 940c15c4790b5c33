"""The tokens of every probe in every tokenizer of a series."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
from tokenizers import Tokenizer

from scaleinv_ray import probes
from scaleinv_ray.config import RunConfig
from scaleinv_ray.plan.units import ProbeTokens, digest
from scaleinv_ray.probes.corpus import Corpus, load_corpus
from scaleinv_ray.records import Protocol
from scaleinv_ray.series import Checkpoint


def probe_tokens(
    config: RunConfig, checkpoints: Sequence[Checkpoint], protocol: Protocol
) -> dict[tuple[str, str], ProbeTokens]:
    """Builds every probe once for each tokenizer.

    Args:
        config: names the probes and the corpus.
        checkpoints: of the whole series.
        protocol: gives sequences and length.

    Returns:
        (probe, tokenizer digest) -> tokens.

    Raises:
        ValueError: where a checkpoint has no tokenizer.
    """
    first: dict[str, Checkpoint] = {}
    for c in checkpoints:
        if c.tokenizer_file is None or c.tokenizer_digest is None:
            raise ValueError(f"model {c.model}: got no tokenizer.json, needed by the probes")
        first.setdefault(c.tokenizer_digest, c)
    corpus = _corpus(config.corpus)
    found = {}
    for tokenizer_digest, checkpoint in first.items():
        tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
        vocab = min(c.vocab_size for c in checkpoints if c.tokenizer_digest == tokenizer_digest)
        special = [i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special]
        for probe in _probe_sets(config):
            name = probe.name
            tokens = probes.build_tokens(
                probe,
                partial(_encode, tokenizer),
                sequences=protocol.sequences,
                length=protocol.length,
                vocab_size=min(vocab, tokenizer.get_vocab_size()),
                special_ids=special,
                corpus=corpus,
                rng=np.random.default_rng(int(digest(name, protocol.digest())[:15], 16)),
            )
            content = hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()[:20]
            found[name, tokenizer_digest] = ProbeTokens(name, tokens, content)
    return found


def _probe_sets(config: RunConfig) -> list[probes.ProbeSet]:
    return [
        probes.find(p) if isinstance(p, str) else probes.json_lines(p.name, p.file, field=p.field)
        for p in config.probes
    ]


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=4)
def _corpus(spec: str | tuple[str, ...]) -> Corpus:
    return load_corpus(spec)
