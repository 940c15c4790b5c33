"""Lyapunov exponents of products of matrices, and singular values of single ones, as logarithms.

Shape suffixes: K factors of a product, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scaleinv_ray.contract import Refused


def log_stretches(factors: Iterable[np.ndarray]) -> np.ndarray:
    """Growth of an orthonormal frame under each factor of a product J_K .. J_2 J_1, by QR.

    Q_0 = 1 and J_k Q_{k-1} = Q_k R_k, so that J_K .. J_1 = Q_K R_K .. R_1 with no overflow: the
    logarithms ln |R_k,ii| of one k say by how much the i-th direction of the frame grew (Benettin
    et al., Meccanica 15:9, 1980). Their sum over i is ln |det J_k|, exactly.

    Args:
        factors: square matrices of one size, in the order in which they act.

    Returns:
        ln |R_k,ii|, [K, D]; columns are not sorted.

    Raises:
        ValueError: without factors, or with one that is not square like the first.
        Refused: entries that are not finite, or a singular factor: its exponent is -infinity.

    >>> log_stretches([np.diag([4.0, 0.5]), np.diag([0.25, 2.0])]).round(3).tolist()
    [[1.386, -0.693], [-1.386, 0.693]]
    """
    logs: list[np.ndarray] = []
    frame_DD: np.ndarray | None = None
    for k, j_DD in enumerate(factors):
        size = len(j_DD)
        frame_DD = np.eye(size) if frame_DD is None else frame_DD
        if j_DD.shape != frame_DD.shape:
            raise ValueError(f"factor {k}: got shape {j_DD.shape}, allowed {frame_DD.shape}")
        if not np.isfinite(j_DD).all():
            raise Refused(f"factor {k}: has NaN or infinite entries")
        frame_DD, upper_DD = np.linalg.qr(j_DD.astype(np.float64, copy=False) @ frame_DD)
        stretch_D = np.abs(np.diag(upper_DD))
        if stretch_D.min() <= size * np.finfo(np.float64).eps * stretch_D.max():
            raise Refused(f"factor {k}: is singular, an exponent is -infinity")
        logs.append(np.log(stretch_D))
    if not logs:
        raise ValueError("factors: got none, allowed at least one")
    return np.array(logs)


def lyapunov_exponents(factors: Iterable[np.ndarray]) -> np.ndarray:
    """Lyapunov exponents of a product of matrices per factor, from the largest down.

    lambda_i = (1 / K) sum_k ln |R_k,ii| (`log_stretches`); they tend to the exponents of the
    process as K grows. Over the 6 to 36 layers of a transformer they have not converged (the frame
    still turns): a diagnostic there, not an invariant. Truth: factors with independent N(0, 1/d)
    entries have lambda_k = [ln(2 / d) + psi((d - k + 1) / 2)] / 2 at every K (Newman, Commun.
    Math. Phys. 103:121, 1986).

    Args:
        factors: square matrices of one size, in the order in which they act.

    Returns:
        lambda_D, descending.

    Raises:
        ValueError: without factors, or with one that is not square like the first.
        Refused: entries that are not finite, or a singular factor.

    >>> lyapunov_exponents([np.diag([np.exp(-2.0), np.e])] * 3).round(9).tolist()
    [1.0, -2.0]
    """
    return np.sort(log_stretches(factors).mean(axis=0))[::-1]


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
