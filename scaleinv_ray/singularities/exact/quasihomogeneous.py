"""Quasi-homogeneous polynomials: f(t^q_1 w_1, .., t^q_N w_N) = t f(w).

A Landau-Ginzburg potential f has Milnor number prod (1 / q_i - 1) and central charge (of the N = 2
superconformal theory it flows to, divided by 3) sum (1 - 2 q_i); both belong to f, while learning
coefficients belong to a loss K made from it: K = f where f is definite, K = f^2 otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import prod

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.coefficient import LearningCoefficient
from scaleinv_ray.singularities.exact.polynomial import (
    Exponent,
    Polynomial,
    coefficient_matrix,
    monomial,
)


def weights(f: Polynomial) -> tuple[Fraction, ...]:
    """The weights q with sum_i q_i a_i = 1 for every exponent a of f.

    Returns:
        q_1 .. q_N, positive.

    Raises:
        Refused: where there are none, or more than one choice.

    >>> weights(Polynomial({(2, 0): 1, (0, 3): -1}))
    (Fraction(1, 2), Fraction(1, 3))
    """
    exponents_MN = f.exponents_MN
    q_N, _, rank, _ = np.linalg.lstsq(exponents_MN.astype(float), np.ones(len(exponents_MN)))
    if rank < f.num_variables:
        raise Refused("the weights of f are not unique")
    # Cramer: denominators divide a minor of the exponents, which Hadamard's inequality bounds.
    bound = int(np.prod(np.sort(np.linalg.norm(exponents_MN, axis=1))[-f.num_variables :])) + 1
    exact = tuple(Fraction(float(q)).limit_denominator(bound) for q in q_N)
    if any(_degree(a, exact) != 1 for a in f.terms) or min(exact) <= 0:
        raise Refused("f is not quasi-homogeneous with positive weights")
    return exact


def milnor_number(f: Polynomial) -> int:
    """Dimension of C[w] / (d_1 f, .., d_N f): prod (1 / q_i - 1) (Milnor and Orlik 1970).

    Args:
        f: quasi-homogeneous with a critical point isolated over the complex numbers.

    Returns:
        The Milnor number.

    Raises:
        Refused: where f is not quasi-homogeneous, or the point not isolated, as for
            (w1^2 + w2^2)^2.

    >>> milnor_number(Polynomial({(3, 0): 1, (0, 4): 1}))
    6
    """
    q = weights(f)
    if not isolated_over_complex(f):
        raise Refused("the critical point of f is not isolated over the complex numbers")
    return int(prod(1 / weight - 1 for weight in q))


def central_charge(f: Polynomial) -> Fraction:
    """Central charge / 3 of the Landau-Ginzburg theory: sum (1 - 2 q_i) (Vafa and Warner 1989).

    Args:
        f: quasi-homogeneous with a critical point isolated over the complex numbers.

    Returns:
        The central charge; below 1 exactly for A, D and E.

    Raises:
        Refused: as `milnor_number`.

    >>> central_charge(Polynomial({(3, 0): 1, (0, 4): 1}))
    Fraction(5, 6)
    """
    q = weights(f)
    if not isolated_over_complex(f):
        raise Refused("the critical point of f is not isolated over the complex numbers")
    return sum((1 - 2 * weight for weight in q), Fraction(0))


def isolated_over_complex(f: Polynomial) -> bool:
    """Whether the origin is the only common complex zero of the derivatives of f.

    The socle of an isolated f lies in degree sum (1 - 2 q_i), so that every monomial beyond it is
    in the ideal of the derivatives; and where a power of each variable is, zeros are isolated.

    Returns:
        True where it is isolated.

    >>> isolated_over_complex(Polynomial({(4, 0): 1, (2, 2): 2, (0, 4): 1}))
    False
    """
    q = weights(f)
    socle = sum((1 - 2 * weight for weight in q), Fraction(0))
    size = f.num_variables
    for i in range(size):
        power = max(0, int(socle / q[i])) + 1
        target = tuple(power * int(k == i) for k in range(size))
        if not _in_jacobian_ideal(f, target, q):
            return False
    return True


def definite(q: Sequence[Fraction]) -> LearningCoefficient:
    """Coefficient of K = f, definite with weights q.

    Returns:
        (sum q_i, 1).

    >>> definite([Fraction(1, 2), Fraction(1, 4)])
    LearningCoefficient(llc=Fraction(3, 4), multiplicity=1)
    """
    return LearningCoefficient(sum(q, Fraction(0)), 1)


def indefinite_square(q: Sequence[Fraction]) -> LearningCoefficient:
    """Coefficient of K = f^2 where f changes sign and its real critical point is isolated.

    The origin gives sum q_i / 2, the hypersurface f = 0 beside it 1 / 2: the smaller one wins, and
    where they are equal the multiplicity is 2.

    Returns:
        (min(1, sum q_i) / 2, 2 where sum q_i = 1 else 1).

    >>> indefinite_square([Fraction(1, 2), Fraction(1, 3)])
    LearningCoefficient(llc=Fraction(5, 12), multiplicity=1)
    """
    total = sum(q, Fraction(0))
    return LearningCoefficient(min(Fraction(1), total) / 2, 2 if total == 1 else 1)


def semidefinite_square(q: Sequence[Fraction]) -> LearningCoefficient:
    """Coefficient of K = f^2 where f >= 0 and its real zero is isolated.

    Returns:
        (sum q_i / 2, 1).

    >>> semidefinite_square([Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)])
    LearningCoefficient(llc=Fraction(3, 4), multiplicity=1)
    """
    return LearningCoefficient(sum(q, Fraction(0)) / 2, 1)


def _degree(exponent: Exponent, q: Sequence[Fraction]) -> Fraction:
    return sum((a * weight for a, weight in zip(exponent, q, strict=True)), Fraction(0))


def _in_jacobian_ideal(f: Polynomial, target: Exponent, q: Sequence[Fraction]) -> bool:
    degree = _degree(target, q)
    columns = []
    for i in range(f.num_variables):
        slope = f.derivative(i)
        if slope is not None:
            for key in _monomials(degree - 1 + q[i], q):  # a derivative has degree 1 - q_i
                columns.append((slope * monomial(*key)).terms)
    both_MA = coefficient_matrix([*columns, {target: 1}])
    return bool(np.linalg.matrix_rank(both_MA) == np.linalg.matrix_rank(both_MA[:, :-1]))


def _monomials(degree: Fraction, q: Sequence[Fraction]) -> list[Exponent]:
    if degree < 0:
        return []
    *ranges, last = [range(int(degree / weight) + 1) for weight in q]
    found = []
    for head in product(*ranges):
        rest = (degree - _degree(head, q[: len(head)])) / q[-1]
        if rest.denominator == 1 and rest in last:
            found.append((*head, int(rest)))
    return found
