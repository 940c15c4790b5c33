"""What certifies a design: equivalence with the target on seeds that the search never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA = 0.05
POWER = 0.80
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Certificate:
    """Equivalence of a mean with a target.

    Attributes:
        mean: of the values (geometric).
        stderr: of the mean, in the same units.
        off: ln(mean / target).
        half_width: of the 90 % interval of `off`.
        p: of the two one-sided tests together.
        seeds_needed: with which a design like this is certified with power .8; None where its mean
            lies outside the margin, so that no number of seeds does it.
    """

    mean: float
    stderr: float
    off: float
    half_width: float
    p: float
    seeds_needed: int | None

    @property
    def certified(self) -> bool:
        """Whether |ln(mean / target)| is below the margin at level .05."""
        return self.p < ALPHA


def certify(values: Sequence[float], *, target: float, margin: float) -> Certificate:
    """Two one-sided t tests (Schuirmann 1987) of |ln(mean / target)| < margin.

    Args:
        values: one a seed, none of them seen in the search; at least two.
        target: > 0.
        margin: of the logarithm.

    Returns:
        Certificate.

    Raises:
        ValueError: for fewer than two values, and values that are not above zero.

    >>> certify([1.49, 1.51, 1.50, 1.50, 1.50], target=1.5, margin=0.05).certified
    True
    """
    y = np.asarray(values, dtype=np.float64)
    if len(y) < 2 or not (y > 0).all():
        raise ValueError(f"values: got {list(values)}, allowed two or more numbers > 0")
    log_y = np.log(y / target)
    off, sd, df = float(log_y.mean()), float(log_y.std(ddof=1)), len(y) - 1
    se = sd / math.sqrt(len(y))
    room = margin - abs(off)
    p = float(special.stdtr(df, -room / se)) if se > 0 else float(room <= 0)
    mean = target * math.exp(off)
    half = float(special.stdtrit(df, 1 - ALPHA)) * se
    return Certificate(mean, mean * se, off, half, p, _seeds(sd, room))


def _seeds(sd: float, room: float) -> int | None:
    """Least number whose interval is expected to lie within the room left, with power .8."""
    if room <= 0:
        return None
    normal = special.ndtri(1 - ALPHA) + special.ndtri(POWER)
    least = min(max(2, math.floor((normal * sd / room) ** 2)), MOST_SEEDS)
    for n in range(least, MOST_SEEDS):
        t = special.stdtrit(n - 1, 1 - ALPHA) + special.stdtrit(n - 1, POWER)
        if t * sd / math.sqrt(n) <= room:
            return n
    return MOST_SEEDS
