"""Learning coefficients from the Newton polyhedron of a polynomial loss.

Shape suffixes: M monomials, N variables, C constraints, U points.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np
from scipy.optimize import linprog, minimize
from scipy.spatial import ConvexHull
from scipy.stats import qmc

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.coefficient import LearningCoefficient
from scaleinv_ray.singularities.exact.polynomial import Polynomial

_ZERO = 1e-6
"""A face polynomial below this share of the sum of its terms' sizes counts as having a zero."""
_STARTS = 32
"""Starts of the search for a zero, in each orthant of each face."""


def newton_polyhedron(potential: Polynomial) -> LearningCoefficient:
    """Coefficient at the origin of a nondegenerate K >= 0 (Varchenko 1976; Watanabe 2009, ch. 3).

    The polyhedron is the convex hull of the exponents of K plus the positive orthant; where the
    diagonal meets its boundary at t (1, .., 1), llc = 1 / t, and the multiplicity is the
    codimension of the smallest face that holds that point, compact or not. t is a linear programme,
    its solution made rational and proved exactly by its dual.

    This is the coefficient of a prior that is positive at the origin; the one of a whole model is
    the minimum over all its zeros.

    Args:
        potential: K, with K(0) = 0.

    Raises:
        ValueError: where K(0) is not 0.
        Refused: where K is degenerate: a face polynomial is not positive off the coordinate
            hyperplanes, as for (w1 - w2)^2, whose polyhedron says 1 and whose coefficient is 1/2.

    >>> newton_polyhedron(Polynomial({(2, 4): 1}))
    LearningCoefficient(llc=Fraction(1, 4), multiplicity=1)
    """
    exponents_MN = potential.exponents_MN
    if not exponents_MN.any(axis=1).all():
        raise ValueError("potential: got a constant term, must vanish at the origin")
    if (exponents_MN % 2).any() or min(potential.terms.values()) < 0:  # else positive as it stands
        for face_MN in compact_faces(exponents_MN):
            _require_positive(potential, face_MN)
    return monomial_threshold(exponents_MN)


def monomial_threshold(exponents_MN: np.ndarray) -> LearningCoefficient:
    """Coefficient of the sum of monomials with these exponents on the orthant w >= 0.

    Nothing cancels there, so that the polyhedron decides alone (Howald 2001 for monomial ideals):
    1 / t where the diagonal enters it at t (1, .., 1), and the codimension of the face met.

    Args:
        exponents_MN: exponents of the monomials, none of them 0.

    Raises:
        ValueError: without a monomial, or with the constant one.

    >>> monomial_threshold(np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]]))  # two of three
    LearningCoefficient(llc=Fraction(3, 2), multiplicity=1)
    """
    if not len(exponents_MN) or not exponents_MN.any(axis=1).all():
        raise ValueError(f"exponents: got {exponents_MN.tolist()}, needs monomials other than 1")
    distance = _distance(exponents_MN)
    return LearningCoefficient(1 / distance, _codimension(exponents_MN, distance))


def compact_faces(exponents_MN: np.ndarray) -> list[np.ndarray]:
    """Compact faces of the Newton polyhedron, each as the exponents that lie on it.

    Args:
        exponents_MN: exponents, distinct.

    Returns:
        A matrix of exponents a face, vertices included, in no particular order.

    >>> sorted(len(face) for face in compact_faces(np.array([[2, 0], [1, 1], [0, 2], [3, 3]])))
    [1, 1, 3]
    """
    size = exponents_MN.shape[1]
    if size == 1:
        return [exponents_MN[[exponents_MN[:, 0].argmin()]]]
    # The orthant is cut off far away; facets of the cut have an inward normal < 0 somewhere.
    far = 10 * size * int(exponents_MN.max() + 1)
    moved_CN = (exponents_MN[:, None] + far * np.eye(size, dtype=np.int64)).reshape(-1, size)
    hull = ConvexHull(np.concatenate([exponents_MN, moved_CN]))
    normals_CN = np.unique((-hull.equations[:, :-1]).round(9), axis=0)
    faces: set[tuple[frozenset[int], frozenset[int]]] = set()
    for normal_N in normals_CN[(normals_CN > -1e-7).all(axis=1)]:
        height_M = exponents_MN @ normal_N
        on = np.flatnonzero(height_M < height_M.min() + 1e-6)
        faces.add((frozenset(on), frozenset(np.flatnonzero(normal_N < 1e-7))))
    while True:  # faces are intersections of facets
        more = {(a & c, b & d) for a, b in faces for c, d in faces if a & c} - faces
        if not more:
            break
        faces |= more
    compact = {on for on, unbounded in faces if not unbounded}
    return [exponents_MN[sorted(on)] for on in compact]


