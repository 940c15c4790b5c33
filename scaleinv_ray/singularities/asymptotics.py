"""From volumes of small loss to learning coefficient and multiplicity.

Shape suffixes: B independent blocks of particles, L levels, J steps between levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.singularities.volume import StateDensity

_STEPS = 6
"""Fewest steps of volume that a law is fitted to."""
_BROADEST = 2.0
"""Prior width of b in units of m / llc, the mean of the gamma law of -log K.

Without it every m would fit: a large b makes the logarithm a constant.
"""


_POSSIBLE = 1e-3
"""Weight down to which a multiplicity is possible. Fits stop before further poles, and where these
are near, the true m gets little: .009 for e_4 of 7, .003 for a latent class."""
_RATES = (0.2, 0.35, 0.6, 1.0)
"""Distances of a next pole that are tried, in units of llc."""


@dataclass(frozen=True)
class VolumeLaw:
    """V(eps) = c eps^llc (b - log eps)^(m - 1) as fitted.

    Attributes:
        llc: at the most likely multiplicity; its error includes that it may be another.
        multiplicity: the most likely one.
        weights: probability of each multiplicity, by the information criterion.
        llc_by_multiplicity: what llc would be at each.
    """

    llc: Estimate
    multiplicity: int
    weights: Mapping[int, float]
    llc_by_multiplicity: Mapping[int, Estimate]


class _Steps(NamedTuple):
    """u = -log eps at the levels kept, its steps, the step of log V, and variance of their mean."""

    u_BL: np.ndarray
    du_BJ: np.ndarray
    step: float
    noise: float


class _Fit(NamedTuple):
    llc: float
    stderr: float
    criterion: float


def volume_law(found: StateDensity, *, max_multiplicity: int) -> VolumeLaw:
    """Fits V(eps) = c eps^llc (b - log eps)^(m - 1) for every m, from many first levels.

    Steps of log V between levels are independent, of known mean and equal variance; residuals of
    the steps are fitted by least squares. With u = -log eps, b holds what the box contributes:
    V = sqrt(eps) (2 + u) / 2 for w1^2 w2^2. At m = 1 a factor 1 + a eps^rate, from the next pole,
    is tried as well: a rate far below llc, as of (w1^2 - w2^3)^2 (5/12 beside 1/2), is hardly told
    from a logarithm, and the weights of m say so. Which levels are left out, what is fitted and
    which m is taken is weighed by chi^2 + 2 parameters + 2 steps left out (Jay and Neil 2021,
    eq. 17). Errors are those of the blocks together with the spread over fits; that of llc has the
    spread over the multiplicities that are possible besides, even ones: near a second face of the
    polyhedron the likeliest of them is often wrong.

    Args:
        max_multiplicity: the largest allowed; at most the number of variables.

    Raises:
        ValueError: where max_multiplicity is below 1.
        Refused: with fewer than 8 levels.

    >>> from scaleinv_ray.singularities.volume import subset_simulation
    >>> K = lambda w: w[..., 0] ** 2 + w[..., 1] ** 4
    >>> found = subset_simulation(K, 2, rng=np.random.default_rng(0))
    >>> law = volume_law(found, max_multiplicity=2)
    >>> abs(law.llc.value - 3 / 4) < 0.02, law.multiplicity
    (True, 1)
    """
    if max_multiplicity < 1:
        raise ValueError(f"max_multiplicity: got {max_multiplicity}, must be >= 1")
    u_BL = -found.log_eps_BL
    num_steps = u_BL.shape[1] - 1
    if num_steps < _STEPS + 1:
        raise Refused(f"{u_BL.shape[1]} levels: too few to tell a law")
    u_BL = u_BL - float(u_BL[:, 0].mean())  # K in units of its median
    step = float(found.log_volume_L[1] - found.log_volume_L[0])
    fits = {
        m: [fit for first in _firsts(num_steps - _STEPS) for fit in _fits(u_BL, step, m, first)]
        for m in range(1, max_multiplicity + 1)
    }
    lowest = min(fit.criterion for of in fits.values() for fit in of)
    mass = {m: [math.exp((lowest - fit.criterion) / 2) for fit in of] for m, of in fits.items()}
    total = sum(map(sum, mass.values()))
    llc_of = {m: _averaged(fits[m], len(u_BL)) for m in fits}
    weights = {m: sum(mass[m]) / total for m in fits}
    best = max(weights, key=lambda m: weights[m])
    possible = [llc_of[m].value for m in llc_of if weights[m] > _POSSIBLE]
    return VolumeLaw(_widened(llc_of[best], possible), best, weights, llc_of)


def _widened(best: Estimate, possible: Sequence[float]) -> Estimate:
    """The estimate, its error with the mean squared distance to the possible ones."""
    spread = float(np.mean([(value - best.value) ** 2 for value in possible]))
    within = best.stderr or 0.0
    return Estimate(best.value, math.sqrt(within**2 + spread), best.n, best.error_kind)


def _firsts(largest: int) -> list[int]:
    """Numbers of first levels to leave out: 0, 1, 2, 3, 4, 6, 8, 12, 16, .."""
    tried = [0, 1, *(base * 2**i // 2 for i in range(1, 16) for base in (2, 3))]
    return [first for first in tried if first <= largest]


def _fits(u_BL: np.ndarray, step: float, multiplicity: int, first: int) -> list[_Fit]:
    """Least squares for llc, and what goes with it, without the `first` levels."""
    u_BL = u_BL[:, first:]
    du_BJ = np.diff(u_BL, axis=1)
    du_J = du_BJ.mean(axis=0)
    plain = -step * float(du_J.sum() / (du_J @ du_J))
    noise = float((plain * du_BJ).var(axis=0, ddof=1).mean()) / len(u_BL)
    steps = _Steps(u_BL, du_BJ, step, noise)
    if multiplicity > 1:
        return [_logarithm(steps, multiplicity, _BROADEST * multiplicity / plain, 2 * first)]
    pure = _solved(steps, np.zeros_like(du_BJ), [], 2 * first)
    return [pure, *(_corrected(steps, rate * plain, 2 * first) for rate in _RATES)]


def _logarithm(steps: _Steps, multiplicity: int, width: float, dropped: int) -> _Fit:
    """With (b - log eps)^(m - 1), b found under its prior."""
    u_BL, powers = steps.u_BL, multiplicity - 1
    lowest = 1 - float(u_BL.min())

    def gained(shift: float) -> np.ndarray:
        return powers * np.diff(np.log(u_BL + shift), axis=1)

    def cost(shift: float) -> float:
        return _left_over(steps, gained(shift)) + (shift / width) ** 2

    shift = float(minimize_scalar(cost, bounds=(lowest, 10 * width), method="bounded").x)
    slope_BJ = powers * np.diff(1 / (u_BL + shift), axis=1)
    return _solved(steps, gained(shift), [slope_BJ], dropped + (shift / width) ** 2)


def _corrected(steps: _Steps, rate: float, dropped: int) -> _Fit:
    """With 1 + a eps^rate, eps in units of the first threshold kept."""
    decay_BL = np.exp(-rate * (steps.u_BL - steps.u_BL[:, 0].mean()))
    most = 0.95 / float(decay_BL.max())

    def gained(size: float) -> np.ndarray:
        return np.diff(np.log1p(size * decay_BL), axis=1)

    def cost(size: float) -> float:
        return _left_over(steps, gained(size))

    size = float(minimize_scalar(cost, bounds=(-most, 3 * most), method="bounded").x)
    share_BL = decay_BL / (1 + size * decay_BL)
    # The rate is a parameter too, but one whose error is the spread over those tried.
    return _solved(steps, gained(size), [np.diff(share_BL, axis=1)], dropped + 2)


def _left_over(steps: _Steps, gained_BJ: np.ndarray) -> float:
    """Chi^2 where llc is the best one."""
    rhs_J = (gained_BJ - steps.step).mean(axis=0)
    du_J = steps.du_BJ.mean(axis=0)
    left = np.sum((rhs_J - du_J * (rhs_J @ du_J) / (du_J @ du_J)) ** 2)
    return float(left) / steps.noise


def _solved(steps: _Steps, gained_BJ: np.ndarray, slopes: list[np.ndarray], penalty: float) -> _Fit:
    """Linear solution for llc and the shape near its best value, errors from the blocks."""
    a_BJA = np.stack([steps.du_BJ, *(-slope_BJ for slope_BJ in slopes)], axis=-1)
    y_BJ = gained_BJ - steps.step
    inverse_AJ = np.linalg.pinv(a_BJA.mean(axis=0))
    llc = float(inverse_AJ[0] @ y_BJ.mean(axis=0))
    chi2 = _left_over(steps, gained_BJ)
    residual_BJ = y_BJ - llc * steps.du_BJ
    stderr = float((residual_BJ @ inverse_AJ[0]).std(ddof=1)) / math.sqrt(len(y_BJ))
    return _Fit(llc, stderr, chi2 + penalty + 2 * a_BJA.shape[-1])


def _averaged(fits: list[_Fit], num_blocks: int) -> Estimate:
    criterion = np.array([fit.criterion for fit in fits])
    weight = np.exp((criterion.min() - criterion) / 2)
    weight /= weight.sum()
    llc = np.array([fit.llc for fit in fits])
    mean = float(weight @ llc)
    within = float(weight @ np.array([fit.stderr for fit in fits]) ** 2)
    return Estimate(mean, math.sqrt(within + weight @ (llc - mean) ** 2), num_blocks, "jackknife")
