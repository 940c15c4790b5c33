"""Order and chaos: how a layer stretches small changes of the residual stream.

Shape suffixes: T positions (each of another sequence), D width, E width without the all-ones mode.
"""

from __future__ import annotations

import math

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.stability.log_singular_values import centred, log_singular_values
from scaleinv_ray.records import Jacobians

MAX_STRUCTURAL_RESIDUAL = 0.05
"""||A 1 - 1|| / ||1|| where the record says that a LayerNorm follows; exact but for the dtype."""


@invariant(
    quantities={
        "chi": Quantity(
            law="constant",
            margin=0.10,
            meaning=(
                "Growth of the square of a small change through one layer; below 1 changes die out"
            ),
        ),
        "mean_log_singular": Quantity(
            law="constant",
            margin=0.10,
            unit=1.0,
            meaning=(
                "Mean log singular value of a layer's Jacobian: mean Lyapunov exponent; below 0 "
                "contracts"
            ),
        ),
        "max_log_singular": Quantity(
            law="constant",
            margin=0.10,
            unit=1.0,
            meaning="Log of the largest stretching by one layer; above 0 some change grows",
        ),
        "correlation_length": Quantity(
            law="constant",
            margin=0.10,
            meaning="Number of layers over which a small change shrinks by e in the square",
        ),
        "mean_log_singular_null": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning="Mean log singular value of the identity plus a random matrix of the same size",
        ),
        "max_log_singular_null": Quantity(
            law="none",
            unit=1.0,
            control=True,
            meaning=(
                "Log of the largest stretching by the identity plus a random matrix of the same "
                "size"
            ),
        ),
    },
    symmetries=("rotation", "permutation"),
    curves={"log_singular_values": "Log of a singular value of the layer; its rank over the width"},
)
def order_chaos(jacobians: Jacobians, *, rng: np.random.Generator) -> Measured:
    """Stretching of small changes by one layer: mean square, mean logarithm and largest.

    Of the singular values s of A = d resid_out / d resid_in at one position:

    - chi = tr A^T A / D = mean s^2, the growth of the square of a random change; below 1 changes
      die out (order), above they grow (chaos). Schoenholz et al. (ICLR 2017); for transformers
      Cowsik et al. (arXiv 2403.02579), who measure it on the normalised stream: here it is the
      stream itself, whose own growth is part of chi;
    - correlation_length xi = -1 / ln chi, in layers: depth over which changes shrink by e in the
      square; refused where chi is not below 1 by its error;
    - mean_log_singular = (1 / D) sum ln s = ln |det A| / D, the mean of the layer's Lyapunov
      exponents: unlike chi it adds up exactly over layers;
    - max_log_singular = ln max s, an upper bound on every exponent;
    - *_null: the same of I + G, G a real Ginibre matrix with ||G||_F = ||A - I||_F, whose chi is
      1 + ||A - I||_F^2 / D: a residual layer is near the identity for any weights.

    Where a LayerNorm follows (`removes_mean`) the all-ones direction is projected out on both
    sides (A 1 = 1 for any weights). A h = h of a parallel block concerns eigenvalues, not singular
    values, and stays: it moves one of D of them.

    Args:
        jacobians: j_TDD.
        rng: draws the null's Ginibre matrices.

    Returns:
        Means over positions with their errors; xi by first-order propagation. Curve
        log_singular_values: mean of ln s_i against (i - 1/2) / E, largest first (absent where A is
        singular). Flags: structural modes and their residual. mean_log_singular alone is refused
        where a Jacobian is singular.

    Raises:
        Refused: where values are not finite, or all-ones is no mode though the record says so.

    >>> j_TDD = np.stack([np.diag([0.5, 0.25])] * 3)
    >>> found = order_chaos(Jacobians(j_TDD=j_TDD), rng=np.random.default_rng(0)).values
    >>> found["chi"].value, round(found["max_log_singular"].value, 4)
    (0.15625, -0.6931)
    """
    sound(jacobians)
    j_TDD = jacobians.j_TDD.astype(np.float64, copy=False)
    removes_mean = jacobians.removes_mean
    flags = _structural(j_TDD) if removes_mean else {"structural_modes": 0}
    log_TE = log_singular_values(j_TDD, without_ones=removes_mean)
    null_TE = log_singular_values(_null(j_TDD, log_TE, rng, without_ones=removes_mean))
    chi = mean_of(np.exp(2.0 * log_TE).mean(axis=1), "sequences")
    values = {
        "chi": chi,
        "mean_log_singular": _mean_log(log_TE),
        "max_log_singular": _largest(log_TE),
        "correlation_length": _correlation_length(chi),
        "mean_log_singular_null": _mean_log(null_TE),
        "max_log_singular_null": _largest(null_TE),
    }
    return Measured(values, curves=_curves(log_TE), flags=flags)


