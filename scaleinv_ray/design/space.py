"""What may be chosen of a model: intervals and lists of values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

Value = float | int | str
Point = Mapping[str, Value]
"""Name of a dimension -> what is chosen there."""


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high.

    Attributes:
        low: least.
        high: largest.
        log: whether equal ratios are equal steps.
    """

    low: float
    high: float
    log: bool = True

    def at(self, share: float) -> float:
        """The number at a share of the way from low to high.

        >>> round(Interval(1.0, 100.0).at(0.5), 9), Interval(0.0, 4.0, log=False).at(0.25)
        (10.0, 1.0)
        """
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return min(max(value, self.low), self.high)

    def share(self, value: float) -> float:
        """Where a number lies on the way; the inverse of `at`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]


Space = Mapping[str, Interval | Choices]


def random_points(space: Space, count: int, *, seed: int) -> list[dict[str, Value]]:
    """Points, uniform in every dimension."""
    rng = np.random.default_rng(seed)
    return [{name: _drawn(of, rng) for name, of in space.items()} for _ in range(count)]


def _drawn(of: Interval | Choices, rng: np.random.Generator) -> Value:
    if isinstance(of, Interval):
        return of.at(float(rng.random()))
    return of.values[int(rng.integers(len(of.values)))]


def choices_of(space: Space) -> Iterator[dict[str, Value]]:
    """All combinations of the values in lists."""
    lists = {name: of.values for name, of in space.items() if isinstance(of, Choices)}
    for chosen in product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))


def intervals_of(space: Space) -> dict[str, Interval]:
    """The dimensions that are intervals."""
    return {name: of for name, of in space.items() if isinstance(of, Interval)}
