"""A series of values over sizes and seeds, put on the scale on which it is judged.

Shape suffixes: K sizes (ascending), S seeds (padded with NaN).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Series:
    """Values I of one quantity over model sizes, on the scale on which it is judged.

    Attributes:
        n_params_K: total parameters of each size, ascending.
        x_K: ln(n_params_K).
        y_KS: ln|I|, or I / unit where a unit is declared; NaN where there are fewer seeds.
        raw_KS: I itself, padded alike.
        unit: the declared unit, None on the logarithmic scale.
        sign: common sign of the values on the logarithmic scale, 1 with a unit, 0 where all are 0.
    """

    n_params_K: np.ndarray
    x_K: np.ndarray
    y_KS: np.ndarray
    raw_KS: np.ndarray
    unit: float | None
    sign: float

    @property
    def count_K(self) -> np.ndarray:
        """Seeds at each size."""
        return np.isfinite(self.raw_KS).sum(axis=1)

    @property
    def all_equal(self) -> bool:
        """Whether all values are one and the same number."""
        values = self.raw_KS[np.isfinite(self.raw_KS)]
        return bool((values == values[0]).all())

    @property
    def conservation_error(self) -> float | None:
        """|I_small - I_large| / |I_small| of the mean values; with a unit, over that instead.

        A quantity with a unit may be near zero, where a ratio says nothing. Without a unit there is
        none where the small one is zero.
        """
        small, large = np.nanmean(self.raw_KS[[0, -1]], axis=1).tolist()
        if self.unit is not None:
            return float(abs(small - large) / self.unit)
        if small == large:
            return 0.0
        return abs(small - large) / abs(small) if small != 0 else None

    def to_raw(self, y: float) -> float:
        """The quantity itself at a value y of the scale; inf beyond the range of floats."""
        if self.unit is not None:
            return y * self.unit
        return self.sign * math.exp(y) if y < 709 else self.sign * math.inf

    def tolerance(self, margin: float) -> float:
        """The margin on this scale: ln(1 + margin), or the margin itself with a unit."""
        return math.log1p(margin) if self.unit is None else margin


def series_of(
    n_params: Sequence[float], values: Sequence[Sequence[float]], *, unit: float | None = None
) -> Series:
    """Values by size and seed, sorted by size, on the logarithmic or the declared scale.

    Args:
        n_params: total parameters of each size, distinct and positive.
        values: for each size the values of its seeds, at least one.
        unit: scale of differences where the quantity may vanish or change sign; None: ln|I|.

    Returns:
        The series. Where all values are zero there is no logarithm to take: y is 0, and so is sign.

    Raises:
        ValueError: for sizes that repeat or are not positive, values that are missing or not
            finite, and, without a unit, for values of both signs or some that are zero.

    >>> series_of([100, 10], [[math.e], [1.0]]).y_KS.tolist()
    [[0.0], [1.0]]
    """
    sizes = np.asarray(n_params, dtype=np.float64)
    _check(sizes, values, unit)
    order = np.argsort(sizes)
    raw_KS = np.full((len(sizes), max(len(seeds) for seeds in values)), np.nan)
    for row, source in enumerate(order):
        raw_KS[row, : len(values[source])] = values[source]
    present = raw_KS[~np.isnan(raw_KS)]
    if len(present) != sum(len(seeds) for seeds in values) or not np.isfinite(present).all():
        raise ValueError("values: got NaN or infinity, allowed finite numbers")
    y_KS, sign = _scaled(raw_KS, present, unit)
    return Series(sizes[order], np.log(sizes[order]), y_KS, raw_KS, unit, sign)


def _check(sizes: np.ndarray, values: Sequence[Sequence[float]], unit: float | None) -> None:
    if sizes.ndim != 1 or len(sizes) != len(values) or len(sizes) == 0:
        raise ValueError(
            f"values: got {len(values)} sizes, allowed {sizes.size} as in n_params, at least one"
        )
    if not (
        np.isfinite(sizes).all() and (sizes > 0).all() and len(set(sizes.tolist())) == len(sizes)
    ):
        raise ValueError(f"n_params: got {sizes.tolist()}, allowed distinct positive numbers")
    if any(len(seeds) == 0 for seeds in values):
        raise ValueError("values: got a size without seeds, allowed at least one value each")
    if unit is not None and not (math.isfinite(unit) and unit > 0):
        raise ValueError(f"unit: got {unit}, allowed positive numbers or None")


def _scaled(
    raw_KS: np.ndarray, present: np.ndarray, unit: float | None
) -> tuple[np.ndarray, float]:
    if unit is not None:
        return raw_KS / unit, 1.0
    if not present.any():
        return raw_KS, 0.0
    # ln|I| would certify +1, +1, -1, -1 as conserved
    if not ((present > 0).all() or (present < 0).all()):
        raise ValueError(
            f"values: got signs or zeros from {present.min():g} to {present.max():g}, "
            "allowed one sign throughout unless a unit is declared"
        )
    return np.log(np.abs(raw_KS)), float(np.sign(present[0]))
