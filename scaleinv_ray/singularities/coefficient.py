"""Learning coefficient and multiplicity of a singularity.

K(w) >= 0 is the excess loss and V(eps) the prior volume of {K < eps}; near a zero of an analytic K

    V(eps) ~ c eps^llc (-log eps)^(multiplicity - 1),

and -llc is the largest pole of zeta(z) = integral K(w)^z phi(w) dw, its order the multiplicity
(Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, theorem 7.1).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class LearningCoefficient(NamedTuple):
    """Exact exponent of the volume of small loss.

    Attributes:
        llc: learning coefficient, the real log canonical threshold; half the number of parameters
            for a regular model.
        multiplicity: order of the pole; 1 without logarithms.
    """

    llc: Fraction
    multiplicity: int


def morse_bott(rank: int) -> LearningCoefficient:
    """Coefficient at a manifold of zeros where the Hessian is as degenerate as the manifold needs.

    Transversally K is a definite quadratic form of `rank` variables: (rank / 2, 1). A regular model
    of d parameters is the case rank = d.

    Args:
        rank: of the Hessian, at least 1.

    Returns:
        llc = rank / 2, multiplicity 1.

    Raises:
        ValueError: where rank is not positive.

    >>> morse_bott(3)
    LearningCoefficient(llc=Fraction(3, 2), multiplicity=1)
    """
    if rank < 1:
        raise ValueError(f"rank: got {rank}, must be >= 1")
    return LearningCoefficient(Fraction(rank, 2), 1)
