"""Zeros of initial forms off the coordinate hyperplanes, and the refusal of singular ones.

Shape suffixes: M monomials, N variables, R dimension of the span of the exponents.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.stats import qmc

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities.exact.polynomial import Polynomial

_SINGULAR = 1e-12
"""Squared value and slope, as shares of the sum of the terms' sizes, that count as a zero."""
_STARTS = 32


def has_torus_zero(form: Polynomial, *, real: bool) -> bool:
    """Whether a polynomial vanishes somewhere with all variables nonzero.

    Exact where the exponents lie on a line (Sturm 1829, after a change of coordinates to one
    variable) and where they are affinely independent (the terms are then coordinates themselves);
    a search from some dozen starts in the other cases.

    Args:
        form: initial form.
        real: whether real zeros are asked for; complex ones otherwise.

    Raises:
        Refused: where the slope vanishes with the form at such a point: it is degenerate.

    >>> has_torus_zero(Polynomial({(2, 0): 1, (0, 4): 1}), real=True)
    False
    >>> has_torus_zero(Polynomial({(2, 0): 1, (0, 4): 1}), real=False)
    True
    """
    exponents_MN = form.exponents_MN
    coefficients = [Fraction(form.terms[tuple(a)]) for a in exponents_MN.tolist()]
    rank = int(np.linalg.matrix_rank(exponents_MN - exponents_MN[0]))
    if not rank:
        return False
    if rank == 1:
        return _on_a_line(exponents_MN, coefficients, real=real)
    if rank == len(coefficients) - 1:
        return not real or _has_mixed_signs(exponents_MN, coefficients)
    return _searched(exponents_MN, coefficients, real=real)


def _on_a_line(exponents_MN: np.ndarray, coefficients: list[Fraction], *, real: bool) -> bool:
    # All monomials are powers of one primitive x^d, which takes every nonzero value, of both
    # signs: an entry of d is odd.
    axis = int(np.abs(exponents_MN - exponents_MN[0]).max(axis=0).argmax())
    first = exponents_MN[exponents_MN[:, axis].argmin()]
    steps = np.gcd.reduce(exponents_MN - first, axis=1)
    line = [Fraction(0)] * (int(steps.max()) + 1)
    for step, coefficient in zip(steps.tolist(), coefficients, strict=True):
        line[step] = coefficient
    chain = _sturm_chain(line)
    double = chain[-1]
    if len(double) > 1 and (not real or _num_real_roots(_sturm_chain(double))):
        raise _degenerate(exponents_MN)
    return not real or _num_real_roots(chain) > 0


def _sturm_chain(p: list[Fraction]) -> list[list[Fraction]]:
    """p, p', then remainders with their signs turned; the last is the gcd of p and p'."""
    chain = [p, [i * c for i, c in enumerate(p)][1:]]
    while len(chain[-1]) > 1:
        rest = list(chain[-2])
        divisor = chain[-1]
        while len(rest) >= len(divisor):
            factor = rest[-1] / divisor[-1]
            shift = len(rest) - len(divisor)
            for i, c in enumerate(divisor):
                rest[shift + i] -= factor * c
            while rest and not rest[-1]:
                rest.pop()
        if not rest:
            break
        chain.append([-c for c in rest])
    return chain


def _num_real_roots(chain: list[list[Fraction]]) -> int:
    def changes(values: Sequence[Fraction]) -> int:
        return sum(a * b < 0 for a, b in zip(values[:-1], values[1:], strict=True))

    return changes([p[-1] * (-1) ** (len(p) - 1) for p in chain]) - changes([p[-1] for p in chain])


def _has_mixed_signs(exponents_MN: np.ndarray, coefficients: Sequence[Fraction]) -> bool:
    """Whether the terms have both signs in some orthant."""
    return any(np.ptp(signs_M) > 0 for signs_M in _signs_in_orthants(exponents_MN, coefficients))


def _signs_in_orthants(
    exponents_MN: np.ndarray, coefficients: Sequence[Fraction]
) -> list[np.ndarray]:
    own_M = np.array([1 if c > 0 else -1 for c in coefficients])
    orthants = product((1, -1), repeat=exponents_MN.shape[1])
    return [own_M * np.prod(np.array(o) ** exponents_MN, axis=1) for o in orthants]


def _searched(exponents_MN: np.ndarray, coefficients: list[Fraction], *, real: bool) -> bool:
    centred_MN = exponents_MN - exponents_MN.mean(axis=0)
    _, singular, axes_RN = np.linalg.svd(centred_MN, full_matrices=False)
    powers_MR = centred_MN @ axes_RN[singular > 1e-9 * singular[0]].T
    size_M = np.abs(np.array([float(c) for c in coefficients]))
    found = False
    signs = _signs_in_orthants(exponents_MN, coefficients)
    for sign_M in signs if real else signs[:1]:
        if real and not np.ptp(sign_M):
            continue
        if _has_singular_zero(sign_M * size_M, powers_MR, real=real):
            raise _degenerate(exponents_MN)
        found = found or not real or _changes_sign(sign_M * size_M, powers_MR)
    return found


def _terms(c_M: np.ndarray, powers_MR: np.ndarray, u_R: np.ndarray) -> np.ndarray:
    """Terms at w = exp(u), divided by the sum of their sizes."""
    log_M = powers_MR @ u_R
    term_M = c_M * np.exp(log_M - log_M.real.max())
    return np.asarray(term_M / np.abs(term_M).sum())


def _has_singular_zero(c_M: np.ndarray, powers_MR: np.ndarray, *, real: bool) -> bool:
    # Value and logarithmic slopes vanish together only at a singular zero; towards infinity they
    # tend to those of smaller faces, which are searched on their own.
    size = powers_MR.shape[1]

    def residual(x: np.ndarray) -> np.ndarray:
        u_R = x if real else x[:size] + 1j * x[size:]
        term_M = _terms(c_M, powers_MR, u_R)
        out = np.r_[term_M.sum(), term_M @ powers_MR]
        return out if real else np.r_[out.real, out.imag]

    starts = qmc.Halton(size if real else 2 * size, scramble=False).random(_STARTS)
    scale = np.r_[np.full(size, 6.0), np.full(0 if real else size, 2 * np.pi)]
    return any(
        2 * float(least_squares(residual, scale * (start - 0.5)).cost) < _SINGULAR
        for start in starts
    )


def _changes_sign(c_M: np.ndarray, powers_MR: np.ndarray) -> bool:
    """Whether the form has both signs in this orthant."""
    starts = 6 * qmc.Halton(powers_MR.shape[1], scramble=False).random(_STARTS) - 3

    def share(u_R: np.ndarray, sign: int) -> float:
        return sign * float(_terms(c_M, powers_MR, u_R).sum())

    return all(
        any(share(u_R, sign) < 0 or minimize(share, u_R, (sign,)).fun < 0 for u_R in starts)
        for sign in (1, -1)
    )


def _degenerate(exponents_MN: np.ndarray) -> Refused:
    return Refused(f"degenerate: the initial form of {exponents_MN.tolist()} has a singular zero")