def _require_positive(potential: Polynomial, face_MN: np.ndarray) -> None:
    """Refuses unless the face polynomial is positive in every open orthant."""
    coefficients_M = np.array([float(potential.terms[tuple(a)]) for a in face_MN.tolist()])
    centred_MN = face_MN - face_MN.mean(axis=0)
    for signs in product((1, -1), repeat=face_MN.shape[1]):
        signed_M = coefficients_M * np.prod(np.array(signs) ** face_MN, axis=1)
        if (signed_M > 0).all():
            continue  # a sum of positive terms
        if _least_share(signed_M, centred_MN) < _ZERO:
            raise Refused(f"degenerate: the face of {face_MN.tolist()} has a zero or is negative")


def _least_share(signed_M: np.ndarray, exponents_MN: np.ndarray) -> float:
    """Minimum over w in the positive orthant of sum of terms / sum of their sizes."""
    # In u = log w the ratio extends continuously to the closed face (its limits at infinity are the
    # ratios of the smaller faces), so that a search from some dozen starts meets the minimum.
    _, singular, axes_RN = np.linalg.svd(exponents_MN, full_matrices=False)
    exponents_MN = exponents_MN @ axes_RN[singular > 1e-9 * max(singular[0], 1e-9)].T
    size = exponents_MN.shape[1]
    if not size:  # a vertex: one term
        return float(np.sign(signed_M[0]))

    def share(u_N: np.ndarray) -> float:
        log_M = exponents_MN @ u_N
        size_M = np.abs(signed_M) * np.exp(log_M - log_M.max())
        return float(np.sign(signed_M) @ size_M / size_M.sum())

    starts_UN = 6 * qmc.Halton(size, scramble=False).random(_STARTS) - 3
    return min(float(minimize(share, u_N, method="Nelder-Mead").fun) for u_N in starts_UN)


def _distance(exponents_MN: np.ndarray) -> Fraction:
    """The t at which the diagonal enters the polyhedron, exact."""
    # min t: sum_j x_j A_j <= t (1, .., 1), x in the simplex. Its dual, max_q min_j q.A_j over q in
    # the simplex, proves it.
    num, size = exponents_MN.shape
    found = linprog(
        c=np.r_[np.zeros(num), 1.0],
        A_ub=np.c_[exponents_MN.T, -np.ones(size)],
        b_ub=np.zeros(size),
        A_eq=np.r_[np.ones(num), 0.0][None],
        b_eq=[1.0],
        method="highs-ds",
    )
    share = _rational(found.x[:-1])
    weight = _rational(-found.ineqlin.marginals)
    points = exponents_MN.tolist()
    above = max(_dot(share, [a[i] for a in points]) for i in range(size))
    below = min(_dot(weight, a) for a in points)
    if sum(share) != 1 or sum(weight) != 1 or min(*share, *weight) < 0 or above != below:
        raise Refused("the linear programme of the polyhedron has no exact certificate")
    return above


def _codimension(exponents_MN: np.ndarray, distance: Fraction) -> int:
    """Codimension of the smallest face through the point: dimension of its normal cone."""
    # The cone is {q >= 0, q.(A_j - t 1) >= 0}; one programme finds which of its inequalities can be
    # strict (all at once: the cone is convex), the others are equations.
    num, size = exponents_MN.shape
    shifted_MN = exponents_MN * distance.denominator - distance.numerator
    cone_CN = np.concatenate([np.eye(size, dtype=np.int64), shifted_MN])
    slack = linprog(
        c=np.r_[np.zeros(size), -np.ones(size + num)],
        A_ub=np.c_[-cone_CN, np.eye(size + num)],
        b_ub=np.zeros(size + num),
        bounds=[(None, None)] * size + [(0, 1)] * (size + num),
        method="highs-ds",
    ).x[size:]
    equations_CN = cone_CN[slack < 0.5]
    return size - (int(np.linalg.matrix_rank(equations_CN)) if len(equations_CN) else 0)


def _rational(x: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)).limit_denominator(10**5) for v in x]


def _dot(x: Sequence[Fraction], y: Sequence[int]) -> Fraction:
    return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))
