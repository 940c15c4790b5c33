"""The tokens of every probe in every tokenizer of a series."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from scaleinv_ray import probes
from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.checkpoints.files.roles import NORMED_AFTER
from scaleinv_ray.config import RunConfig
from scaleinv_ray.config.fields import probes_in_pairs
from scaleinv_ray.config.sources import ProbeFile, ProbeTokenFile
from scaleinv_ray.inputs.wording import clipped
from scaleinv_ray.kinds import digest_for
from scaleinv_ray.plan.tokenizer import (
    Around,
    Spelling,
    around,
    bytes_per_token,
    encode,
    names_of,
    read_tokenizer,
    unknown_ids,
)
from scaleinv_ray.plan.units import ProbeTokens, digest
from scaleinv_ray.probes import ProbeRequest, ProbeSet
from scaleinv_ray.probes.corpus import Corpus, load_corpus
from scaleinv_ray.probes.corrupted import Pairs, corrupt
from scaleinv_ray.probes.text import JOIN
from scaleinv_ray.records import Protocol

MOST_UNKNOWN = 1e-3
"""Share of a probe that the vocabulary may fail to spell."""


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


def num_around(config: RunConfig, checkpoints: Sequence[Checkpoint]) -> int:
    """Most tokens that stand around a text, and that the length of sequences does not count."""
    if config.measure_special_tokens:
        return 0
    first = {c.tokenization: c for c in checkpoints}.values()
    read = [(c, c.tokenizer_file, c.tokenizer_digest) for c in first]
    of = [
        _around(config, c, read_tokenizer(file, known), file)
        for c, file, known in read
        if file is not None and known is not None
    ]
    return max((special.size for special in of), default=0)


def _around(config: RunConfig, c: Checkpoint, tokenizer: Tokenizer, file: Path) -> Around:
    return around(tokenizer, file, config.special_tokens, c.bos, encoder=c.encoder)


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
        (probe, `tokenization` of checkpoints) -> tokens.

    Raises:
        ValueError: where a checkpoint has no tokenizer, or one that cannot be read; where a text is
            not of its alphabet, or is too long for a model with what stands before it.
    """
    groups: dict[str, list[Checkpoint]] = defaultdict(list)
    for c in checkpoints:
        groups[c.tokenization].append(c)
    corpus = _corpus(config.corpus)
    several = len({named[c.tokenizer_digest] for c in checkpoints if c.tokenizer_digest}) > 1
    return {
        (probe.name, made): _made(_Making(config, protocol, probe, group, corpus), count=several)
        for made, group in groups.items()
        for probe in _probe_sets(config)
    }


@dataclass(frozen=True)
class _Making:
    """A probe for checkpoints that tokenize alike."""

    config: RunConfig
    protocol: Protocol
    probe: ProbeSet
    checkpoints: Sequence[Checkpoint]
    corpus: Corpus
    said: list[str] = field(default_factory=list)

    def request(self, length: int, read: tuple[Tokenizer, Path] | None) -> ProbeRequest:
        """What the probe is asked for; each time its generator begins anew.

        Args:
            read: the tokenizer and its file, None where ids are given.
        """
        self.said.clear()
        rows = min(c.vocab_size for c in self.checkpoints)
        seed = int(digest(self.probe.name, digest_for(self.protocol))[:15], 16)
        given = ProbeRequest(
            encode=lambda text: [],
            sequences=self.protocol.sequences,
            length=length,
            vocab_size=rows,
            corpus=self.corpus,
            rng=np.random.default_rng(seed),
            said=self.said,
        )
        if read is None:
            return given
        tokenizer, file = read
        added = tokenizer.get_added_tokens_decoder().items()
        special = {i for i, token in added if token.special} | {*unknown_ids(tokenizer)}
        return replace(
            given,
            encode=partial(encode, tokenizer, file),
            vocab_size=min(rows, tokenizer.get_vocab_size()),
            special_ids=frozenset(special),
        )

    def check_room(self, special: Around, measured: int) -> None:
        """Refuses models that lack a token around the text, or positions for all of it."""
        highest = max((*special.before, *special.behind), default=0)
        length, where = self.protocol.length, "around" if special.behind else "before"
        for c in self.checkpoints:
            if highest >= c.vocab_size:
                raise ValueError(
                    f"special_tokens: got token {highest} {where} a text, model {c.model} has "
                    f"tokens 0..{c.vocab_size - 1}; allowed: special_tokens: none"
                )
            most = None if c.max_positions is None else c.max_positions - special.size + measured
            if special.size and most is not None and length > most:
                room = f"1..{most}, or " if most > 1 else ""
                raise ValueError(
                    f"protocol.length: got {length} with {special.size} special tokens {where} "
                    f"it, model {c.model} has {c.max_positions} positions; allowed: {room}"
                    "special_tokens: none"
                )
        if measured >= length:
            raise ValueError(
                f"protocol.length: got {length}, all of it special tokens, allowed "
                f"{measured + 1}.. (measure_special_tokens)"
            )


