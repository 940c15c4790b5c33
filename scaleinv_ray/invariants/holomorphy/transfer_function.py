"""Residues of the transfer function u^T (z - A)^-1 v of a layer between two vectors.

Shape suffixes: D width, V rows of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.holomorphy.resolvents import DEFECTIVE, eigensystem
from scaleinv_ray.records import Jacobians


class LogitPoles(NamedTuple):
    """The residues r_i of u^T (z - A)^-1 v, for every u.

    Attributes:
        participation_V: (sum |r_i|)^2 / sum |r_i|^2 / D.
        share_V: max |r_i| / sum |r_i|.
        ratio_V: max |r_i| / |u . v|; inf where u . v = 0.
        pole_V: the eigenvalue of the largest |r_i|, of a conjugate pair the upper one.
        pole_D: all eigenvalues.
    """

    participation_V: np.ndarray
    share_V: np.ndarray
    ratio_V: np.ndarray
    pole_V: np.ndarray
    pole_D: np.ndarray


def both_ends(jacobians: Jacobians) -> tuple[np.ndarray, np.ndarray, int]:
    """Unembedding rows that read anything (padding of a vocabulary does not), and embeddings.

    Args:
        jacobians: with u_VD and e_TD.

    Returns:
        u_VD without rows of zeros and e_TD, float64, and how many rows were dropped.

    Raises:
        Refused: without one of them, or where every row of u_VD is zero.
    """
    if jacobians.e_TD is None or jacobians.u_VD is None:
        raise Refused("e_TD, u_VD: got none, needs both ends in the width of the stream")
    u_VD, e_TD = jacobians.u_VD.astype(np.float64), jacobians.e_TD.astype(np.float64)
    reads_V = (u_VD != 0).any(axis=1)
    if not reads_V.any():
        raise Refused(f"u_VD: all {len(u_VD)} rows are zero")
    return u_VD[reads_V], e_TD, int((~reads_V).sum())


def logit_poles(a_DD: np.ndarray, u_VD: np.ndarray, v_D: np.ndarray) -> LogitPoles:
    """Residues of H_uv(z) = u^T (z - A)^-1 v = sum_i r_i / (z - lambda_i).

    r_i = (u . x_i)(y_i . v) with y_i . x_i = 1, so that sum_i r_i = u . v. Under A -> S^-1 A S,
    v -> S^-1 v, u -> S^T u nothing changes.

    Args:
        a_DD: the matrix.
        u_VD: vectors that read.
        v_D: the vector that is read.

    Returns:
        Numbers for every u.

    Raises:
        Refused: of a defective matrix, or where all residues of some u vanish.

    >>> found = logit_poles(np.diag([1.0, 2.0, 3.0]), np.array([[1.0, 2.0, 1.0]]), np.ones(3))
    >>> found.pole_V.real.tolist(), found.share_V.tolist()
    ([2.0], [0.5])
    """
    system = eigensystem(a_DD)
    if system.left_DD is None:
        raise Refused(DEFECTIVE)
    size_VD = abs((u_VD @ system.right_DD) * (system.left_DD @ v_D))
    total_V, largest_V = size_VD.sum(axis=1), size_VD.max(axis=1)
    if not (largest_V > 0).all():
        raise Refused("residues: all vanish for some row of u_VD")
    pole_V = system.pole_D[size_VD.argmax(axis=1)]
    product_V = abs(u_VD @ v_D)
    ratio_V = np.full(len(u_VD), np.inf)
    np.divide(largest_V, product_V, out=ratio_V, where=product_V > 0)
    return LogitPoles(
        participation_V=total_V**2 / (size_VD**2).sum(axis=1) / len(v_D),
        share_V=largest_V / total_V,
        ratio_V=ratio_V,
        pole_V=pole_V.real + 1j * abs(pole_V.imag),
        pole_D=system.pole_D,
    )


def logit_medians(a_DD: np.ndarray, u_VD: np.ndarray, v_D: np.ndarray) -> dict[str, float]:
    """Numbers of the transfer functions of one matrix, each the median over u.

    Args:
        a_DD: the matrix.
        u_VD: vectors that read.
        v_D: the vector that is read.

    Returns:
        participation, leading_share and leading_residue (share_V and ratio_V of `logit_poles`), and
        of the leading pole lambda real, imag, abs, distance |lambda - 1|, and this scaled by the
        root mean square of |lambda_i - 1| (inf where A = 1).

    Raises:
        Refused: of a defective matrix, or where all residues of some u vanish.
    """
    found = logit_poles(a_DD, u_VD, v_D)
    scale = float(np.sqrt((abs(found.pole_D - 1) ** 2).mean()))
    distance = float(np.median(abs(found.pole_V - 1)))
    return {
        "participation": float(np.median(found.participation_V)),
        "leading_share": float(np.median(found.share_V)),
        "leading_residue": float(np.median(found.ratio_V)),
        "leading_real": float(np.median(found.pole_V.real)),
        "leading_imag": float(np.median(found.pole_V.imag)),
        "leading_abs": float(np.median(abs(found.pole_V))),
        "leading_distance": distance,
        "leading_distance_scaled": distance / scale if scale > 0 else np.inf,
    }
