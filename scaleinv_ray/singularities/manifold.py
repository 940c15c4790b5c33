"""Minima that form a manifold: the coefficient is half the number of curved directions.

Shape suffixes: P parameters, C curved directions, F flat ones.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.coefficient import LearningCoefficient, morse_bott

_TRIES = 8
_STEPS = 60
_FLAT = 1e-2
"""Excess over h t^4, t the way along flat directions and h the least curvature, that is none."""


class CriticalManifold(NamedTuple):
    """Minima round one of them.

    Attributes:
        coefficient: half the rank of the Hessian, of multiplicity 1 (Morse-Bott).
        dimension: of the manifold.
    """

    coefficient: LearningCoefficient
    dimension: int


def critical_manifold(
    hessian_PP: np.ndarray,
    excess: Callable[[np.ndarray], tuple[float, np.ndarray]],
    *,
    rng: np.random.Generator,
    tolerance: float = 1e-6,
    reach: float = 1e-2,
) -> CriticalManifold:
    """Whether the zeros of K round a minimum are a manifold as large as the Hessian's kernel.

    Points at a distance `reach` along random flat directions are taken back along the curved ones
    by Newton steps of the fixed Hessian. Where K is then zero up to less than what a fourth power
    would leave, the minimum is one of a manifold and lambda = rank / 2 is exact. Nothing is assumed
    of the map: a model of superposition at a minimum whose loss is not zero will do.

    Args:
        hessian_PP: of K at the minimum.
        excess: K and its gradient, at a step x_P away from the minimum.
        rng: of the directions.
        tolerance: eigenvalues below this share of the largest count as zero.
        reach: length of the steps; its fourth power lies well above the rounding of K.

    Returns:
        The manifold.

    Raises:
        Refused: where K falls below zero, or rises along flat directions: the minimum is more
            degenerate, and lambda is between rank / 2 and rank / 2 + kernel / 4.

    >>> def ring(x_P):  # (|w|^2 - 1)^2 round w = (1, 0)
    ...     w_P = x_P + [1.0, 0.0]
    ...     k = w_P @ w_P - 1
    ...     return k**2, 4 * k * w_P
    >>> found = critical_manifold(np.diag([8.0, 0.0]), ring, rng=np.random.default_rng(0))
    >>> str(found.coefficient.llc), found.dimension
    ('1/2', 1)
    """
    size, axis_PP = np.linalg.eigh(hessian_PP)
    if size[0] < -tolerance * size[-1]:
        raise Refused(f"no minimum: an eigenvalue of the Hessian is {size[0]:.3g}")
    curved = size > tolerance * size[-1]
    rank, flat_PF = int(curved.sum()), axis_PP[:, ~curved]
    found = CriticalManifold(morse_bott(rank), len(size) - rank)
    if not found.dimension:
        return found
    inverse_PP = (axis_PP[:, curved] / size[curved]) @ axis_PP[:, curved].T
    small = _FLAT * size[curved].min() * reach**4
    for _ in range(_TRIES):
        along_F = rng.standard_normal(found.dimension)
        x_P = reach * flat_PF @ along_F / np.linalg.norm(along_F)
        for _ in range(_STEPS):
            x_P = x_P - inverse_PP @ excess(x_P)[1]
        left = excess(x_P)[0]
        if left < -small:
            raise Refused(f"no minimum: along a flat direction K falls to {left:.3g}")
        if not left <= small:
            most = Fraction(rank, 2) + Fraction(found.dimension, 4)
            raise Refused(
                f"not a manifold of zeros: K rises to {left:.3g} along a flat direction; "
                f"lambda is between {Fraction(rank, 2)} and {most}"
            )
    return found