def _made(making: _Making, *, count: bool) -> ProbeTokens:
    """The tokens of a probe, what stands before them, and how much text they cover."""
    probe, c = making.probe, making.checkpoints[0]
    if probe.of_ids:
        text_ST = _built(probe, making.request(making.protocol.length, None), probe.description)
        return _begun(making, text_ST, Around())
    if c.tokenizer_file is None or c.tokenizer_digest is None:
        raise ValueError(
            f"model {c.model}: got no tokenizer.json in {clipped(c.where, 90)}, needed by the "
            "probes; allowed without: probes of token ids ({name: .., tokens: ids.npy}), or "
            "invariants of weights alone"
        )
    file, tokenizer = c.tokenizer_file, read_tokenizer(c.tokenizer_file, c.tokenizer_digest)
    special = _around(making.config, c, tokenizer, file)
    before, behind = map(len, special) if making.config.measure_special_tokens else (0, 0)
    measured = before + behind
    making.check_room(special, measured)
    ask = partial(making.request, making.protocol.length - measured, (tokenizer, file))
    spelling = Spelling(tokenizer, file)
    text_ST = _built(probe, replace(ask(), encode=spelling.encode), file)
    _check_spelled(spelling, probe, text_ST)
    found = _begun(making, text_ST, special)
    if not count:
        return found
    covered = bytes_per_token(tokenizer, file, probe, ask(), text_ST, before=before, behind=behind)
    return replace(found, bytes_per_token=covered)


def _built(probe: ProbeSet, request: ProbeRequest, where: object) -> np.ndarray:
    try:
        return probes.build_tokens(probe, **vars(request))
    except ValueError as error:
        if str(error).startswith(("token ids:", "tokenizer:", "vocab_size:")):
            raise ValueError(f"{where}: probe {probe.name}: {error}") from error
        raise


def _begun(making: _Making, text_ST: np.ndarray, special: Around) -> ProbeTokens:
    """The text with what stands around it; without that its digest is that of the text."""
    before, behind = (
        np.tile(np.array(ids, dtype=text_ST.dtype), (len(text_ST), 1)) for ids in special
    )
    tokens_ST = np.concatenate([before, text_ST, behind], axis=1)
    content = hashlib.sha256(np.ascontiguousarray(tokens_ST).tobytes()).hexdigest()[:20]
    measured, (first, last) = making.config.measure_special_tokens, map(len, special)
    counts = (first, 0 if measured else first, *((last, measured) if last else ()))
    return ProbeTokens(
        making.probe.name,
        tokens_ST,
        digest(content, *counts) if special.size else content,
        around=(first, last),
        measured=measured,
        known_text=making.probe.layout is not None,
        of_ids=making.probe.of_ids,
        said=tuple(making.said),
    )


def _check_spelled(spelling: Spelling, probe: ProbeSet, text_ST: np.ndarray) -> None:
    """Refuses a probe that the vocabulary cannot spell: unknown tokens, or none, stand for text."""
    tokenizer, file = spelling.tokenizer, spelling.file
    unknown = unknown_ids(tokenizer)
    if not unknown and spelling.left_out > MOST_UNKNOWN * spelling.letters:
        lost = 100 * spelling.left_out / spelling.letters
        raise ValueError(
            f"{file}: probe {probe.name}: got {lost:.3g} % of the letters in no token, which the "
            f"vocabulary cannot spell, allowed {100 * MOST_UNKNOWN:.1g} %: use {{name: .., "
            "file: ..} with texts of this alphabet"
        )
    share = float(np.isin(text_ST, unknown).mean())
    joined = probe.layout == "packed" and not {*encode(tokenizer, file, JOIN)}.isdisjoint(unknown)
    if share > MOST_UNKNOWN or (joined and share > 0):
        name = tokenizer.id_to_token(unknown[0])
        why = "the line breaks between texts are among them; " if joined else ""
        layout = ", layout: documents" if joined else ""
        raise ValueError(
            f"{file}: probe {probe.name}: got {100 * share:.3g} % {name}, which the "
            f"vocabulary cannot spell, allowed {100 * MOST_UNKNOWN:.1g} %: {why}use {{name: .., "
            f"file: ..{layout}}} with texts of this alphabet"
        )


