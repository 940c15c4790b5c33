"""Power-law tails of a list of positive numbers: the scan over xmin, and Hill's estimator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate

SLAB = 2**14
"""Numbers held at a time: 128 KiB stay in the second-level cache."""


class PowerTail(NamedTuple):
    """A power law p(x) ~ x^-alpha on x >= xmin, its asymptotic error and Kolmogorov distance."""

    alpha: float
    sigma: float
    xmin: float
    n_tail: int
    distance: float


def _distances(log_x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Distance D_i of every candidate start i < n - 1, in slabs."""
    # In place: fresh memory for each step costs several times what the exponentials do.
    n = len(log_x)
    rank, distance = np.arange(n, dtype=np.float64), np.empty(n - 1)
    start = 0
    while start < n - 1:
        stop = min(start + max(1, SLAB // (n - start)), n - 1)
        exceeding = log_x[start:] - log_x[start:stop, None]
        exceeding *= 1.0 - alpha[start:stop, None]
        np.exp(np.minimum(exceeding, 0.0, out=exceeding), out=exceeding)
        below = rank[start:] - rank[start:stop, None]
        np.maximum(below, 0.0, out=below)
        below /= n - rank[start:stop, None]
        # Both clips turn the columns j < i into |0 + 1 - 1| = 0, so no mask is needed.
        below += exceeding
        below -= 1.0
        distance[start:stop] = np.abs(below, out=below).max(axis=1)
        start = stop
    return distance


def stored_rounding(dtype: str, count: int) -> float:
    """Spread, over the largest, that rounding alone gives to equal eigenvalues of a Gram matrix.

    64 count eps of the factorisation that made the entries and of the eigenvalues, at most those of
    float32. Rounding entries to fewer bits moves an eigenvalue by about 1.2 eps, whatever the
    size (noise of .3 eps |w_ij|), hence 8 eps there.

    Args:
        dtype: name of the type of entries; integers count as float64.
        count: of eigenvalues.

    Returns:
        The bound.

    >>> stored_rounding("bfloat16", 64)
    0.0625
    """
    coarse = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 0.0)
    fine = np.finfo(np.float32 if coarse or dtype == "float32" else np.float64).eps
    return max(64.0 * count * float(fine), 8.0 * coarse)


def fit_power_tail(values: np.ndarray, *, rounding: float = 0.0) -> PowerTail:
    """Power-law tail by the scan of Clauset, Shalizi & Newman (2009), without a minimum tail.

    For every start i < n - 1 of the sorted values, with n_i = n - i,
    alpha_i = 1 + n_i / sum_{j>=i} ln(x_j / x_i) and
    D_i = max_{j>=i} |1 - (x_j / x_i)^(1 - alpha_i) - (j - i) / n_i|; the first least D_i wins.
    (i = n - 1 is no candidate: its sum is empty and its D would be 0.) This is the definition of
    WeightWatcher 0.7.7 (which has another rule below 20 values; here one rule holds for all n);
    sigma = (alpha - 1) / sqrt(n_i) ignores the choice of xmin.

    Args:
        values: positive numbers, at least two of them different.
        rounding: spread over the largest value up to which all count as equal; at least that of
            float64 (`stored_rounding`).

    Returns:
        The fit at the chosen start.

    Raises:
        Refused: fewer than two values, or all equal, exactly or within rounding.

    >>> fit = fit_power_tail(np.linspace(0.0005, 0.9995, 1000) ** -0.5)  # p(x) ~ x^-3
    >>> round(fit.alpha, 1), fit.n_tail > 900
    (3.0, True)
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    log_x = np.log(x)
    num_tail = n - np.arange(n - 1)
    # Summing n_{k+1} ln(x_{k+1} / x_k) >= 0 from the top avoids the cancellation of
    # sum ln x_j - n_i ln x_i.
    log_sum = np.cumsum(((num_tail - 1) * np.diff(log_x))[::-1])[::-1]
    usable = log_sum > 0
    if not usable.any():
        raise Refused(f"spectrum: all {n} eigenvalues are equal, there is no tail to fit")
    if x[-1] - x[0] <= max(rounding, stored_rounding("float64", n)) * x[-1]:
        raise Refused("spectrum: eigenvalues are equal within rounding, there is no tail")
    alpha = 1.0 + np.divide(num_tail, log_sum, out=np.zeros(n - 1), where=usable)
    distance = _distances(log_x, alpha)
    best = int(np.argmin(np.where(usable, distance, 1.0)))
    sigma = float((alpha[best] - 1.0) / math.sqrt(n - best))
    return PowerTail(float(alpha[best]), sigma, float(x[best]), n - best, float(distance[best]))


def hill_exponent(values: np.ndarray, *, fraction: float = 0.5) -> float:
    """Exponent of a power-law density from its largest values, without a scan over xmin.

    With the k = floor(fraction n) largest of the sorted values and xmin the next one,
    alpha = 1 + k / sum_{j > n - k} ln(x_j / xmin) (Hill, Ann. Stat. 3:1163, 1975). Since k / n is
    fixed it is a smooth functional of the distribution: of eigenvalues that follow a limit law it
    converges with n, where the scan drifts towards the law's edge for ever.

    Args:
        values: positive numbers.
        fraction: of the values that are the tail.

    Returns:
        alpha.

    Raises:
        ValueError: with a fraction outside (0, 1).
        Refused: fewer than 2 values in the tail, or all of the tail equal.

    >>> round(hill_exponent(np.linspace(0.0005, 0.9995, 1000) ** -0.5), 2)  # p(x) ~ x^-3
    3.0
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: got {fraction}, allowed 0 < fraction < 1")
    log_x = np.sort(np.log(np.asarray(values, dtype=np.float64)))
    num_tail = int(fraction * len(log_x))
    if num_tail < 2:
        raise Refused(f"spectrum: {num_tail} of {len(log_x)} eigenvalues in the tail, needs 2")
    log_sum = float((log_x[-num_tail:] - log_x[-num_tail - 1]).sum())
    if log_sum <= 0:
        raise Refused(
            f"spectrum: the largest {num_tail + 1} eigenvalues are equal, there is no tail"
        )
    return 1.0 + num_tail / log_sum


def null_score(alpha: Estimate, null_alpha: Sequence[float]) -> Estimate | Refused:
    """(ln alpha - mean) / sd over the exponents of a null, with the scatter of both in its error.

    Args:
        alpha: the exponent, with its error.
        null_alpha: those of the null, at least two.

    Returns:
        The score; a refusal where the null does not vary or alpha has no error.

    >>> round(null_score(Estimate(4.0, 0.0, 50, "fit"), [1.0, 4.0]).value, 4)
    0.7071
    """
    log_null = np.log(null_alpha)
    num_null, spread = len(log_null), float(np.std(log_null, ddof=1))
    if alpha.stderr is None:
        return Refused("alpha: got no error, a score of it would have none")
    if spread == 0:
        return Refused("null: its exponents do not vary")
    score = (math.log(alpha.value) - float(np.mean(log_null))) / spread
    of_fit = alpha.stderr / (alpha.value * spread)
    of_null = math.sqrt(1.0 / num_null + score**2 / (2.0 * (num_null - 1)))
    return Estimate(score, math.hypot(of_fit, of_null), num_null, "fit")