def _structural(j_TDD: np.ndarray) -> dict[str, float | int | str]:
    """How far A 1 is from 1."""
    residual = float(np.sqrt(((j_TDD.sum(axis=2) - 1.0) ** 2).mean(axis=1)).max())
    if not residual < MAX_STRUCTURAL_RESIDUAL:
        raise Refused(
            f"structural mode: got |A 1 - 1| / |1| = {residual:.2g}, "
            f"allowed < {MAX_STRUCTURAL_RESIDUAL} where the record removes the mean"
        )
    return {"structural_modes": 1, "structural_residual": residual}


def _null(
    j_TDD: np.ndarray, log_TE: np.ndarray, rng: np.random.Generator, *, without_ones: bool
) -> np.ndarray:
    """I + G of the size left, G with the Frobenius norm of A - I there."""
    num_positions, size = log_TE.shape
    distance_TDD = j_TDD - np.eye(j_TDD.shape[-1])
    if without_ones:
        distance_TDD = centred(distance_TDD)
    ginibre_TEE = rng.standard_normal((num_positions, size, size))
    norm_T = np.linalg.norm(distance_TDD, axis=(1, 2)) / np.linalg.norm(ginibre_TEE, axis=(1, 2))
    return np.eye(size) + norm_T[:, None, None] * ginibre_TEE


def _largest(log_TE: np.ndarray) -> Estimate | Refused:
    if not np.isfinite(log_TE[:, 0]).all():
        return Refused("a Jacobian vanishes")
    return mean_of(log_TE[:, 0], "sequences")


def _mean_log(log_TE: np.ndarray) -> Estimate | Refused:
    num_singular = int((~np.isfinite(log_TE)).any(axis=1).sum())
    if num_singular:
        return Refused(f"{num_singular} of {len(log_TE)} Jacobians are singular, ln det is -inf")
    return mean_of(log_TE.mean(axis=1), "sequences")


def _correlation_length(chi: Estimate) -> Estimate | Refused:
    if not 0 < chi.value + (chi.stderr or 0.0) < 1:
        error = "unknown" if chi.stderr is None else f"{chi.stderr:.2g}"
        return Refused(f"chi: got {chi.value:.4g} (stderr {error}), a length needs 0 < chi < 1")
    length = -1.0 / math.log(chi.value)
    if chi.stderr is None:
        return Estimate(length, None, chi.n, "none")
    return Estimate(length, length**2 * chi.stderr / chi.value, chi.n, chi.error_kind)


def _curves(log_TE: np.ndarray) -> dict[str, Curve]:
    if not np.isfinite(log_TE).all():
        return {}
    num_positions, size = log_TE.shape
    stderr_E = log_TE.std(axis=0, ddof=1) / math.sqrt(num_positions) if num_positions > 1 else None
    x_E = (np.arange(size) + 0.5) / size
    return {"log_singular_values": Curve(x_E, log_TE.mean(axis=0), stderr_E)}
