"""The corruptions of each probe, and how pairs are drawn.

Shape suffixes: S sequences, T tokens, P answer positions, B tokens of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from scaleinv_ray.inputs.wording import shown
from scaleinv_ray.probes import brackets as of_brackets
from scaleinv_ray.probes import text
from scaleinv_ray.probes.corrupted.of_problems import arithmetic, greater_than, names, names_abc
from scaleinv_ray.probes.corrupted.pairs import Pairs
from scaleinv_ray.probes.induction import induction
from scaleinv_ray.probes.registry import ProbeRequest

Corruption = Callable[[ProbeRequest], Pairs]


def corrupt(name: str, request: ProbeRequest) -> Pairs:
    """Pairs of a clean sequence and a corrupted one.

    Args:
        name: a key of `CORRUPTED`: a probe, or a probe and a variant of its corruption.
        request: as of `build_tokens`.

    Raises:
        ValueError: for an unknown name, or what the tokenizer cannot spell.
    """
    if name not in CORRUPTED:
        raise ValueError(f"probe: got {shown(name)}, allowed {', '.join(CORRUPTED)} (in pairs)")
    return CORRUPTED[name](request)


def induction_block(request: ProbeRequest) -> Pairs:
    """Repeated tokens; B repeats another block of the same period, every token another one.

    Answers: the second copy, but its first token, which nothing announces.
    """
    clean_ST = induction(request)
    ids_V = request.ordinary_ids(least=2)
    period = (clean_ST.shape[1] + 1) // 2
    _check_period(period, request.length)
    rank_SB = np.searchsorted(ids_V, clean_ST[:, :period])
    # another rank, uniform over the others, so that no pair has to be drawn again
    other_SB = (rank_SB + request.rng.integers(1, len(ids_V), size=rank_SB.shape)) % len(ids_V)
    block_SB = ids_V[other_SB]
    other_ST = np.concatenate([block_SB, block_SB], axis=1)[:, : clean_ST.shape[1]]
    at_P = np.arange(period, clean_ST.shape[1] - 1)
    return _at(clean_ST, other_ST, at_P)


def induction_last(request: ProbeRequest) -> Pairs:
    """Repeated tokens whose last one asks; B asks with another token of the block.

    Only what hangs on the query moves. The block's tokens are distinct, so that the answer is one.
    """
    ids_V = request.ordinary_ids(least=4)
    period = (request.length + 1) // 2
    _check_period(period, request.length)
    if period > len(ids_V):
        raise ValueError(
            f"length: got {request.length}, allowed <= {2 * len(ids_V)} (a block repeats none)"
        )
    block_SB = request.rng.permuted(np.tile(ids_V, (request.sequences, 1)), axis=1)[:, :period]
    clean_ST = np.concatenate([block_SB, block_SB[:, :-1]], axis=1)
    asked = period - 2
    other_S = request.rng.integers(0, asked, size=request.sequences)
    rows_S = np.arange(request.sequences)
    other_ST = clean_ST.copy()
    other_ST[:, -1] = block_SB[rows_S, other_S]
    return Pairs(
        clean_ST,
        other_ST,
        np.full((request.sequences, 1), clean_ST.shape[1] - 1),
        block_SB[:, [asked + 1]],
        block_SB[rows_S, other_S + 1][:, None],
    )


def _check_period(period: int, length: int) -> None:
    if period < 3 or length < 6:
        raise ValueError(f"length: got {length}, allowed >= 6 (two copies of a block)")


def brackets(request: ProbeRequest) -> Pairs:
    """Nested brackets; in B one opening bracket is of another kind, its partner is the answer."""
    clean_ST = of_brackets.brackets(request)
    depth, size = of_brackets.DEPTH, 2 * of_brackets.DEPTH
    blocks = clean_ST.shape[1] // size
    if not blocks:
        raise ValueError(f"length: got {request.length}, allowed >= {size} (a block of brackets)")
    pairs_V2 = np.array([[request.encode(c)[0] for c in pair] for pair in of_brackets.PAIRS])
    S, rows_S = len(clean_ST), np.arange(len(clean_ST))
    offset_S = request.rng.integers(depth, size=S)
    open_S = (blocks - 1) * size + offset_S
    close_S = (blocks - 1) * size + size - 1 - offset_S
    kind_S = (clean_ST[rows_S, open_S][:, None] == pairs_V2[:, 0]).argmax(axis=1)
    other_S = (kind_S + request.rng.integers(1, len(pairs_V2), size=S)) % len(pairs_V2)
    cut_ST = clean_ST[:, : close_S.max()]
    other_ST = cut_ST.copy()
    other_ST[rows_S, open_S] = pairs_V2[other_S, 0]
    return Pairs(
        cut_ST,
        other_ST,
        (close_S - 1)[:, None],
        pairs_V2[kind_S, 1][:, None],
        pairs_V2[other_S, 1][:, None],
    )


def _resampled(probe: Callable[[ProbeRequest], np.ndarray]) -> Corruption:
    def of_text(request: ProbeRequest) -> Pairs:
        both_ST = probe(replace(request, sequences=2 * request.sequences))
        # sequences that follow each other are of one document: the halves are not
        clean_ST, other_ST = np.split(both_ST, 2)
        found = _at(clean_ST, other_ST, np.arange(clean_ST.shape[1] - 1))
        return replace(found, metric="loss")

    of_text.__doc__ = "Text; B is text from elsewhere. Answers: every next token, as loss."
    return of_text


def _at(clean_ST: np.ndarray, other_ST: np.ndarray, at_P: np.ndarray) -> Pairs:
    """Pairs asked for the next token at the same positions of every sequence."""
    positions_SP = np.tile(at_P, (len(clean_ST), 1))
    return Pairs(clean_ST, other_ST, positions_SP, clean_ST[:, at_P + 1], other_ST[:, at_P + 1])


CORRUPTED: Mapping[str, Corruption] = MappingProxyType({
    "induction": induction_block,
    "induction.last": induction_last,
    "names": names,
    "names.abc": names_abc,
    "brackets": brackets,
    "greater_than": greater_than,
    "arithmetic": arithmetic,
    "prose": _resampled(text.prose),
    "code": _resampled(text.code),
})
"""Name -> corruption: a probe, or probe.variant."""
