"""Rational approximation of Stieltjes transforms: isolated poles and branch points of spectra.

Shape suffixes: M eigenvalues, B resamples, K points, P poles.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import AAA
from scipy.optimize import linear_sum_assignment

MAX_TERMS = 60
LINE_POINTS = 60
TOP_EIGENVALUES = 100
BULK_QUANTILE = 0.9
"""Eigenvalues up to it are bulk when points are laid out; what is a spike is for the fit to say."""
BRANCH_TOLERANCE = 1e-2
"""Of z(m): enough for its two Marchenko-Pastur terms, finer ones follow single eigenvalues."""
MIN_PRESENCE = 0.9
"""Share of the resamples in which a pole that is not spurious has a partner."""
MATCH_DISTANCE = 0.25
"""Relative: a spike of an 80-column Gaussian matrix moves by 5 %, more where another repels it."""
MATCH_RESIDUE = 2.0
"""Factor between the residues of partners: two spikes that a resample merges have none."""
RESAMPLE_FINENESS = 10.0
"""Resamples are fitted finer than the whole: what it keeps apart must not be merged in them."""
MIN_ZERO_DISTANCE = 1e-3
"""Pole-zero distance over the height of the line of points: closer ones are Froissart doublets."""
MIN_RESIDUE_ERRORS = 3.0
ISOLATED_WEIGHT = (0.5, 1.5)
"""-M residue of a pole that stands for one eigenvalue; bulk poles stand for several."""


class Poles(NamedTuple):
    """Poles and residues of a rational function, and whether it reached its tolerance."""

    at_P: np.ndarray
    residue_P: np.ndarray
    converged: bool


class Isolated(NamedTuple):
    """Poles that stand for single eigenvalues, the largest first, and them in the resamples.

    Attributes:
        at_P: eigenvalues they stand for.
        weight_P: -M residue, 1 exactly but for the tolerance of the fit.
        at_BP: their partners in the resamples, NaN where there is none.
        residue_sum: of all poles; -1 exactly.
        num_poles: poles of the fit; all but the isolated ones are the bulk's.
        num_spurious: poles left out as spurious.
        converged: whether all fits reached the tolerance.
    """

    at_P: np.ndarray
    weight_P: np.ndarray
    at_BP: np.ndarray
    residue_sum: float
    num_poles: int
    num_spurious: int
    converged: bool


class BranchPoints(NamedTuple):
    """Lower and upper edge of a spectrum, None where none is found."""

    lower: float | None
    upper: float | None


def stieltjes(lambda_M: np.ndarray, z_K: np.ndarray) -> np.ndarray:
    """Stieltjes transform m(z) = (1/M) tr (X - z)^-1 of a spectrum.

    Args:
        lambda_M: eigenvalues of X.
        z_K: points off the spectrum.

    Returns:
        m at the points.

    >>> stieltjes(np.array([1.0, 3.0]), np.array([-1.0])).tolist()
    [0.375]
    """
    return np.array([(1.0 / (lambda_M - z)).mean() for z in z_K])


def fit_poles(z_K: np.ndarray, f_K: np.ndarray, *, rtol: float) -> Poles:
    """Poles of a function known at points, by the AAA algorithm.

    `scipy.interpolate.AAA` (Nakatsukasa, Sete & Trefethen, SIAM J. Sci. Comput. 40:A1494, 2018),
    at most 60 terms. With rtol below the noise of the data it fills up with spurious poles: three
    standard deviations are a good choice.

    Args:
        z_K: points.
        f_K: the function there.
        rtol: largest deviation at the points, over max |f|.

    Returns:
        All its poles, spurious ones among them.

    >>> z = np.exp(1j * np.linspace(0, 6, 20))
    >>> fit_poles(z, 2 / (z - 3), rtol=1e-10).at_P.round(9).real.tolist()
    [3.0]
    """
    return _poles(_rational(z_K, f_K, rtol))


def _rational(z_K: np.ndarray, f_K: np.ndarray, rtol: float) -> tuple[AAA, bool]:
    with warnings.catch_warnings():
        # not reaching the tolerance is part of the answer; scipy says it by a warning
        warnings.simplefilter("ignore", RuntimeWarning)
        fit = AAA(z_K, f_K, rtol=rtol, max_terms=min(MAX_TERMS, len(z_K) // 2))
    return fit, bool(fit.errors[-1] <= rtol * abs(f_K).max() * (1 + 1e-9))


def _poles(fitted: tuple[AAA, bool]) -> Poles:
    fit, converged = fitted
    return Poles(np.asarray(fit.poles()), np.asarray(fit.residues()), converged)


def match(at_P: np.ndarray, other_P: np.ndarray, *, distance_P: np.ndarray) -> np.ndarray:
    """Partners of poles among those of another fit, by the assignment of least total distance.

    Args:
        at_P: poles.
        other_P: the poles of the other fit, another number of them.
        distance_P: how far the partner of each may be.

    Returns:
        Index of the partner in `other_P`, -1 where there is none.

    >>> match(np.array([1.0, 5.0]), np.array([5.1, 9.0, 0.9]), distance_P=np.array([0.5, 0.5]))
    array([2, 0])
    """
    distance_PP = abs(at_P[:, None] - other_P)
    rows, columns = linear_sum_assignment(np.minimum(distance_PP, 4 * distance_P[:, None]))
    close = distance_PP[rows, columns] < distance_P[rows]
    partner_P = np.full(len(at_P), -1)
    partner_P[rows[close]] = columns[close]
    return partner_P


def _line(lambda_M: np.ndarray) -> np.ndarray:
    """Points half the bulk's width above the real axis: over the bulk, and over each eigenvalue."""
    # The height blurs single eigenvalues of the bulk, and a spike weighs the same wherever it lies.
    bulk = float(np.quantile(lambda_M, BULK_QUANTILE))
    over = np.sort(lambda_M[lambda_M > bulk])[-TOP_EIGENVALUES:]
    between = np.concatenate([over, (over[1:] + over[:-1]) / 2, over[-1:] + bulk / 2])
    x_K = np.concatenate([np.linspace(-bulk / 2, 1.5 * bulk, LINE_POINTS), between])
    return np.unique(x_K) + 0.5j * bulk


