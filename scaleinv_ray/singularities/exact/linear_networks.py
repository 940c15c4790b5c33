"""Exact learning coefficients of deep linear networks, at the worst zero for a map of rank r."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

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


def _check_rank(rank: int, largest: int) -> None:
    if not 0 <= rank <= largest:
        raise ValueError(f"rank: got {rank}, allowed 0..{largest}")
