"""Dimensions of jet schemes by integer weights, and the divisors that compute the threshold.

An m-jet of f = 0 is a polynomial arc x(t) of degree m with f(x(t)) = 0 mod t^(m + 1). In N
variables

    lct = N - sup_m dim J_m / (m + 1)

(Mustata 2002, arXiv math/0102201, corollary 0.2). Arcs are sorted by their orders a_i = ord x_i.
With N(a) = min over exponents e of <a, e>, those that f allows have codimension

    sum_i a_i + max(0, m + 1 - N(a)),

the second term only where the initial form of f at a has a zero off the coordinate hyperplanes;
where it has none N(a) >= m + 1 is needed. This holds for nondegenerate f. Over the real numbers
real zeros count, and the supremum gives the real threshold: the learning coefficient of K = f, half
of it that of K = f^2.

Shape suffixes: W weights, N variables, M monomials.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.exact.initial_forms import has_torus_zero
from scaleinv_ray.singularities.exact.newton import monomial_threshold
from scaleinv_ray.singularities.exact.polynomial import Polynomial

_MAX_WEIGHTS = 500_000


class ContactLoci(NamedTuple):
    """Jet schemes up to some order.

    Attributes:
        dimensions: dim J_0 .. dim J_max_m.
        threshold: N - max dim J_m / (m + 1) over these m.
        reached_at: the least such m.
        is_exact: whether no larger m can lower it; else the threshold is an upper bound.
        divisors: weights a with sum a = threshold N(a) that are no sums of others: the monomial
            divisors which compute the threshold; all zero for the hypersurface f = 0 itself.
    """

    dimensions: tuple[int, ...]
    threshold: Fraction
    reached_at: int
    is_exact: bool
    divisors: tuple[tuple[int, ...], ...]


def contact_loci(f: Polynomial, max_m: int, *, real: bool = True) -> ContactLoci:
    """Jets of the hypersurface f = 0, at all its points.

    Args:
        f: nondegenerate; where it is quasi-homogeneous the threshold is that at the origin, else
            the least over all zeros.
        max_m: largest order of jets, >= 0.
        real: real jets and the real threshold; complex ones otherwise.

    Returns:
        The jets; the number of variables is (m + 1) N less the codimension.

    Raises:
        ValueError: for max_m out of range.
        Refused: where an initial form is degenerate, as that of (w1 - w2)^2, or f has no zero.

    >>> cusp = contact_loci(Polynomial({(2, 0): 1, (0, 3): -1}), 5)
    >>> cusp.dimensions, cusp.threshold, cusp.divisors
    ((1, 2, 3, 4, 5, 7), Fraction(5, 6), ((3, 2),))
    """
    exponents_MN = f.exponents_MN

    def has_zero(face_M: np.ndarray) -> bool:
        kept = [tuple(a) for a in exponents_MN[face_M].tolist()]
        return has_torus_zero(Polynomial({a: f.terms[a] for a in kept}), real=real)

    return _counted(exponents_MN, max_m, has_zero)


def monomial_contact_loci(exponents_MN: np.ndarray, max_m: int) -> ContactLoci:
    """Jets of a monomial ideal, as that of a program; real and complex ones alike.

    Args:
        exponents_MN: exponents of the generators; variables that none of them has are free.
        max_m: largest order of jets, >= 0.

    Returns:
        The jets.

    Raises:
        ValueError: for max_m out of range.

    >>> monomial_contact_loci(np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]]), 4).dimensions
    (1, 3, 4, 6, 7)
    """
    used_N = np.asarray(exponents_MN.any(axis=0))
    found = _counted(exponents_MN[:, used_N], max_m, None)
    free = int((~used_N).sum())
    if not free:
        return found
    divisors_DN = np.zeros((len(found.divisors), exponents_MN.shape[1]), dtype=np.int64)
    divisors_DN[:, used_N] = np.array(found.divisors).reshape(len(found.divisors), -1)
    return found._replace(
        dimensions=tuple(dim + free * (m + 1) for m, dim in enumerate(found.dimensions)),
        divisors=tuple(tuple(a) for a in divisors_DN.tolist()),
    )


def largest_order(num_variables: int) -> int:
    """The largest m that is counted in so many variables, not those that are free.

    >>> largest_order(3), largest_order(12)
    (77, 0)
    """
    return int(_MAX_WEIGHTS ** (1 / num_variables)) - 2


def _counted(
    exponents_MN: np.ndarray, max_m: int, has_zero: Callable[[np.ndarray], bool] | None
) -> ContactLoci:
    size = exponents_MN.shape[1]
    if max_m < 0 or (max_m + 2) ** size > _MAX_WEIGHTS:
        raise ValueError(
            f"max_m: got {max_m}, allowed 0..{largest_order(size)} in {size} variables"
        )
    # Orders above m + 1 vanish as m + 1 does, so that one grid serves every m.
    weights_WN = np.indices((max_m + 2,) * size).reshape(size, -1).T
    height_WM = weights_WN @ exponents_MN.T
    order_W = height_WM.min(axis=1)
    zero_W = np.zeros(len(order_W), dtype=np.bool_)
    if has_zero is not None:  # monomials have none off the coordinate hyperplanes
        faces, which_W = np.unique(height_WM == order_W[:, None], axis=0, return_inverse=True)
        zero_W = np.array([has_zero(face_M) for face_M in faces])[which_W.ravel()]
    total_W = weights_WN.sum(axis=1)
    if not zero_W.any() and not order_W.any():
        raise Refused("f has no zero: there are no jets")
    codimensions = []
    for length in range(1, max_m + 2):
        allowed_W = zero_W | (order_W >= length)
        codimension_W = total_W + np.maximum(0, length - order_W)
        codimensions.append(int(codimension_W[allowed_W].min()))
    shares = [Fraction(c, m + 1) for m, c in enumerate(codimensions)]
    threshold = min(shares)
    # A smooth zero in the torus of an initial form is the end of a branch of zeros of f there.
    touches_torus = bool(zero_W.any())
    return ContactLoci(
        dimensions=tuple(size * (m + 1) - c for m, c in enumerate(codimensions)),
        threshold=threshold,
        reached_at=shares.index(threshold),
        is_exact=threshold == _limit(exponents_MN, touches_torus=touches_torus),
        divisors=_divisors(weights_WN, np.minimum(order_W, max_m + 1), threshold,
                           touches_torus=touches_torus),
    )  # fmt: skip


def _limit(exponents_MN: np.ndarray, *, touches_torus: bool) -> Fraction:
    """The infimum over all m."""
    # Of sum a / N(a) over real weights: it is reached at m + 1 = the least common denominator of
    # the weights a / N(a) of the optimum. Smooth points of f = 0 give 1.
    hypersurface = [Fraction(1)] if touches_torus else []
    if not exponents_MN.any(axis=1).all():  # a constant term: N(a) = 0
        return min(hypersurface)
    return min([monomial_threshold(exponents_MN).llc, *hypersurface])


def _divisors(
    weights_WN: np.ndarray, order_W: np.ndarray, threshold: Fraction, *, touches_torus: bool
) -> tuple[tuple[int, ...], ...]:
    total_W = weights_WN.sum(axis=1)
    reach_W = total_W * threshold.denominator == order_W * threshold.numerator
    reach_W[0] = False
    found: list[np.ndarray] = []
    members = {tuple(a) for a in weights_WN[reach_W].tolist()}
    for a_N in sorted(members, key=lambda a: (sum(a), a)):
        if not any(tuple(np.subtract(a_N, b)) in members for b in found):
            found.append(np.array(a_N))
    own = [(0,) * weights_WN.shape[1]] if touches_torus and threshold == 1 else []
    return (*own, *sorted((tuple(a.tolist()) for a in found), reverse=True))
