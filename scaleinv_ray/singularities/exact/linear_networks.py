"""Exact learning coefficients of deep linear networks, at the worst zero of a true map of rank r.

The two functions are independent closed forms of two papers; for one hidden layer they agree.
"""

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


def reduced_rank(
    num_inputs: int, num_hidden: int, num_outputs: int, rank: int
) -> LearningCoefficient:
    """Reduced-rank regression, one hidden layer (Aoyagi and Watanabe 2005, main theorem).

    With M inputs, H hidden units, N outputs, rank r and s = H + r: where none of M + N < s,
    M + H < N + r, N + H < M + r holds,
    llc = (2 s M + 2 s N + 2 M N - s^2 - M^2 - N^2) / 8 and multiplicity 1 where s + M + N is even;
    1/8 more and multiplicity 2 where it is odd. Else, multiplicity 1 and
    M N / 2,  (H M - H r + N r) / 2,  (H N - H r + M r) / 2  in that order.

    Args:
        num_inputs: M.
        num_hidden: H.
        num_outputs: N.
        rank: r of the true map, 0 .. min(M, H, N).

    Returns:
        The coefficient.

    Raises:
        ValueError: for a size below 1 or a rank out of range.

    >>> reduced_rank(8, 4, 8, 2)
    LearningCoefficient(llc=Fraction(39, 2), multiplicity=1)
    """
    m, h, n, r = num_inputs, num_hidden, num_outputs, rank
    if min(m, h, n) < 1:
        raise ValueError(f"sizes: got {m}, {h}, {n}, each must be >= 1")
    _check_rank(r, min(m, h, n))
    if m + n < h + r:
        return LearningCoefficient(Fraction(m * n, 2), 1)
    if m + h < n + r:
        return LearningCoefficient(Fraction(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return LearningCoefficient(Fraction(h * n - h * r + m * r, 2), 1)
    s = h + r
    odd = (s + m + n) % 2
    balanced = 2 * s * m + 2 * s * n + 2 * m * n - s**2 - m**2 - n**2
    return LearningCoefficient(Fraction(balanced + odd, 8), 1 + odd)


def _check_rank(rank: int, largest: int) -> None:
    if not 0 <= rank <= largest:
        raise ValueError(f"rank: got {rank}, allowed 0..{largest}")
