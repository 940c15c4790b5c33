"""The Marchenko-Pastur law: what the eigenvalues of w w^T are for independent entries.

M, N: smaller and larger dimension of w, q = M / N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.linalg import eigvalsh_tridiagonal
from scipy.optimize import brentq


def gaussian_null_eigenvalues(
    num_small: int, num_large: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Eigenvalues of w w^T for a matrix of independent standard normal entries, in O(M^2).

    Drawn from the tridiagonal model of the Laguerre ensemble (Dumitriu & Edelman, J. Math. Phys.
    43:5830, 2002, beta = 1): B is lower bidiagonal with diagonal chi_N, chi_{N-1}, .. and
    subdiagonal chi_{M-1}, .., chi_1; the law of the eigenvalues of B B^T is exact at every M, N.

    Args:
        num_small: M = min(O, I) >= 1.
        num_large: N = max(O, I) >= M.
        rng: source of randomness.

    Returns:
        lambda_M, ascending.

    >>> spectrum = gaussian_null_eigenvalues(100, 400, rng=np.random.default_rng(0))
    >>> round(float(spectrum.mean()) / 400, 1)
    1.0
    """
    on_M = rng.chisquare(num_large - np.arange(num_small))
    below = rng.chisquare(np.arange(num_small - 1, 0, -1))
    diagonal_M = on_M.copy()
    diagonal_M[1:] += below
    return np.maximum(eigvalsh_tridiagonal(diagonal_M, np.sqrt(on_M[:-1] * below)), 0.0)


class Edge(NamedTuple):
    """Upper edge of a bulk, the Tracy-Widom width of its largest eigenvalue, and its scale s^2."""

    edge: float
    width: float
    scale: float


def _at(angle: float, ratio: float) -> float:
    """Eigenvalue 1 + q - 2 sqrt(q) cos t, without cancellation at the lower edge for q near 1."""
    root = math.sqrt(ratio)
    return (1.0 - root) ** 2 + 4.0 * root * math.sin(angle / 2.0) ** 2


def marchenko_pastur_mean(
    function: Callable[[float], float], ratio: float, *, above: float = 0.0
) -> float:
    """Integral of a function over the Marchenko-Pastur law, from one of its points upwards.

    With x = 1 + q - 2 sqrt(q) cos t the law has the smooth density
    (2 / pi) sin^2 t / (1 + q - 2 sqrt(q) cos t) on 0 <= t <= pi.

    Args:
        function: of an eigenvalue x.
        ratio: q = M / N, 0 < q <= 1; the variance is 1.
        above: x from which to integrate.

    Returns:
        E f(x) 1[x > above].

    Raises:
        ValueError: with a ratio outside (0, 1].

    >>> round(marchenko_pastur_mean(lambda x: x**2, 0.25), 9)  # 1 + q
    1.25
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: got {ratio}, allowed 0 < M/N <= 1")
    lowest = _at(0.0, ratio)
    start = 2.0 * math.asin(
        min(1.0, math.sqrt(max(above - lowest, 0.0) / (4.0 * math.sqrt(ratio))))
    )

    def density(angle: float) -> float:
        x = _at(angle, ratio)
        return function(x) * math.sin(angle) ** 2 / x if x > 0 else 0.0

    return 2.0 / math.pi * quad(density, start, math.pi, limit=200)[0]


@lru_cache(maxsize=1024)
def marchenko_pastur_median(ratio: float) -> float:
    """Median of the Marchenko-Pastur law with unit variance and ratio q = M / N <= 1.

    Args:
        ratio: q, 0 < q <= 1.

    Returns:
        The median, between the edges (1 -+ sqrt q)^2.

    Raises:
        ValueError: with a ratio outside (0, 1].

    >>> round(marchenko_pastur_median(1e-8), 6)
    1.0
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: got {ratio}, allowed 0 < M/N <= 1")

    def excess(angle: float) -> float:
        return 0.5 - marchenko_pastur_mean(lambda _: 1.0, ratio, above=_at(angle, ratio))

    return _at(brentq(excess, 0.01, math.pi), ratio)


def bulk_edge(lambda_M: np.ndarray, num_large: int) -> Edge:
    """Edge of the bulk of w w^T in closed form, its scale from the median eigenvalue.

    s^2 = median lambda / median of the law (= N sigma_w^2 for independent entries; the median
    hardly sees spikes), edge s^2 (1 + sqrt q)^2, and the Tracy-Widom width
    s^2 / N (sqrt N + sqrt M) (1 / sqrt N + 1 / sqrt M)^(1/3) (Johnstone, Ann. Stat. 29:295, 2001).

    Args:
        lambda_M: all eigenvalues of the smaller Gram matrix.
        num_large: N.

    Returns:
        Edge, width and s^2.

    >>> law = marchenko_pastur_median(0.25)
    >>> bulk_edge(np.array([0.5, 1.0, 1.5]) * law, 12).edge  # (1 + sqrt q)^2
    2.25
    """
    num_small = len(lambda_M)
    scale = float(np.median(lambda_M)) / marchenko_pastur_median(num_small / num_large)
    large, small = math.sqrt(num_large), math.sqrt(num_small)
    width = scale / num_large * (large + small) * (1.0 / large + 1.0 / small) ** (1.0 / 3.0)
    return Edge(scale * (1.0 + small / large) ** 2, width, scale)
