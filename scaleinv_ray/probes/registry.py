"""What a probe set is, and the register of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

from scaleinv_ray.probes.corpus import Corpus

Layout = Literal["packed", "documents"]


class TooFewError(ValueError):
    """A probe has fewer sequences than are wanted.

    Attributes:
        allowed: how many it has.
    """

    def __init__(self, text: str, *, allowed: int) -> None:
        """Keeps the number beside what is said of it."""
        super().__init__(text)
        self.allowed = allowed


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What a probe set is asked for; see `build_tokens` for the meaning of the fields."""

    encode: Callable[[str], list[int]]
    sequences: int
    length: int
    vocab_size: int
    corpus: Corpus | None
    rng: np.random.Generator
    special_ids: frozenset[int] = frozenset()
    said: list[str] = field(default_factory=list)

    def ordinary_ids(self, *, least: int) -> np.ndarray:
        """Token ids that are not special, ascending.

        Args:
            least: how many there have to be.

        Returns:
            ids_V.

        Raises:
            ValueError: where there are fewer.
        """
        ids_V = np.setdiff1d(np.arange(self.vocab_size), list(self.special_ids))
        if len(ids_V) < least:
            raise ValueError(
                f"vocab_size: got {self.vocab_size} with {len(ids_V)} ordinary ids, "
                f"allowed >= {least}"
            )
        return ids_V


ProbeFunction = Callable[[ProbeRequest], np.ndarray]


@dataclass(frozen=True)
class ProbeSet:
    """A registered probe set.

    Attributes:
        name: the function's name.
        version: raised whenever the tokens change.
        description: first line of the function's docstring.
        needs_corpus: reads held-out text.
        function: from the request to integer tokens [sequences, length].
        layout: how texts become sequences: one behind the other (packed), or each at the start of a
            sequence of its own; None where nobody wrote the text.
        of_ids: of token ids, whatever the tokenizer.
    """

    name: str
    version: int
    description: str
    needs_corpus: bool
    function: ProbeFunction
    layout: Layout | None = None
    of_ids: bool = False


_PROBES: dict[str, ProbeSet] = {}
PROBES: Mapping[str, ProbeSet] = MappingProxyType(_PROBES)
"""Name -> probe set; filled by importing `scaleinv_ray.probes`."""


def probe_set(
    *, needs_corpus: bool = False, version: int = 1, layout: Layout | None = None
) -> Callable[[ProbeFunction], ProbeFunction]:
    """Registers a function as the probe set of its own name and returns it unchanged.

    Args:
        needs_corpus: whether the function reads `request.corpus`.
        version: raised whenever the tokens change.
        layout: of `ProbeSet`.

    Returns:
        The decorator.
    """

    def register(function: ProbeFunction) -> ProbeFunction:
        name = function.__name__
        description = (function.__doc__ or "").strip().split("\n", 1)[0]
        _PROBES[name] = ProbeSet(name, version, description, needs_corpus, function, layout)
        return function

    return register
