"""What learning coefficients at several temperatures or localisers say together. Suffix K: rungs.

The mean of nbeta K under exp(-nbeta K) is -d ln Z / d ln nbeta. With Z ~ c nbeta^-lambda
(log nbeta + b)^(m-1) (Watanabe 2009, theorem 6.7) it is lambda - (m - 1) / (log nbeta + b): at one
temperature a multiplicity of 2 costs a fifth of lambda.
"""

from __future__ import annotations

import math

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate

LEAST_OFFSET = 2.0
"""Least log nbeta + b of a chain that is local: about log(nbeta K_0 / lambda), K_0 the loss where
the law begins, and ladders begin at nbeta = 10 lambda."""
_OFFSETS = np.geomspace(LEAST_OFFSET, 30.0, 2000)


def multiplicity_fit(
    nbeta_K: np.ndarray, value_K: np.ndarray, stderr_K: np.ndarray, *, multiplicity: int
) -> Estimate:
    """Learning coefficient from lambda - (m - 1) / (log nbeta + b) fitted to a ladder.

    Weighted least squares. For m > 1 the offset B = log nbeta_1 + b at the lowest nbeta is
    averaged over, with a prior even in log B over 2 .. 30 (a prior on B, not on b, keeps the
    answer free of the unit of the loss). A chi^2 above its degrees of freedom widens the error.

    Args:
        nbeta_K: inverse temperatures.
        value_K: nbeta * mean excess loss at each.
        stderr_K: standard errors, positive.
        multiplicity: m.

    Returns:
        lambda; n rungs.

    Raises:
        ValueError: for a multiplicity below 1.
        Refused: with fewer than two different nbeta, three for m > 1.

    >>> nbeta = np.geomspace(10, 1e6, 6)
    >>> value = 0.5 - 1 / (np.log(nbeta) + 2)
    >>> fit = multiplicity_fit(nbeta, value, np.full(6, 1e-3), multiplicity=2)
    >>> abs(fit.value - 0.5) < 0.003
    True
    """
    if multiplicity < 1:
        raise ValueError(f"multiplicity: got {multiplicity}, allowed 1 or more")
    rungs, least = len(np.unique(nbeta_K)), 2 + (multiplicity > 1)
    if rungs < least:
        raise Refused(f"got {rungs} different nbeta, needs {least}")
    weight_K = stderr_K**-2.0
    offset_J = _OFFSETS if multiplicity > 1 else np.ones(1)
    log_JK = offset_J[:, None] + np.log(nbeta_K / nbeta_K.min())
    target_JK = value_K + (multiplicity - 1) / log_JK
    llc_J = target_JK @ weight_K / weight_K.sum()
    chi2_J = ((target_JK - llc_J[:, None]) ** 2) @ weight_K
    mass_J = np.exp((chi2_J.min() - chi2_J) / 2)
    mass_J /= mass_J.sum()
    mean = float(mass_J @ llc_J)
    variance = _widened(float(chi2_J.min()), len(nbeta_K) - least + 1) / float(weight_K.sum())
    stderr = math.sqrt(variance + float(mass_J @ (llc_J - mean) ** 2))
    return Estimate(mean, stderr, len(nbeta_K), "fit")


def log_slope(
    x_K: np.ndarray, value_K: np.ndarray, stderr_K: np.ndarray, group_K: np.ndarray
) -> Estimate:
    """Logarithmic slope d ln value / d ln x within groups: one slope, a level for each.

    Args:
        x_K: positive.
        value_K: positive.
        stderr_K: standard errors of the values, positive.
        group_K: rungs of one group differ in x alone.

    Returns:
        The slope by weighted least squares; n rungs of groups with two different x or more.

    Raises:
        Refused: where no group has two different x.

    >>> x = np.array([1.0, 10.0, 100.0])
    >>> round(log_slope(x, 3 * x**0.2, 0.01 * x**0.2, np.zeros(3)).value, 12)
    0.2
    """
    y_K, log_K, weight_K = np.log(value_K), np.log(x_K), (value_K / stderr_K) ** 2
    own_y, own_x, used_K = np.zeros_like(y_K), np.zeros_like(y_K), np.zeros(len(y_K), dtype=bool)
    groups = 0
    for group in np.unique(group_K):
        at = group_K == group
        if len(np.unique(x_K[at])) < 2:
            continue
        groups += 1
        used_K |= at
        own_y[at] = y_K[at] - np.average(y_K[at], weights=weight_K[at])
        own_x[at] = log_K[at] - np.average(log_K[at], weights=weight_K[at])
    if not groups:
        raise Refused("no two different values")
    lever = float(weight_K @ own_x**2)
    slope = float(weight_K @ (own_x * own_y)) / lever
    chi2 = float(weight_K[used_K] @ (own_y - slope * own_x)[used_K] ** 2)
    count = int(used_K.sum())
    stderr = math.sqrt(_widened(chi2, count - groups - 1) / lever)
    return Estimate(slope, stderr, count, "fit")


def _widened(chi2: float, degrees: int) -> float:
    """Factor on the variance, so that a fit that misses its points says so."""
    return max(1.0, chi2 / degrees) if degrees > 0 else 1.0