def _probe_sets(config: RunConfig) -> list[ProbeSet]:
    return [_probe_set(p) for p in config.probes]


def _probe_set(asked: str | ProbeFile | ProbeTokenFile) -> ProbeSet:
    if isinstance(asked, str):
        return probes.find(asked)
    if isinstance(asked, ProbeTokenFile):
        return probes.token_file(asked.name, asked.tokens, field=asked.field)
    return probes.text_file(asked.name, asked.file, field=asked.field, layout=asked.layout)


@lru_cache(maxsize=4)
def _corpus(spec: str | tuple[str, ...]) -> Corpus:
    return load_corpus(spec)


def probe_pairs(
    config: RunConfig, checkpoints: Sequence[Checkpoint], protocol: Protocol
) -> dict[tuple[str, str], ProbeTokens]:
    """Draws the pairs of every probe once for each tokenizer; encoders have none.

    Args:
        config: names the probes in its section circuits.
        checkpoints: that captures are made of.
        protocol: gives the length; sequences are those of the section.

    Returns:
        (probe, `tokenization` of checkpoints) -> the clean sequences, with their pairs.

    Raises:
        ValueError: where a tokenizer cannot spell a probe in pairs, or the pairs have no answers
            for the metric.
    """
    assert config.circuits is not None, "the kind is asked for"
    _check_components(config, checkpoints)
    groups: dict[str, list[Checkpoint]] = defaultdict(list)
    for c in checkpoints:
        if not c.encoder:
            groups[c.tokenization].append(c)
    return {
        (name, made): _drawn(config, protocol, name, group)
        for made, group in groups.items()
        for name in probes_in_pairs(config.circuits, config.probes)
    }


def _check_components(config: RunConfig, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuses what a model's shapes show not to be had, before it is loaded."""
    asked = config.circuits
    assert asked is not None, "the kind is asked for"
    if "circuits.circuit_areas" in config.named_invariants and not asked.edges:
        raise ValueError(
            "circuits.edges: got false with invariants.circuits.circuit_areas, allowed: true, or "
            "without that invariant"
        )
    for c in checkpoints:
        if asked.nodes == ("mlp",) and c.d_mlp == 0:
            raise ValueError(
                f"circuits.nodes: got ['mlp'], and model {c.model} has no MLPs; allowed: heads, "
                "embed besides"
            )
        if asked.edges and c.architecture in NORMED_AFTER:
            raise ValueError(
                f"circuits.edges: got true with model {c.model} ({c.architecture}), which "
                "normalises the sum of its heads, so that an edge carries no part of its own; "
                "allowed: false"
            )


def _drawn(
    config: RunConfig, protocol: Protocol, name: str, checkpoints: Sequence[Checkpoint]
) -> ProbeTokens:
    asked, c = config.circuits, checkpoints[0]
    assert asked is not None, "the kind is asked for"
    # the probe gives a name and what a text is made of; the pairs have draws of their own
    plain = probes.find("prose")
    making = _Making(config, protocol, plain, checkpoints, _corpus(config.corpus))
    if c.tokenizer_file is None or c.tokenizer_digest is None:
        raise ValueError(
            f"model {c.model}: got no tokenizer.json in {c.where}, needed by the probes"
        )
    tokenizer = read_tokenizer(c.tokenizer_file, c.tokenizer_digest)
    special: Around = _around(config, c, tokenizer, c.tokenizer_file)
    seed = int(digest(name, digest_for(protocol), "pairs")[:15], 16)
    request = replace(
        making.request(protocol.length, (tokenizer, c.tokenizer_file)),
        sequences=asked.sequences,
        rng=np.random.default_rng(seed),
    )
    try:
        pairs = corrupt(name, request).after(tuple(special.before))
        pairs.check_metric(asked.metric or pairs.metric)
    except ValueError as error:
        raise ValueError(f"circuits: probe {name} of {c.model}: {error}") from error
    around = (len(special.before), 0)
    return ProbeTokens(name, pairs.tokens_A_ST, _content_of(pairs), around=around, pairs=pairs)


def _content_of(pairs: Pairs) -> str:
    """Digest of all that is in pairs."""
    whole = hashlib.sha256()
    for part in (getattr(pairs, of.name) for of in fields(pairs)):
        held = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        whole.update(held)
    return whole.hexdigest()[:20]