def _mirrored(upper_K: np.ndarray) -> np.ndarray:
    """Values at the mirror images of the points as well: a real function, f(z*) = f(z)*."""
    return np.concatenate([upper_K, upper_K.conj()])


def _fit_spectrum(lambda_M: np.ndarray, *, rtol: float) -> Poles:
    z_K = _line(lambda_M)
    return fit_poles(_mirrored(z_K), _mirrored(stieltjes(lambda_M, z_K)), rtol=rtol)


def isolated_poles(lambda_M: np.ndarray, lambda_BM: Sequence[np.ndarray]) -> Isolated:
    """Eigenvalues that stand alone: poles of the Stieltjes transform with residue -1/M.

    A rational function is fitted to m at a distance from the real axis, to within one standard
    deviation between its resamples: m itself is exact, and at three the spikes next to the bulk
    are lost (half of those at 1.2 times the edge). At one no Gaussian matrix of 16 x 64, 64 x 64
    and larger showed an isolated pole in 12 draws each, one of four of 16 x 16 did. The fit merges
    the bulk, a branch cut in the limit, into few poles of large residue, and keeps an eigenvalue
    apart from it as a pole of residue -1/M.
    Spurious: a pole next to a zero, without a partner in 90 % of the resamples, or of a residue
    below three standard deviations of the resamples'. Of the others those count that are real and
    have -M residue in .5 .. 1.5; their positions are those of the nearest eigenvalues.

    Args:
        lambda_M: eigenvalues over their median.
        lambda_BM: the same of each delete-one-block resample, in the same unit.

    Returns:
        The isolated poles.
    """
    z_K = _line(lambda_M)
    height = float(z_K[0].imag)
    m_K = stieltjes(lambda_M, z_K)
    m_BK = np.array([stieltjes(resampled_M, z_K) for resampled_M in lambda_BM])
    # about the resamples' own mean: their other aspect ratio shifts all of them alike; the median
    # over points, as those near a spike that moves stand out
    spread = float(np.median(m_BK.std(axis=0)))
    rtol = max(spread / float(abs(m_K).max()), 1e-12)
    points = _mirrored(z_K)
    whole, converged = _rational(points, _mirrored(m_K), rtol)
    at_P, residue_P, _ = _poles((whole, converged))
    # each on its own line: a far spike that moves would be off the points of the whole
    resampled = [_fit_spectrum(other_M, rtol=rtol / RESAMPLE_FINENESS) for other_M in lambda_BM]
    reach_P = np.maximum(MATCH_DISTANCE * abs(at_P), height / 4)
    at_BP = np.full((len(resampled), len(at_P)), np.nan, dtype=complex)
    residue_BP = at_BP.copy()
    for b, other in enumerate(resampled):
        partner_P = match(at_P, other.at_P, distance_P=reach_P)
        ratio_P = abs(other.residue_P[partner_P]) / abs(residue_P)  # index -1 is masked next
        alike_P = (ratio_P < MATCH_RESIDUE) & (ratio_P > 1 / MATCH_RESIDUE)
        found = (partner_P >= 0) & alike_P
        at_BP[b, found] = other.at_P[partner_P[found]]
        residue_BP[b, found] = other.residue_P[partner_P[found]]
    real_P = ~_spurious(whole, at_P, residue_P, residue_BP, height)
    weight_P = -residue_P.real * len(lambda_M)
    low, high = ISOLATED_WEIGHT
    alone_P = real_P & (weight_P > low) & (weight_P < high) & (abs(at_P.imag) < height / 10)
    chosen = np.flatnonzero(alone_P)
    nearest = abs(at_P[chosen, None].real - lambda_M).argmin(axis=1) if len(chosen) else chosen
    _, first = np.unique(-lambda_M[nearest], return_index=True)  # descending, each once
    chosen = chosen[first]
    return Isolated(
        at_P=lambda_M[nearest[first]],
        weight_P=weight_P[chosen],
        at_BP=at_BP[:, chosen].real,
        residue_sum=float(residue_P.sum().real),
        num_poles=len(at_P),
        num_spurious=int((~real_P).sum()),
        converged=converged and all(other.converged for other in resampled),
    )


