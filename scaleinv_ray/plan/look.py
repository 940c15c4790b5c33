"""A look at what models are given, before any work: text as tokens, and what is odd about it.

Shape suffixes: S sequences, T tokens of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.plan.tokenizer import read_tokenizer, unknown_ids
from scaleinv_ray.plan.units import Plan, ProbeTokens

SHOWN = 2
"""Sequences of a probe."""
WIDTH = 60
"""Characters of a sequence."""
DECODED = 64
"""Sequences whose characters are counted."""


def look_lines(plan: Plan) -> list[str]:
    """What each tokenizer makes of each probe: the beginning of two sequences, and shares.

    Args:
        plan: with its tokens.

    Returns:
        Lines; none where no model is given tokens.
    """
    live = [u.checkpoint for u in plan.units if not u.checkpoint.captures]
    models: dict[str, dict[str, Checkpoint]] = {}
    for c in live:
        models.setdefault(c.tokenization, {}).setdefault(c.model, c)
    lines = []
    for made, of in models.items():
        found = [t for (_, key), t in plan.tokens.items() if key == made]
        first, *others = of.values()
        if not found:
            continue
        more = f" and {len(others)} more" if others else ""
        tokenizer = None
        if first.tokenizer_file is not None and first.tokenizer_digest is not None:
            tokenizer = read_tokenizer(first.tokenizer_file, first.tokenizer_digest)
        name = plan.tokenizers.get(first.tokenizer_digest or "", "none")
        lines.append(f"tokenizer {name} of {first.model}{more}, nats of chance {_chance(of)}")
        for tokens in found:
            lines += _of_probe(tokens, tokenizer)
    return lines


def unigram_entropy(text_ST: np.ndarray) -> float:
    """Entropy of the frequencies of tokens, in nats, with the correction of Miller and Madow.

    What a model pays a token that knows how often each one occurs, and nothing of the order.

    Returns:
        -sum p ln p + (kinds - 1) / (2 tokens).

    >>> round(unigram_entropy(np.tile([0, 1], (500, 1))), 3) == round(math.log(2) + 5e-4, 3)
    True
    """
    count_V = np.unique(text_ST, return_counts=True)[1]
    p_V = count_V / text_ST.size
    return float(-(p_V * np.log(p_V)).sum() + (len(p_V) - 1) / (2 * text_ST.size))


def _chance(models: dict[str, Checkpoint]) -> str:
    sizes = sorted({c.vocab_size for c in models.values()})
    return ", ".join(f"{math.log(size):.2f} (vocabulary {size:,})" for size in sizes)


def _of_probe(tokens: ProbeTokens, tokenizer: Tokenizer | None) -> Iterator[str]:
    nats = f"{unigram_entropy(tokens.text_ST):.2f} nats of unigrams"
    if tokens.of_ids or tokenizer is None:
        yield f"  {tokens.name}: token ids as they are; {nats}"
        for row in tokens.tokens_ST[:SHOWN].tolist():
            yield f"    {' '.join(map(str, row))[:WIDTH]}"
    else:
        yield f"  {tokens.name}: {_shares(tokens, tokenizer)}; {nats}"
        for row in tokens.tokens_ST[:SHOWN].tolist():
            yield f"    {_pieces(row, tokenizer)}"
    for line in tokens.said:
        yield f"    {line}"
    if repeats := len(tokens.text_ST) - len(np.unique(tokens.text_ST, axis=0)):
        yield f"    {repeats} of {len(tokens.text_ST)} sequences repeat another: no replicates"


def _shares(tokens: ProbeTokens, tokenizer: Tokenizer) -> str:
    text_ST = tokens.text_ST
    added = tokenizer.get_added_tokens_decoder().items()
    unknown = unknown_ids(tokenizer)
    special = [i for i, token in added if token.special and i not in unknown]
    rows = text_ST[:DECODED]
    length = sum(len(_text(row, tokenizer)) for row in rows.tolist())
    density = f"{rows.size / length:.3g}" if length else "no"
    shares = (100 * float(np.isin(text_ST, ids).mean()) for ids in (unknown, special))
    return "{} tokens a character, {:.3g} % unknown, {:.3g} % special".format(density, *shares)


def _text(row: Sequence[int], tokenizer: Tokenizer) -> str:
    if tokenizer.decoder is None:  # it would put spaces between the tokens
        return "".join(tokenizer.id_to_token(i) or "" for i in row)
    return tokenizer.decode(row, skip_special_tokens=False)


def _pieces(row: Sequence[int], tokenizer: Tokenizer) -> str:
    """The first characters of a sequence, a bar between its tokens."""
    pieces: list[str] = []
    room = WIDTH
    for token in row:
        stored = tokenizer.id_to_token(token) or ""
        marked = "\u2581" in stored  # a decoder drops the space before the first word
        spelled = stored.replace("\u2581", " ") if marked else tokenizer.decode([token], False)
        pieces.append(repr(spelled or stored)[1:-1])
        room -= len(pieces[-1])
        if room <= 0:
            break
    return "|".join(pieces)
