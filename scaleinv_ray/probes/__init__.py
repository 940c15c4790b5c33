"""Probe sets: the token sequences on which every model of a series is measured.

Importing this package finds and registers all of them; a new probe set is one decorated function
in a module of this package.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Collection

import numpy as np

from scaleinv_ray.probes.corpus import Corpus, load_corpus
from scaleinv_ray.probes.registry import PROBES, ProbeRequest, ProbeSet, TooFewError
from scaleinv_ray.probes.token_files import token_file
from scaleinv_ray.probes.user import text_file

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "PROBES",
    "Corpus",
    "ProbeRequest",
    "ProbeSet",
    "TooFewError",
    "build_tokens",
    "find",
    "load_corpus",
    "text_file",
    "token_file",
]


def find(name: str) -> ProbeSet:
    """The probe set of that name.

    Args:
        name: a key of `PROBES`.

    Returns:
        The registered probe set.

    Raises:
        ValueError: for an unknown name; says the nearest known one.

    >>> find("induction").needs_corpus
    False
    """
    if name not in PROBES:
        nearest = difflib.get_close_matches(name, PROBES, n=1, cutoff=0.0)
        raise ValueError(
            f"probe: got {name!r}, allowed {sorted(PROBES)}; the nearest is {nearest[0]!r}"
        )
    return PROBES[name]


def build_tokens(
    name: str | ProbeSet,
    encode: Callable[[str], list[int]],
    *,
    sequences: int,
    length: int,
    vocab_size: int,
    corpus: Corpus | None,
    rng: np.random.Generator,
    special_ids: Collection[int] = (),
    said: list[str] | None = None,
) -> np.ndarray:
    """Token sequences of a probe set: equal arguments (and rng state) give equal tokens.

    Args:
        name: a key of `PROBES`, or a probe set of the user's (`text_file`, `token_file`).
        encode: text -> token ids, without special tokens added.
        sequences: S, sequences wanted.
        length: tokens in a sequence.
        vocab_size: V; ids lie in 0..V-1. The number of tokens the tokenizer knows, not the number
            of rows a model pads its embedding to.
        corpus: text to read (its held-out side); not needed by generated probe sets.
        rng: source of the draws; the same for all models that share a tokenizer.
        special_ids: ids that generated probe sets never draw.
        said: takes lines on what was left out.

    Returns:
        int32 array [S, length].

    Raises:
        ValueError: unknown name, no corpus where one is needed, sequences or length out of range,
            fewer held-out tokens than S * length, or a token outside 0..V-1.

    >>> tokens = build_tokens("induction", list, sequences=2, length=8, vocab_size=50,
    ...                       corpus=None, rng=np.random.default_rng(0))
    >>> bool((tokens[:, :4] == tokens[:, 4:]).all())
    True
    """
    probe = find(name) if isinstance(name, str) else name
    if sequences < 1:
        raise ValueError(f"sequences: got {sequences}, allowed integers >= 1")
    if length < 2:
        raise ValueError(f"length: got {length}, allowed integers >= 2")
    if probe.needs_corpus and corpus is None:
        raise ValueError(f"corpus: got None, probe {probe.name!r} reads held-out text")
    tokens_ST = probe.function(
        ProbeRequest(
            encode=encode,
            sequences=sequences,
            length=length,
            vocab_size=vocab_size,
            corpus=corpus,
            rng=rng,
            special_ids=frozenset(special_ids),
            said=[] if said is None else said,
        )
    )
    low, high = int(tokens_ST.min()), int(tokens_ST.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"token ids: got {low}..{high}, allowed 0..{vocab_size - 1} (vocab_size)")
    return tokens_ST.astype(np.int32)
