"""Poles and residues of the resolvent of Hessian and Gauss-Newton operator.

Shape suffixes: R probe vectors, K nodes of one of them.
"""

from __future__ import annotations

import math

import numpy as np

from scaleinv_ray.contract import Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, mean_of
from scaleinv_ray.invariants.common.quadrature import checked_quadrature, numbered, outlier_counts
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Lanczos

_QUANTITIES = {
    "isolated_poles": Quantity(
        law="integer",
        unit=1.0,
        meaning=(
            "Number of eigenvalues of the curvature above the widest gap, beyond that of random "
            "matrices"
        ),
    ),
    "leading_over_scale": Quantity(
        law="power_law", meaning="Largest eigenvalue of the curvature over its root mean square"
    ),
    "leading_residue": Quantity(
        law="constant",
        unit=1.0,
        meaning=(
            "Number of eigenvalues at the largest pole of the curvature, by its residue; simple is "
            "1"
        ),
    ),
    "isolated_residue": Quantity(
        law="integer",
        unit=1.0,
        meaning=(
            "Number of eigenvalues at the isolated poles, by their residues; checks the count of "
            "poles"
        ),
    ),
}


@invariant(quantities=_QUANTITIES, scheme="hessian")
def hessian_poles(
    lanczos: Lanczos, *, rng: np.random.Generator, flat: float = 1e-3, num_null: int = 20
) -> Measured:
    """Isolated poles of v^T (z - H)^-1 v and their residues, from the quadrature of the Hessian.

    The K-node rule of one vector v is the [K-1/K] Pade approximant of this function: nodes are its
    poles, weights its residues (Golub & Meurant 2010). The mean over vectors is no such
    approximant, so poles are read for each of them, v of unit length and without direction, which
    gives a single eigenvalue the mean residue 1 / P.
    isolated_poles: those above the widest relative gap, where that is wider than random symmetric
    matrices show (`common.quadrature.outlier_counts`);
    leading_over_scale: largest pole over the root of the mean squared eigenvalue;
    leading_residue: P times its residue, the number of eigenvalues at it;
    isolated_residue: P times the residues of the isolated poles, the number of eigenvalues there,
    a check of isolated_poles that counts no pole.
    A residue of one vector scatters by sqrt(2) of itself: errors are those of the mean over
    vectors, and a dozen of them tell 1 from 2.

    Args:
        lanczos: nodes and weights of the Hessian. Ghosts, as Lanczos without reorthogonalisation
            leaves them, are one pole with the sum of their residues.
        rng: draws the null.
        flat: relative size below which an eigenvalue counts as flat, in (0, 1): the null has as
            many eigenvalues as are not.
        num_null: null matrices a vector.

    Returns:
        The quantities; leading_over_scale and leading_residue refused where a vector has no pole
        above zero, isolated_residue where some have isolated poles and some have none. Flags:
        num_steps, num_probes.

    Raises:
        Refused: for another operator, values that are not finite, weights that are no
            probabilities, and an operator that vanishes.
        ValueError: with flat outside (0, 1), or without a null.

    >>> record = Lanczos(nodes_RK=np.array([[-1.0, 0.0, 3.0]] * 2),
    ...                  weights_RK=np.array([[0.25, 0.5, 0.25]] * 2), dim=4)
    >>> found = hessian_poles(record, rng=np.random.default_rng(0)).values
    >>> found["leading_residue"].value, round(found["leading_over_scale"].value, 4)
    (1.0, 1.8974)
    """
    sound(lanczos)
    return _measured(lanczos, "hessian", rng=rng, flat=flat, num_null=num_null)


@invariant(quantities=_QUANTITIES, scheme="ggn")
def ggn_poles(
    lanczos: Lanczos, *, rng: np.random.Generator, flat: float = 1e-3, num_null: int = 20
) -> Measured:
    """Isolated poles of the resolvent of the Gauss-Newton operator, and their residues.

    As `hessian_poles`.

    Args:
        lanczos: nodes and weights of the GGN.
        rng: draws the null.
        flat: as of `hessian_poles`.
        num_null: null matrices a vector.

    Returns:
        As `hessian_poles`.

    Raises:
        Refused: as `hessian_poles`.
        ValueError: as `hessian_poles`.
    """
    sound(lanczos)
    return _measured(lanczos, "ggn", rng=rng, flat=flat, num_null=num_null)


def _measured(
    lanczos: Lanczos, operator: str, *, rng: np.random.Generator, flat: float, num_null: int
) -> Measured:
    nodes_RK, weights_RK = checked_quadrature(lanczos, operator, flat=flat, num_null=num_null)
    counts = outlier_counts(
        nodes_RK, weights_RK, dim=lanczos.dim, flat=flat, num_null=num_null, rng=rng
    )
    pole_RK, weight_RK, number_RK = numbered(nodes_RK, weights_RK)
    residue_RK = lanczos.dim * weight_RK
    values: dict[str, Estimate | Refused] = {
        "isolated_poles": counts if isinstance(counts, Refused) else mean_of(counts, "probes"),
        "leading_over_scale": _over_scale(pole_RK, residue_RK, dim=lanczos.dim),
        "leading_residue": mean_of((residue_RK * (number_RK == 0)).sum(axis=1), "probes"),
        "isolated_residue": _isolated(residue_RK, number_RK, counts),
    }
    if pole_RK[:, 0].min() <= 0:
        none = Refused(f"leading pole: got {pole_RK[:, 0].min():.3g}, needs one above zero")
        values |= dict.fromkeys(("leading_over_scale", "leading_residue"), none)
    probes, steps = nodes_RK.shape
    return Measured(values, flags={"num_steps": steps, "num_probes": probes})


def _over_scale(pole_RK: np.ndarray, residue_RK: np.ndarray, *, dim: int) -> Estimate:
    """By the scale over all vectors; the error is that of both."""
    square_R = (residue_RK * pole_RK**2).sum(axis=1) / dim
    scale = math.sqrt(float(square_R.mean()))
    # to first order d(x / s) = dx / s - x ds^2 / 2 s^3
    leading = float(pole_RK[:, 0].max())
    term_R = pole_RK[:, 0] / scale - leading * (square_R - scale**2) / (2 * scale**3)
    spread = mean_of(term_R, "probes")
    return Estimate(leading / scale, spread.stderr, spread.n, spread.error_kind)


def _isolated(
    residue_RK: np.ndarray, number_RK: np.ndarray, counts: list[int] | Refused
) -> Estimate | Refused:
    if isinstance(counts, Refused):
        return counts
    if min(counts) == 0 < max(counts):
        return Refused(f"isolated_residue: {counts.count(0)} of {len(counts)} vectors see no gap")
    inside_RK = number_RK < np.array(counts)[:, None]
    return mean_of((residue_RK * inside_RK).sum(axis=1), "probes")
