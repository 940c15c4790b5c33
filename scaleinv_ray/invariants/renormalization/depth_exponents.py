"""Exponents of the same units at every depth of a stack.

Shape suffixes: T rows, D width, N units, L depths, B blocks of sequences, R replicates.
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.invariants.common.block_replicates import (
    about_row_means,
    alive_in_replicates,
    block_covariances,
)
from scaleinv_ray.invariants.renormalization.scaling_exponents import largest_cluster, scaling
from scaleinv_ray.records import DepthStack


def ranked_units(stack: DepthStack, rows_B: list[np.ndarray]) -> np.ndarray:
    """Units that vary at every depth, by their share of the variance: an order without names.

    Args:
        stack: x_LTD; where it `removes_mean`, `about_row_means`.
        rows_B: rows of every block.

    Returns:
        Their indices.
    """
    share_D, alive_D = np.zeros(stack.x_LTD.shape[2]), np.ones(stack.x_LTD.shape[2], dtype=bool)
    for depth in range(len(stack.x_LTD)):
        x_TD = _rows(stack, depth, rows_B)
        alive_D &= alive_in_replicates(x_TD, rows_B)
        variance_D = x_TD.var(axis=0, dtype=np.float64)
        share_D += variance_D / max(variance_D.sum(), np.finfo(np.float64).tiny)
    order = np.argsort(share_D, kind="stable")
    return order[alive_D[order]]


def depth_exponents(
    stack: DepthStack, unit_N: np.ndarray, rows_B: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """alpha, mu and the participation ratio of the covariance over N, at every depth.

    Args:
        stack: x_LTD.
        unit_N: units, each of which varies in every replicate at every depth.
        rows_B: rows of every block.

    Returns:
        alpha [R, L], mu [R, L] (nan where eigenvalues vanish) and (tr C)^2 / (N tr C^2) [R, L].
    """
    largest, found = largest_cluster(len(unit_N)), []
    for depth in range(len(stack.x_LTD)):
        covariance_RNN = block_covariances(_rows(stack, depth, rows_B)[:, unit_N], rows_B)
        trace_R = np.trace(covariance_RNN, axis1=1, axis2=2)
        share_R = trace_R**2 / (covariance_RNN**2).sum(axis=(1, 2)) / len(unit_N)
        exponents = scaling(covariance_RNN, largest=largest)
        found.append((exponents.alpha_R, exponents.mu_R, share_R))
    alpha_LR, mu_LR, share_LR = (np.array(values) for values in zip(*found, strict=True))
    return alpha_LR.T, mu_LR.T, share_LR.T


def _rows(stack: DepthStack, depth: int, rows_B: list[np.ndarray]) -> np.ndarray:
    """Rows at one depth in single precision or better, about their mean where that is removed."""
    x_TD = stack.x_LTD[depth]
    x_TD = x_TD.astype(np.result_type(x_TD.dtype, np.float32), copy=False)
    return about_row_means(x_TD, rows_B) if stack.removes_mean else x_TD