def _spurious(
    fit: AAA, at_P: np.ndarray, residue_P: np.ndarray, residue_BP: np.ndarray, height: float
) -> np.ndarray:
    """Next to a zero, in too few resamples, or of a residue within its error."""
    if not len(at_P):
        return np.zeros(0, dtype=bool)
    zero_Z = np.asarray(fit.roots())
    gap_P = abs(at_P[:, None] - zero_Z).min(axis=1) if len(zero_Z) else np.full(len(at_P), np.inf)
    present_BP = np.isfinite(residue_BP)
    count_P = present_BP.sum(axis=0)
    num = len(residue_BP)
    mean_P = np.where(present_BP, residue_BP, 0.0).sum(axis=0) / np.maximum(count_P, 1)
    square_BP = np.where(present_BP, abs(residue_BP - mean_P) ** 2, 0.0)
    error_P = np.sqrt((num - 1) * square_BP.sum(axis=0) / np.maximum(count_P, 1))  # jackknife
    return (
        (gap_P < MIN_ZERO_DISTANCE * height)
        | (count_P < MIN_PRESENCE * num)
        | (abs(residue_P) < MIN_RESIDUE_ERRORS * error_P)
    )


def branch_points(lambda_M: np.ndarray) -> BranchPoints:
    """Edges of a bulk: the branch points of its Stieltjes transform.

    Off the spectrum the inverse function z(m) is analytic, and stays so through a square-root
    edge, where dz/dm = 0 (Silverstein & Choi, J. Multivar. Anal. 54:295, 1995). So z is fitted as
    a rational function of m at complex points, and its first extremum on either side of m = 0 is
    the upper (m < 0) and the lower edge. For Marchenko-Pastur, z = -1/m + 1/(1 + q m) exactly.

    Args:
        lambda_M: eigenvalues of the bulk, isolated ones taken out.

    Returns:
        The edges; None where z has no extremum (a hard edge at 0 has no lower one).
    """
    bulk = float(np.quantile(lambda_M, BULK_QUANTILE))
    z_K = np.linspace(-0.6 * bulk, 2 * bulk, LINE_POINTS) + 0.5j * bulk
    m_K = stieltjes(lambda_M, z_K)
    fit, _ = _rational(_mirrored(m_K), _mirrored(z_K), BRANCH_TOLERANCE)
    size_K = np.geomspace(1e-2, 1e2, 4001) / bulk
    edges = []
    for sign in (1.0, -1.0):
        z_of_m = np.real(fit(sign * size_K))
        turns = np.flatnonzero(np.diff(np.sign(np.diff(z_of_m))))
        edges.append(float(z_of_m[turns[0] + 1]) if len(turns) else None)
    lower, upper = edges
    inside = upper is not None and upper > bulk / 2
    return BranchPoints(
        lower if lower is not None and lower < bulk else None, upper if inside else None
    )
