"""Means and covariances in one pass, from parts that can be merged. Suffixes: B draws, V variables.

Welford (1962) as Chan, Golub and LeVeque (1983) merge it: no sums of squares are subtracted, so
that a small covariance beside a large mean keeps its digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Welford:
    """Count, mean and co-moments of the draws seen so far.

    Attributes:
        count: draws.
        mean_V: their mean.
        comoment_VV: sum over draws of (x - mean)(x - mean)^T.
    """

    count: int
    mean_V: np.ndarray
    comoment_VV: np.ndarray

    @classmethod
    def of(cls, x_BV: np.ndarray) -> Welford:
        """Of some draws, none included: `Welford.of(np.empty((0, V)))`.

        Args:
            x_BV: a draw a row.

        Returns:
            Their sums, in float64.

        Raises:
            ValueError: for anything but a matrix.
        """
        if np.ndim(x_BV) != 2:
            raise ValueError(f"x_BV: got {np.ndim(x_BV)} axes, allowed 2 (draws, variables)")
        x_BV = np.asarray(x_BV, dtype=np.float64)
        if not len(x_BV):
            width = x_BV.shape[1]
            return cls(0, np.zeros(width), np.zeros((width, width)))
        mean_V = x_BV.mean(axis=0)
        own_BV = x_BV - mean_V
        return cls(len(x_BV), mean_V, own_BV.T @ own_BV)

    def merged(self, other: Welford) -> Welford:
        """Of the draws of both.

        Args:
            other: of the same variables, of other draws.

        Returns:
            M = M_a + M_b + (n_a n_b / n) d d^T with d the difference of the means.

        Raises:
            ValueError: where the number of variables differs.

        >>> x = np.array([[1.0], [2.0], [6.0]])
        >>> both = Welford.of(x[:2]).merged(Welford.of(x[2:]))
        >>> float(both.mean_V[0]), float(both.covariance()[0, 0])
        (3.0, 7.0)
        """
        if len(self.mean_V) != len(other.mean_V):
            raise ValueError(
                f"other: got {len(other.mean_V)} variables, allowed {len(self.mean_V)}"
            )
        count = self.count + other.count
        if not count:
            return self
        step_V = other.mean_V - self.mean_V
        share = other.count / count
        comoment_VV = self.comoment_VV + other.comoment_VV
        comoment_VV = comoment_VV + self.count * share * np.outer(step_V, step_V)
        return Welford(count, self.mean_V + share * step_V, comoment_VV)

    def covariance(self) -> np.ndarray:
        """Covariance matrix, ddof = 1.

        Returns:
            covariance_VV.

        Raises:
            ValueError: with fewer than two draws.
        """
        if self.count < 2:
            raise ValueError(f"count: got {self.count}, a covariance needs 2 draws or more")
        return self.comoment_VV / (self.count - 1)


def merge(parts: Iterable[Welford]) -> Welford:
    """Of the draws of all parts.

    Args:
        parts: one or more.

    Returns:
        Their sums.

    Raises:
        ValueError: without a part, or where the number of variables differs.
    """
    whole: Welford | None = None
    for part in parts:
        whole = part if whole is None else whole.merged(part)
    if whole is None:
        raise ValueError("parts: got none, allowed one or more")
    return whole
