"""How many seeds a series needs before it can be certified as conserved."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special, stats

POWER = 0.80
LEAST_SEEDS = 3
MOST_SEEDS = 1000


@lru_cache(maxsize=64)
def _range_quantile(num_sizes: int) -> float:
    return float(stats.studentized_range.ppf(POWER, num_sizes, np.inf))


def seeds_for_conserved(seed_sd: float, *, delta: float, num_sizes: int) -> int:
    """Seeds per size with which a truly constant series is certified with power .8.

    The least s >= 3 with (r_{.8,k} + sqrt(2) t_{.95,2(s-1)}) seed_sd / sqrt(s) < delta, where
    r_{.8,k} is the .8 quantile of the range of k standard normals: the width W of the TOST at
    the .8 quantile of the range of its means. The df are those of a pair (Welch), since few seeds
    look unequal in variance by chance, three less so than two (power .2 where pooling has .8).

    Args:
        seed_sd: standard deviation over seeds, on the scale of delta.
        num_sizes: sizes k >= 2.

    Returns:
        Seeds per size, at most 1000.

    >>> [seeds_for_conserved(r, delta=1.0, num_sizes=5) for r in (0.2, 0.3, 0.5)]
    [3, 4, 8]
    """
    if seed_sd == 0:
        return LEAST_SEEDS
    spread = _range_quantile(num_sizes)
    least = max(
        LEAST_SEEDS, math.floor((spread + 1.6448 * math.sqrt(2)) ** 2 * (seed_sd / delta) ** 2)
    )
    for seeds in range(min(least, MOST_SEEDS), MOST_SEEDS):
        t = float(special.stdtrit(2 * (seeds - 1), 0.95))
        if (spread + math.sqrt(2) * t) * seed_sd / math.sqrt(seeds) < delta:
            return seeds
    return MOST_SEEDS
