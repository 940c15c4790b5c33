"""The joint game: what sets of components do together, not one by one.

Shape suffixes: C sets, N components (players), S sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Value = Callable[[np.ndarray], np.ndarray]
"""Sets as bool [C, N] -> their values [C, S], v of the empty set being 0."""


class Shapley(NamedTuple):
    """Shares of every component in v(all).

    Attributes:
        share_NS: they sum to v(all) of each sequence.
        stderr_N: of the mean over sequences, from the antithetic pairs.
        pairs: of permutations that were drawn.
    """

    share_NS: np.ndarray
    stderr_N: np.ndarray
    pairs: int


def shapley(
    value: Value, n: int, *, pairs: int, rng: np.random.Generator, enough: float = 0.0
) -> Shapley:
    """Shapley values by permutations, each with its reverse (Castro et al. 2009).

    phi_c is the mean over permutations of v(S + c) - v(S), S being what comes before c. A pair of a
    permutation and its reverse is one draw: their errors cancel where v is quadratic in members.

    Args:
        value: of the game.
        n: components.
        pairs: of permutations, at most; n - 1 sets each way.
        rng: draws them.
        enough: standard error, root mean square over components, at which no more are drawn.

    Raises:
        ValueError: for fewer than two pairs (no error is known).
    """
    if pairs < 2:
        raise ValueError(f"pairs: got {pairs}, allowed >= 2 (their spread is the error)")
    draws: list[np.ndarray] = []
    stderr_N = np.full(n, np.inf)
    while len(draws) < pairs and np.sqrt((stderr_N**2).mean()) > enough:
        order = rng.permutation(n)
        draws.append((_gains(value, order) + _gains(value, order[::-1])) / 2)
        if len(draws) > 1:
            means_DN = np.array(draws).mean(axis=2)
            stderr_N = means_DN.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return Shapley(np.array(draws).mean(axis=0), stderr_N, len(draws))


def prefixes(order: np.ndarray) -> np.ndarray:
    """The sets that an order goes through: bool [n, n], of its first component, first two, ..

    >>> prefixes(np.array([1, 0])).tolist()
    [[False, True], [True, True]]
    """
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    return rank[None, :] <= np.arange(len(order))[:, None]


def _gains(value: Value, order: np.ndarray) -> np.ndarray:
    along_NS = value(prefixes(order))
    gains_NS = np.diff(along_NS, axis=0, prepend=0.0)
    found_NS = np.empty_like(gains_NS)
    found_NS[order] = gains_NS
    return found_NS


def greedy(value: Value, n: int, *, share: float = 1.0, most: float = np.inf) -> np.ndarray:
    """An order of components, each the one that brings the mean of v nearest to v(all).

    Args:
        value: of the game; n (n + 1) / 2 sets are run for a whole order.
        n: components.
        share: of v(all) at which the order may end.
        most: sets that may be run.

    Returns:
        Indices in order, fewer than n where the share was reached; none where `most` ran out.
    """
    aim = float(value(np.ones((1, n), dtype=bool)).mean())
    chosen: list[int] = []
    reached, run = 0.0, 1
    while len(chosen) < n and reached * np.sign(aim) < share * abs(aim) or not chosen:
        left = np.setdiff1d(np.arange(n), chosen)
        run += len(left)
        if run > most:
            return np.empty(0, dtype=int)
        sets = np.zeros((len(left), n), dtype=bool)
        sets[:, chosen] = True
        sets[np.arange(len(left)), left] = True
        means = value(sets).mean(axis=1)
        best = int(np.abs(means - aim).argmin())
        reached = float(means[best])
        chosen.append(int(left[best]))
    return np.array(chosen, dtype=int)


def size_for(along_N: np.ndarray, share: float = 0.9) -> int:
    """The smallest k whose first k components have a share of v(all); n90 with the default.

    Args:
        along_N: mean v of the first component of a ranking, the first two, .., all.
        share: of the last one.

    >>> size_for(np.array([1.0, 5.0, 9.5, 10.0]))
    3
    """
    whole = along_N[-1]
    return int(np.flatnonzero(along_N * np.sign(whole) >= share * abs(whole))[0]) + 1
