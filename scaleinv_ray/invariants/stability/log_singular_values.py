"""Singular values of matrices, as logarithms.

Shape suffixes: T positions, D width.
"""

from __future__ import annotations

import numpy as np


def centred(j_TDD: np.ndarray) -> np.ndarray:
    """P J P, with P the projector orthogonal to the all-ones direction."""
    j_TDD = j_TDD - j_TDD.mean(axis=1, keepdims=True)
    return j_TDD - j_TDD.mean(axis=2, keepdims=True)


def log_singular_values(j_TDD: np.ndarray, *, without_ones: bool = False) -> np.ndarray:
    """Logarithms of the singular values of matrices, from the largest down.

    Args:
        j_TDD: square matrices.
        without_ones: of the map between the vectors whose entries sum to zero, D - 1 of them.

    Returns:
        ln s, [T, D] or [T, D - 1]; -infinity where s is below its rounding error D eps s_max.

    >>> log_singular_values(np.array([[[0.0, 2.0], [0.0, 0.0]]])).round(3).tolist()
    [[0.693, -inf]]
    """
    if without_ones:
        j_TDD = centred(j_TDD)
    s_TD = np.linalg.svd(j_TDD, compute_uv=False)
    floor_T = j_TDD.shape[-1] * np.finfo(np.float64).eps * s_TD.max(axis=1)
    if without_ones:  # centring both sides left one zero, the smallest
        s_TD = s_TD[:, :-1]
    log_TD = np.full(s_TD.shape, -np.inf)
    return np.log(s_TD, out=log_TD, where=s_TD > floor_T[:, None])
