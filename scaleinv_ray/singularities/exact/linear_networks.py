"""Exact learning coefficients of linear networks: at the worst zero of a map, and at one minimum.

Shape suffixes: I inputs, H hidden, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.coefficient import LearningCoefficient


def deep_linear(widths: Sequence[int], rank: int) -> LearningCoefficient:
    """Network W_L .. W_1 learning a linear map of given rank (Aoyagi 2024, theorem 1).

    With D_i = H_i - r, the set S holds the l + 1 smallest D such that max_S D < min_(not S) D,
    sum_S D >= l max_S D and sum_S D < l min_(not S) D; a = sum_S D - l (ceil(sum_S D / l) - 1);

    llc = (r (H_0 + H_L) - r^2) / 2 + a (l - a) / (4 l) - l (l - 1) / 4 (sum_S D / l)^2
          + 1/2 sum_(i < j in S) D_i D_j,        multiplicity = a (l - a) + 1.

    Args:
        widths: H_0 .. H_L, input to output, at least two.
        rank: r of the true map, 0 .. min(widths).

    Returns:
        The coefficient; invariant under any order of the hidden widths.

    Raises:
        ValueError: for fewer than two layers, a width below 1, or a rank out of range.

    >>> deep_linear([10, 10, 10], 3)
    LearningCoefficient(llc=Fraction(44, 1), multiplicity=2)
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths: got {list(widths)}, needs at least two, each >= 1")
    _check_rank(rank, min(widths))
    excess = sorted(width - rank for width in widths)
    # sum_S D - l max_S D falls with l, so the last l that keeps it >= 0 is the one asked for; the
    # two strict inequalities then hold of themselves.
    size = max(k for k in range(1, len(excess)) if sum(excess[: k + 1]) >= k * excess[k])
    chosen = excess[: size + 1]
    total = sum(chosen)
    a = total - size * (-(-total // size) - 1)
    pairs = sum(x * y for x, y in combinations(chosen, 2))
    llc = (
        Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
        + Fraction(a * (size - a), 4 * size)
        - Fraction((size - 1) * total**2, 4 * size)
        + Fraction(pairs, 2)
    )
    return LearningCoefficient(llc, a * (size - a) + 1)


class LocalMinimum(NamedTuple):
    """A minimum of a linear network of two layers.

    Attributes:
        coefficient: of this minimum alone, never below that of the worst zero of its map.
        regular: rank of the derivative of the map: equations that are linear here.
        rest: widths of the network at zero whose product is left; no singularity where one is 0.
    """

    coefficient: LearningCoefficient
    regular: int
    rest: tuple[int, int, int]


def two_layer_minimum(
    first_HI: np.ndarray, second_OH: np.ndarray, *, tolerance: float
) -> LocalMinimum:
    """Coefficient of the ideal of W_2 W_1 - (W_2 W_1)(w0) at a minimum w0 that training found.

    With r1, r2, r the ranks of W_1, W_2, W_2 W_1, the columns of W_2 that W_1 reaches and the rows
    of W_1 that W_2 sees solve linear equations (a Schur complement): O r1 + I r2 - r1 r2 squares.
    What is left is the product of a network of widths I - r1, H - r1 - r2 + r, O - r2 at zero,
    whose coefficient is `deep_linear` of rank 0 (Aoyagi and Watanabe 2005, theorem 1).

    Args:
        first_HI: W_1 at the minimum.
        second_OH: W_2.
        tolerance: singular values below this share of the largest of both matrices count as zero,
            for the product below this share of the square of it.

    Returns:
        The minimum.

    Raises:
        ValueError: for shapes that do not meet, or a tolerance outside (0, 1).
        Refused: where the three ranks contradict each other, as near the tolerance they may.

    >>> two_layer_minimum(np.diag([2.0, 0.0]), np.zeros((2, 2)), tolerance=1e-6)
    ... # doctest: +NORMALIZE_WHITESPACE
    LocalMinimum(coefficient=LearningCoefficient(llc=Fraction(3, 2), multiplicity=1),
                 regular=2, rest=(1, 1, 2))
    """
    num_hidden, num_in = first_HI.shape
    if second_OH.shape[1] != num_hidden:
        raise ValueError(f"second: got shape {second_OH.shape}, needs {num_hidden} columns")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: got {tolerance}, allowed between 0 and 1")
    scale = max(float(np.linalg.norm(w, 2)) for w in (first_HI, second_OH))
    r1, r2 = (int(np.linalg.matrix_rank(w, tolerance * scale)) for w in (first_HI, second_OH))
    rank = int(np.linalg.matrix_rank(second_OH @ first_HI, tolerance * scale**2))
    num_out = len(second_OH)
    rest = (num_in - r1, num_hidden - r1 - r2 + rank, num_out - r2)
    if min(rest) < 0 or rank > min(r1, r2):
        raise Refused(f"ranks {r1}, {r2} and {rank} of the product contradict each other")
    regular = num_out * r1 + num_in * r2 - r1 * r2
    own = deep_linear(rest, 0) if min(rest) else LearningCoefficient(Fraction(0), 1)
    llc = Fraction(regular, 2) + own.llc
    return LocalMinimum(LearningCoefficient(llc, own.multiplicity), regular, rest)


def _check_rank(rank: int, largest: int) -> None:
    if not 0 <= rank <= largest:
        raise ValueError(f"rank: got {rank}, allowed 0..{largest}")
