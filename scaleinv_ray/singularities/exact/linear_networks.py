"""Exact learning coefficients of linear networks: at the worst zero of a map, and at one minimum.

Shape suffixes: I inputs, H hidden, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise, product
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
    """A minimum of a deep linear network.

    Attributes:
        coefficient: of this minimum alone, never below that of the worst zero of its map.
        regular: rank of the derivative of the map: equations that are linear here.
        rest: widths of the network at zero whose product is left; empty where none is.
    """

    coefficient: LearningCoefficient
    regular: int
    rest: tuple[int, ...]


_Interval = tuple[int, int]
"""First and last layer of values that go through weights of size one in between."""


def linear_minimum(weights: Sequence[np.ndarray], *, tolerance: float) -> LocalMinimum:
    """Coefficient of the ideal of W_L .. W_1 - (W_L .. W_1)(w0) at a minimum that training found.

    Up to changes of bases, weights are sums of intervals: values that arise at layer s and are lost
    behind layer e. Their numbers follow from the ranks of all partial products. What comes in and
    lives to layer j meets what goes out and arises at layer i in a linear equation where
    i <= j + 1; else in the product of what lies between, at zero. Where one such product is left,
    its coefficient is `deep_linear` of rank 0. For two layers of ranks r1, r2 and a product of
    rank r: O r1 + I r2 - r1 r2 linear equations and the widths I - r1, H - r1 - r2 + r, O - r2
    (Aoyagi and Watanabe 2005, theorem 1).

    Args:
        weights: W_1 .. W_L, outputs by inputs of each.
        tolerance: singular values of a product of l matrices below this share of s^l count as zero,
            s the largest of all matrices.

    Returns:
        The minimum.

    Raises:
        ValueError: for shapes that do not meet, or a tolerance outside (0, 1).
        Refused: where the ranks contradict each other, as near the tolerance they may, and where
            several products are left that share factors.

    >>> linear_minimum([np.diag([2.0, 0.0]), np.zeros((2, 2))], tolerance=1e-6)
    ... # doctest: +NORMALIZE_WHITESPACE
    LocalMinimum(coefficient=LearningCoefficient(llc=Fraction(3, 2), multiplicity=1),
                 regular=2, rest=(1, 1, 2))
    """
    for before, after in pairwise(weights):
        if after.shape[1] != len(before):
            raise ValueError(f"weights: got shape {after.shape}, needs {len(before)} columns")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: got {tolerance}, allowed between 0 and 1")
    number, last = _intervals(weights, tolerance), len(weights)
    incoming = [(0, j) for j in range(last + 1) if number[0, j]]
    outgoing = [(i, last) for i in range(last + 1) if number[i, last]]
    between = [(s, e) for (s, e), num in number.items() if num and 0 < s and e < last]
    regular, rests = 0, []
    for a, b in product(incoming, outgoing):
        if b[0] <= a[1] + 1:
            regular += number[a] * number[b]
        else:
            rests += _routes((a,), b, between)
    if len(rests) > 1:
        raise Refused(
            f"{len(rests)} products are left that share factors: no closed form; "
            f"the coefficient is at least {Fraction(regular, 2)}"
        )
    rest = tuple(number[interval] for interval in rests[0]) if rests else ()
    own = deep_linear(rest, 0) if rest else LearningCoefficient(Fraction(0), 1)
    llc = Fraction(regular, 2) + own.llc
    return LocalMinimum(LearningCoefficient(llc, own.multiplicity), regular, rest)


def _intervals(weights: Sequence[np.ndarray], tolerance: float) -> dict[_Interval, int]:
    """How many values arise at layer s and are last seen at layer e."""
    scale, last = max(float(np.linalg.norm(w, 2)) for w in weights), len(weights)
    widths = [weights[0].shape[1], *map(len, weights)]
    rank = {(s, e): 0 for s in range(-1, last + 1) for e in range(s, last + 2)}
    for s in range(last + 1):
        rank[s, s], reached = widths[s], np.eye(widths[s])
        for e in range(s + 1, last + 1):
            reached = weights[e - 1] @ reached
            rank[s, e] = int(np.linalg.matrix_rank(reached, tolerance * scale ** (e - s)))
    number = {
        (s, e): rank[s, e] - rank[s - 1, e] - rank[s, e + 1] + rank[s - 1, e + 1]
        for s in range(last + 1)
        for e in range(s, last + 1)
    }
    if min(number.values()) < 0:
        found = {f"W_{e}..W_{s + 1}": rank[s, e] for s, e in number if e > s}
        raise Refused(f"ranks {found} contradict each other: change the tolerance")
    return number


def _routes(
    so_far: tuple[_Interval, ...], goal: _Interval, between: Sequence[_Interval]
) -> list[tuple[_Interval, ...]]:
    """Ways through small weights: each of them leads on where its start is reached, and further."""
    first, reached = so_far[-1]
    if goal[0] <= reached + 1:
        return [(*so_far, goal)]
    following = [(s, e) for s, e in between if first < s <= reached + 1 <= e]
    return [found for one in following for found in _routes((*so_far, one), goal, between)]


def _check_rank(rank: int, largest: int) -> None:
    if not 0 <= rank <= largest:
        raise ValueError(f"rank: got {rank}, allowed 0..{largest}")
