"""Momentum-space coarse-graining: projections on the leading eigenvectors of the correlation.

Shape suffixes: T rows, N units, K levels.
"""

from __future__ import annotations

import numpy as np


def projected_kurtosis(x_TN: np.ndarray, sizes_K: np.ndarray) -> np.ndarray:
    """Mean kurtosis of the units after projection on the leading eigenvectors.

    phi_i(K) = sum_j P_ij z_j, z the standardised units, P the projector on the K leading
    eigenvectors of their correlation; the mean over i of <phi_i^4> / <phi_i^2>^2 (Bradde & Bialek,
    J. Stat. Phys. 167:462, 2017; Meshulam et al., PRL 123:178103, 2019).

    Args:
        x_TN: rows; every unit varies.
        sizes_K: numbers of eigenvectors, 1 .. N.

    Returns:
        A kurtosis for each size (3: Gaussian).

    >>> corner = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> projected_kurtosis(corner, np.array([2])).tolist()
    [1.0]
    """
    z_TN = x_TN - x_TN.mean(axis=0, dtype=np.float64)
    z_TN /= np.sqrt((z_TN**2).mean(axis=0))
    vector_NN = np.linalg.eigh(z_TN.T @ z_TN)[1][:, ::-1]
    score_TN = z_TN @ vector_NN
    found = []
    for size in sizes_K:
        phi_TN = score_TN[:, :size] @ vector_NN[:, :size].T
        np.square(phi_TN, out=phi_TN)
        fourth_N = np.einsum("tn,tn->n", phi_TN, phi_TN) / len(phi_TN)
        found.append((fourth_N / phi_TN.mean(axis=0) ** 2).mean())
    return np.array(found)
