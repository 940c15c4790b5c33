"""Surrogate data: what a statistic would be if only part of the structure were there.

Shape suffixes: T rows, D width.
"""

from __future__ import annotations

import numpy as np


def matched_gaussian(x_TD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian rows with the mean and the covariance of the given rows.

    Row t is mean + sum_s g_ts (x_s - mean) / sqrt(T - 1) with g standard normal: conditionally on
    the data its covariance is the sample covariance, without a factorisation.

    Args:
        x_TD: rows.
        rng: of the normal numbers.

    Returns:
        As many rows of the same width, float64.

    >>> x_TD = np.array([[1.0, 0.0], [-1.0, 0.0]] * 50)
    >>> bool(np.all(matched_gaussian(x_TD, np.random.default_rng(0))[:, 1] == 0))
    True
    """
    x_TD = np.asarray(x_TD, dtype=np.float64)
    mean_D = x_TD.mean(axis=0)
    centred_TD = x_TD - mean_D
    num_rows, width = centred_TD.shape
    if width < num_rows:  # the triangular factor has the same covariance and fewer rows
        centred_TD = np.linalg.qr(centred_TD, mode="r")
    factor_SD = centred_TD / np.sqrt(num_rows - 1)
    return mean_D + rng.standard_normal((num_rows, len(factor_SD))) @ factor_SD
