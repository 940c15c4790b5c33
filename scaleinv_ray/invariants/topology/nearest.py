"""Distances of many points to a growing set, exact at the price of a float32 product.

Shape suffixes: P points, R points not in the set, D width, H points that may have come nearer.
"""

from __future__ import annotations

import numpy as np


class GrowingSet:
    """Keeps the exact distance of every point to the nearest one of a set, and which one that is.

    When a point enters, its distances to the others are one matrix-vector product in float32. The
    product only decides which of them may have come nearer: with u = 2^-24 it is off by at most
    D u |x| |y| <= D u (|x|^2 + |y|^2) / 2 (Higham 2002, eq. 3.5), and where the lower bound lies
    below the distance known, the distance is taken anew from the differences in float64.

    Attributes:
        index_R: the points outside, in no order; the arrays below go with it.
        square_R: squared distance to the nearest point of the set, infinite while that is empty.
        parent_R: that point.
    """

    def __init__(self, x_PD: np.ndarray) -> None:
        """An empty set.

        Args:
            x_PD: points, finite, at least one; centred ones are quicker.

        Raises:
            ValueError: unless x_PD is a matrix of finite numbers with a row.
        """
        x_PD = np.asarray(x_PD, dtype=np.float64)
        if x_PD.ndim != 2 or not x_PD.size:
            raise ValueError(f"x_PD: got shape {x_PD.shape}, allowed (points >= 1, width >= 1)")
        if not np.isfinite(x_PD).all():
            raise ValueError("x_PD: got entries that are not finite")
        # A power of two guards the squares and rounds nothing.
        self._exponent = int(np.frexp(np.abs(x_PD).max())[1])
        self._x_PD = np.ldexp(x_PD, -self._exponent)
        self._x_RD = self._x_PD.astype(np.float32)
        # Besides the product: the rounding of the factors (2 u) and of the sums.
        relative = (x_PD.shape[1] + 8) * np.finfo(np.float32).eps / 2
        norm_P = np.einsum("pd,pd->p", self._x_PD, self._x_PD)
        self._bound_R = (norm_P * (1 - relative)).astype(np.float32)
        self._product_R = np.zeros(len(x_PD), dtype=np.float32)
        self.index_R = np.arange(len(x_PD))
        self.square_R = np.full(len(x_PD), np.inf)
        self.parent_R = np.full(len(x_PD), -1)

    def admit(self, place: int) -> None:
        """Takes the point at a place of `index_R` into the set."""
        point, bound = self.index_R[place], self._bound_R[place]
        row_D = -2 * self._x_RD[place]
        self._remove(place)
        # Entries are finite and at most 1: a flag that BLAS raises comes from its unused lanes.
        with np.errstate(invalid="ignore"):
            lower_R = np.dot(self._x_RD, row_D, out=self._product_R)
        lower_R += self._bound_R
        nearer_H = np.flatnonzero(lower_R < self.square_R - bound)
        difference_HD = self._x_PD[self.index_R[nearer_H]] - self._x_PD[point]
        square_H = np.einsum("hd,hd->h", difference_HD, difference_HD)
        better_H = square_H < self.square_R[nearer_H]
        nearer_H = nearer_H[better_H]
        self.square_R[nearer_H] = square_H[better_H]
        self.parent_R[nearer_H] = point

    def lengths(self, square: np.ndarray) -> np.ndarray:
        """Distances, in the units of x_PD, from values of `square_R`."""
        return np.ldexp(np.sqrt(square), self._exponent)

    def _remove(self, place: int) -> None:
        """The last point outside takes the place of the one removed: the rest stays contiguous."""
        names = ("_x_RD", "_bound_R", "_product_R", "index_R", "square_R", "parent_R")
        for name in names:
            array = getattr(self, name)
            array[place] = array[-1]
            setattr(self, name, array[:-1])
