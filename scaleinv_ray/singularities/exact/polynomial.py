"""Polynomials of a few variables: evaluated fast on many points, differentiated exactly.

Shape suffixes: P points, N variables, M monomials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Exponent = tuple[int, ...]


@dataclass(frozen=True)
class Polynomial:
    """A polynomial as its terms: exponent of every variable -> coefficient.

    Attributes:
        terms: at least one; coefficients int or Fraction, none zero; all exponents of one length.

    >>> cusp = Polynomial({(2, 0): 1, (0, 3): -1})  # w1^2 - w2^3
    >>> cusp(np.array([[3.0, 2.0]]))
    array([1.])
    """

    terms: Mapping[Exponent, int | Fraction]

    def __post_init__(self) -> None:
        lengths = {len(exponent) for exponent in self.terms}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"terms: got exponents of lengths {sorted(lengths)}, allowed one >= 1")
        if any(power < 0 for exponent in self.terms for power in exponent):
            raise ValueError(f"terms: got {sorted(self.terms)}, exponents must be >= 0")
        if not all(self.terms.values()):
            raise ValueError("terms: got a coefficient 0, leave the term out")

    @property
    def num_variables(self) -> int:
        """Number of variables."""
        return len(next(iter(self.terms)))

    @property
    def exponents_MN(self) -> np.ndarray:
        """Exponents of the terms, sorted."""
        return np.array(sorted(self.terms), dtype=np.int64)

    def __call__(self, w_PN: np.ndarray) -> np.ndarray:
        """Values at points.

        Args:
            w_PN: points; more leading axes are allowed.

        Returns:
            value_P.
        """
        highest_N = self.exponents_MN.max(axis=0)
        powers = [_powers(w_PN[..., i], int(top)) for i, top in enumerate(highest_N)]
        value_P = np.zeros(w_PN.shape[:-1])
        for exponent, coefficient in self.terms.items():
            term_P = np.full(value_P.shape, float(coefficient))
            for i, power in enumerate(exponent):
                if power:
                    term_P *= powers[i][power - 1]
            value_P += term_P
        return value_P

    def __mul__(self, other: Polynomial) -> Polynomial:
        """Product."""
        terms: dict[Exponent, int | Fraction] = {}
        for a, x in self.terms.items():
            for b, y in other.terms.items():
                key = tuple(i + j for i, j in zip(a, b, strict=True))
                terms[key] = terms.get(key, 0) + x * y
        return Polynomial({key: value for key, value in terms.items() if value})

    def derivative(self, variable: int) -> Polynomial | None:
        """Partial derivative, None where it is zero."""
        terms = {
            (*key[:variable], key[variable] - 1, *key[variable + 1 :]): value * key[variable]
            for key, value in self.terms.items()
            if key[variable]
        }
        return Polynomial(terms) if terms else None


def monomial(*powers: int) -> Polynomial:
    """One term with coefficient 1.

    Args:
        *powers: exponent of every variable.

    >>> monomial(2, 4).terms
    {(2, 4): 1}
    """
    return Polynomial({powers: 1})


def hessian_corank(potential: Polynomial) -> int:
    """Zero modes of the Hessian at the origin.

    Args:
        potential: K, without constant and linear terms.

    Returns:
        Variables less rank of the Hessian.

    >>> hessian_corank(Polynomial({(2, 0): 1, (0, 4): 1}))
    1
    """
    size = potential.num_variables
    hessian_NN = np.zeros((size, size))
    for exponent, coefficient in potential.terms.items():
        if sum(exponent) == 2:
            i, j = np.repeat(np.arange(size), exponent)
            hessian_NN[i, j] += float(coefficient)
            hessian_NN[j, i] += float(coefficient)
    return size - int(np.linalg.matrix_rank(hessian_NN))


def symmetry_dimension(potential: Polynomial) -> int:
    """Dimension of the group of linear maps that leave the polynomial unchanged.

    Its Lie algebra is {A : sum_ij A_ij w_j d_i K = 0}: the kernel of a matrix with a column for
    every (i, j) and a row for every monomial.

    Returns:
        Dimension: 1 for w1^2 + w2^2 (rotations) and for w1^2 w2^2 (w1 -> c w1, w2 -> w2 / c).

    >>> symmetry_dimension(Polynomial({(2, 0): 1, (0, 4): 1}))
    0
    """
    size = potential.num_variables
    columns = []
    for i in range(size):
        slope = potential.derivative(i)
        for j in range(size):
            unit = tuple(int(k == j) for k in range(size))
            columns.append({} if slope is None else (slope * monomial(*unit)).terms)
    matrix_MA = coefficient_matrix(columns)
    return size**2 - int(np.linalg.matrix_rank(matrix_MA))


def coefficient_matrix(columns: list[Mapping[Exponent, int | Fraction]]) -> np.ndarray:
    """Coefficients of several polynomials as the columns of a matrix.

    Args:
        columns: terms of every polynomial; empty for zero.

    Returns:
        A row for each monomial that occurs, a column for each polynomial.
    """
    row_of = {key: i for i, key in enumerate(sorted({key for terms in columns for key in terms}))}
    matrix_MA = np.zeros((len(row_of), len(columns)))
    for a, terms in enumerate(columns):
        for key, value in terms.items():
            matrix_MA[row_of[key], a] = float(value)
    return matrix_MA


def _powers(x_P: np.ndarray, highest: int) -> list[np.ndarray]:
    # By repeated multiplication: numpy's integer powers are ten times slower.
    powers = [x_P]
    for _ in range(highest - 1):
        powers.append(powers[-1] * x_P)
    return powers
