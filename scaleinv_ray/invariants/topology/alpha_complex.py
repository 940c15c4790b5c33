"""Euler characteristic of unions of balls in space, exact, by the alpha complex.

Shape suffixes: P points, T rows, D width, F values of the radius at which simplices enter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from scaleinv_ray.contract import Refused

_TIE = 1e-9
"""Relative difference of two radii that is only rounding (of their squares, in the library)."""
_RANK = 1e-12
"""Eigenvalues of a covariance below this multiple of the largest are zero."""


class EulerCurve(NamedTuple):
    """A step function: chi_F[i] from radius_F[i] on, up to radius_F[i + 1].

    Attributes:
        radius_F: ascending, the first one 0.
        chi_F: Euler characteristic, integers; the last one 1.
    """

    radius_F: np.ndarray
    chi_F: np.ndarray

    def at(self, radius: np.ndarray | float) -> np.ndarray:
        """The Euler characteristic at radii >= 0."""
        return self.chi_F[np.searchsorted(self.radius_F, radius, side="right") - 1]


def euler_curve(x_P3: np.ndarray) -> EulerCurve:
    """Euler characteristic of the union of balls of radius r about points of space, for every r.

    The alpha complex at r is homotopy equivalent to the union (Edelsbrunner & Mucke 1994), and its
    Euler characteristic is the number of simplices that entered by r, signed by dimension.

    Args:
        x_P3: points in 2 or 3 dimensions, all different.

    Returns:
        The curve: P at 0, beta_0 - beta_1 + beta_2 after it, 1 in the end.

    Raises:
        ValueError: for points of another dimension, or not finite.

    >>> curve = euler_curve(np.array([[0.0, 0], [0, 1], [1, 1], [1, 0]]))
    >>> curve.radius_F.round(3).tolist(), curve.chi_F.tolist()
    ([0.0, 0.5, 0.707], [4, 0, 1])
    """
    from gudhi import AlphaComplex  # loads matplotlib: only where it is needed

    x_P3 = np.asarray(x_P3, dtype=np.float64)
    if x_P3.ndim != 2 or x_P3.shape[1] not in {2, 3} or not np.isfinite(x_P3).all():
        raise ValueError(f"x_P3: got shape {x_P3.shape}, allowed finite points of 2 or 3 numbers")
    # The iterator of a tree that nothing else holds reads freed memory, hence the name.
    tree = AlphaComplex(points=x_P3).create_simplex_tree()
    pairs = [(len(simplex), square) for simplex, square in tree.get_filtration()]
    size, square = np.array(pairs).T
    radius = np.sqrt(np.maximum(square, 0))  # in the order of entry, with ties broken by rounding
    radius = np.maximum.accumulate(radius)
    chi = np.cumsum(np.where(size % 2 == 1, 1, -1))
    last = np.append(np.flatnonzero(np.diff(radius) > _TIE * radius[1:]), len(radius) - 1)
    first = np.append(0, last[:-1] + 1)
    return EulerCurve(radius[first], chi[last])


class Projection(NamedTuple):
    """The space of the leading principal components.

    Attributes:
        axes_D3: its orthonormal axes, by descending eigenvalue.
        gap: relative distance of the last eigenvalue kept, lambda, from the next one.
        gap_errors: the same in units of the sampling error of lambda, sqrt(2 / T) (North et al.
            1982): below about 1 the components are an accident of the sample.
    """

    axes_D3: np.ndarray
    gap: float
    gap_errors: float


def principal_projection(x_TD: np.ndarray, *, num_components: int = 3) -> Projection:
    """Leading principal components of a cloud.

    Args:
        x_TD: rows.
        num_components: components kept.

    Returns:
        The axes, and how well the space they span is determined.

    Raises:
        Refused: where the rows span fewer dimensions.

    >>> x_TD = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> principal_projection(np.vstack([x_TD, -x_TD])).gap
    0.75
    """
    x_TD = x_TD - x_TD.mean(axis=0)
    width = x_TD.shape[1]
    wanted = (max(width - num_components - 1, 0), width - 1)
    value_K, vector_DK = eigh(x_TD.T @ x_TD, subset_by_index=wanted)
    value_K, vector_DK = value_K[::-1], vector_DK[:, ::-1]
    rank = int((value_K > _RANK * value_K[0]).sum())
    if rank < num_components:
        raise Refused(f"x_TD: rows span {rank} dimensions, needs {num_components}")
    kept, following = np.append(value_K, 0.0)[[num_components - 1, num_components]]
    gap = float(1 - max(following, 0.0) / kept)
    return Projection(vector_DK[:, :num_components], gap, gap / math.sqrt(2 / len(x_TD)))
