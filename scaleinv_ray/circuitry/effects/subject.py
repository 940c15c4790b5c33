"""What the analyses beside the effects look at: one model on the pairs of one probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from scaleinv_ray.circuitry.effects.record import Effects
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.probes.corrupted import Pairs


@dataclass(frozen=True)
class Subject:
    """One model on one probe.

    Attributes:
        anatomy: of the live model.
        pairs: clean and corrupted sequences with their answers.
        effects: measured already.
        spell: the text of a token id, None without a tokenizer.
        seed: of what is drawn.
        encode: the token ids of a text, for more of it than the pairs have; None without a
            tokenizer.
    """

    anatomy: Anatomy
    pairs: Pairs
    effects: Effects
    spell: Callable[[int], str] | None = None
    seed: int = 0
    encode: Callable[[str], list[int]] | None = None


class Analysis(Protocol):
    """What an analysis found."""

    def as_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        ...

    def lines(self) -> list[str]:
        """What the terminal shows, at most 96 characters a line."""
        ...
