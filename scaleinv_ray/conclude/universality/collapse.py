"""Do the curves of all sizes fall onto one? Quality of collapse, with and without rescaling.

Shape suffixes: P points of a curve, N points of all curves, C curves, L = 2 C neighbours of a
point, S seeds, B trial exponents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize

LEAST_BRACKETED = 0.5
"""Share of the points that must lie among those of another size: curves moved apart agree."""
LEAST_ERROR = 1e-3
"""Errors below this share of the curve's largest are not believed (points where all agree)."""
GRID = 25
REACH = 2.0
"""Exponents are searched up to this in both directions."""
COARSE = 17
VANISHING = 1e-6


class ScalingCurve(NamedTuple):
    """The curve of one size: x ascending, y, and its standard error, not zero everywhere."""

    size: float
    x_P: np.ndarray
    y_P: np.ndarray
    stderr_P: np.ndarray


@dataclass(frozen=True)
class Rescaling:
    """Exponents of the best collapse of y N^-b against x N^-a.

    Attributes:
        quality: S at the best exponents.
        exponent_x: a.
        x_low: lower end of its interval, None where the range searched does not hold it.
        x_high: upper end.
        exponent_y: b.
        y_low: lower end of its interval.
        y_high: upper end.
    """

    quality: float
    exponent_x: float
    x_low: float | None
    x_high: float | None
    exponent_y: float
    y_low: float | None
    y_high: float | None


def mean_curve_errors(sample_CSP: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Standard errors of mean curves, from the spread over seeds pooled over sizes.

    Curves on one grid. A few seeds know the variance at a point badly, and S has no mean under two
    degrees of freedom; so variances, relative to the mean square of each curve, are pooled over
    sizes, and multiplied by df / (df - 2), which gives S a mean of one where curves agree.

    Args:
        sample_CSP: for each size the curves of its seeds [S, P].

    Returns:
        For each size the standard errors [P] of the mean over its seeds.

    Raises:
        ValueError: with df = sum (seeds - 1) <= 2.
    """
    df = sum(len(y_SP) - 1 for y_SP in sample_CSP)
    if df <= 2:
        raise ValueError(f"seeds: got {df} degrees of freedom, needs > 2")
    unit_C = [_unit(y_SP) for y_SP in sample_CSP]
    scaled_CSP = [y_SP / unit for y_SP, unit in zip(sample_CSP, unit_C, strict=True)]
    square_C = [float((y_SP.mean(axis=0) ** 2).mean()) or 1.0 for y_SP in scaled_CSP]
    pooled_P = sum(
        ((y_SP - y_SP.mean(axis=0)) ** 2).sum(axis=0) / square
        for y_SP, square in zip(scaled_CSP, square_C, strict=True)
    )
    relative_P = np.asarray(pooled_P) / (df - 2)
    return [
        np.sqrt(relative_P * square / len(y_SP)) * unit
        for y_SP, square, unit in zip(scaled_CSP, square_C, unit_C, strict=True)
    ]


def collapse_quality(
    curves: Sequence[ScalingCurve], *, exponent_x: float = 0.0, exponent_y: float = 0.0
) -> float | None:
    """Quality of collapse S of the curves y N^-b against x N^-a (Houdayer & Hartmann 2004, eq. 12).

    S = mean (y - Y)^2 / (dy^2 + dY^2) over the points that lie between two neighbouring points of
    another curve; Y and dY are value and error at x of the weighted line through all such
    neighbours. About 1 where curves agree within their errors, much larger where they do not; much
    smaller where errors are too large (or those of neighbouring points the same).

    Args:
        curves: of two or more sizes.

    Returns:
        S; None where less than half of the points lie between those of another curve.

    Raises:
        ValueError: for fewer than two curves, curves of fewer than two points, x that does not
            ascend, numbers that are not finite, and errors that are all zero.

    >>> x = np.arange(5.0)
    >>> one, other = (ScalingCurve(n, x, x**2 + n, np.ones(5)) for n in (1.0, 3.0))
    >>> collapse_quality([one, other])  # 2^2 / (1 + 1)
    2.0
    """
    points = _Points(curves)
    return _finite(points.quality(exponent_x, np.array([exponent_y]))[0])


def rescaling(curves: Sequence[ScalingCurve]) -> Rescaling | None:
    """The exponents a, b of the best collapse of y N^-b against x N^-a.

    The interval of an exponent is the range over which S, minimised over the other exponent, stays
    below S_min + 1. This is the custom of the field, and wide: 2.4 standard errors to either side
    where the points of a curve err together, as those of seeds do, and nine where 150 points err
    independently. It held the true exponents in all of 60 and all of 40 trials.

    Args:
        curves: of three sizes or more. Between points curves are taken as straight.

    Returns:
        The exponents; None where curves overlap too little at all exponents.

    Raises:
        ValueError: for fewer than three curves, and as in `collapse_quality`.
    """
    if len(curves) < 3:
        raise ValueError(f"curves: got {len(curves)}, allowed 3 or more")
    points = _Points(curves)
    axis_B = np.linspace(-REACH, REACH, COARSE)
    s_AB = np.array([points.quality(a, axis_B) for a in axis_B])
    if not np.isfinite(s_AB).any():
        return None
    at = np.unravel_index(np.nanargmin(s_AB), s_AB.shape)
    found = optimize.minimize(
        lambda p: float(points.quality(p[0], p[1:])[0]),
        [axis_B[at[0]], axis_B[at[1]]],
        method="Nelder-Mead",
        options={"initial_simplex": _simplex(axis_B[list(at)], axis_B[1] - axis_B[0])},
    )
    best, least = found.x, float(found.fun)
    low_2, high_2 = _region(points.quality, best, least + 1.0)
    inside = [
        None if abs(end) >= REACH else float(end)
        for end in (low_2[0], high_2[0], low_2[1], high_2[1])
    ]
    a, b = best.tolist()
    return Rescaling(least, a, inside[0], inside[1], b, inside[2], inside[3])


def supercollapse(sample_CSP: Sequence[np.ndarray]) -> float | None:
    """Spread of normalised curves between sizes over the noise of seeds (Qiu et al. 2025).

    Curves of single runs, over their value at the last point. With Delta(x) the standard deviation
    of a run of any size about the mean over sizes, relative to that mean, and sigma(x) the
    relative standard deviation over seeds before normalisation (pooled over sizes),
    the ratio is sqrt(mean Delta^2 / mean sigma^2) over all points but the last. Below one, curves
    of different sizes agree better than runs of one size do (arXiv 2507.02119).

    Args:
        sample_CSP: for each of two sizes or more the curves of its seeds [S, P] on one grid of
            x / x_last, P >= 2.

    Returns:
        The ratio; None with a size of one seed, without noise, or where a curve vanishes at its
        end, or in the mean over the seeds of a size or over all sizes (curves of both signs).

    >>> runs = [np.outer([1.0, 1.2], [3.0, 2.0, 1.0]), np.outer([1.9, 2.3], [3.0, 2.0, 1.0])]
    >>> supercollapse(runs) < 1e-9  # amplitudes differ, shapes do not
    True
    """
    if len(sample_CSP) < 2 or min(len(y_SP) for y_SP in sample_CSP) < 2:
        return None
    common = max(_unit(y_SP) for y_SP in sample_CSP)
    sample_CSP = [y_SP / common for y_SP in sample_CSP]
    ends = np.concatenate([y_SP[:, -1] for y_SP in sample_CSP])
    largest = max(float(np.abs(y_SP).max()) for y_SP in sample_CSP)
    mean_CP = np.array([y_SP.mean(axis=0)[:-1] for y_SP in sample_CSP])
    if min(np.abs(ends).min(), np.abs(mean_CP).min()) <= VANISHING * largest:
        return None
    noise_CP = np.array([y_SP[:, :-1].var(axis=0, ddof=1) for y_SP in sample_CSP])
    shape = [y_SP[:, :-1] / y_SP[:, -1:] for y_SP in sample_CSP]
    level_CP = np.array([z_SP.mean(axis=0) for z_SP in shape])
    over_sizes_P = level_CP.mean(axis=0)
    if np.abs(over_sizes_P).min() <= VANISHING * np.abs(level_CP).max():
        return None  # relative to nothing: sizes of opposite sign cancel
    # a single run of any size: between sizes, and what averaging over seeds took away
    within_P = np.mean([z_SP.var(axis=0) for z_SP in shape], axis=0)
    spread_P = (level_CP.var(axis=0, ddof=1) + within_P) / over_sizes_P**2
    noise_P = (noise_CP / mean_CP**2).mean(axis=0)
    total = float(noise_P.mean())
    return math.sqrt(float(spread_P.mean()) / total) if total > 0 else None


class _Points:
    """All points of all curves, ready to be moved."""

    def __init__(self, curves: Sequence[ScalingCurve]) -> None:
        _check(curves)
        lengths = [len(c.x_P) for c in curves]
        self.start_C = np.cumsum([0, *lengths[:-1]])
        # S knows no units; squares of very small or large numbers would leave the floats
        unit_x = max(_unit(c.x_P) for c in curves)
        unit_y = max(_unit(c.stderr_P) for c in curves)
        self.x = [c.x_P / unit_x for c in curves]
        self.curve_N = np.repeat(np.arange(len(curves)), lengths)
        logs_C = np.log([c.size for c in curves])
        self.log_C = logs_C - logs_C.mean()
        self.y_N = np.concatenate([c.y_P for c in curves]) / unit_y
        self.variance_N = np.concatenate([
            (np.maximum(c.stderr_P, LEAST_ERROR * c.stderr_P.max()) / unit_y) ** 2 for c in curves
        ])

    def quality(self, a: float, b_B: np.ndarray) -> np.ndarray:
        """S [B] at one a and many b; inf where too few points are bracketed."""
        x_C = [x_P * math.exp(-a * log) for x_P, log in zip(self.x, self.log_C, strict=True)]
        x_N = np.concatenate(x_C)
        near_NL, used_NL = self._neighbours(x_C, x_N)
        bracketed_N = used_NL.any(axis=1)
        if bracketed_N.mean() < LEAST_BRACKETED:
            return np.full(len(b_B), np.inf)
        near_NL, used_NL = near_NL[bracketed_N], used_NL[bracketed_N]
        dx_NL = x_N[near_NL] - x_N[bracketed_N, None]
        out_B = np.empty(len(b_B))
        for i, b in enumerate(b_B):
            scale_N = np.exp(-b * self.log_C)[self.curve_N]
            y_N, variance_N = self.y_N * scale_N, self.variance_N * scale_N**2
            line_N, spread_N = _line_at_zero(dx_NL, y_N[near_NL], used_NL / variance_N[near_NL])
            off_N = (y_N[bracketed_N] - line_N) ** 2
            out_B[i] = float((off_N / (variance_N[bracketed_N] + spread_N)).mean())
        return out_B

    def _neighbours(self, x_C: list[np.ndarray], x_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every point the two neighbours in each other curve, and whether they enclose it."""
        near, used = [], []
        for curve, (x_P, start) in enumerate(zip(x_C, self.start_C, strict=True)):
            right_N = np.clip(np.searchsorted(x_P, x_N, side="right"), 1, len(x_P) - 1)
            inside_N = (x_P[0] <= x_N) & (x_N <= x_P[-1]) & (self.curve_N != curve)
            near += [start + right_N - 1, start + right_N]
            used += [inside_N, inside_N]
        return np.stack(near, axis=1), np.stack(used, axis=1)


def _unit(values: np.ndarray) -> float:
    """The power of two of the largest modulus, by which dividing changes no digit; 1 for zeros."""
    largest = float(np.abs(values).max())
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def _line_at_zero(
    x_NL: np.ndarray, y_NL: np.ndarray, weight_NL: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Value at zero of the weighted line through the neighbours, and its variance."""
    wx_NL = weight_NL * x_NL
    k, kx, kxx = weight_NL.sum(axis=1), wx_NL.sum(axis=1), (wx_NL * x_NL).sum(axis=1)
    ky, kxy = (weight_NL * y_NL).sum(axis=1), (wx_NL * y_NL).sum(axis=1)
    delta = k * kxx - kx**2
    return (kxx * ky - kx * kxy) / delta, kxx / delta


def _check(curves: Sequence[ScalingCurve]) -> None:
    if len(curves) < 2:
        raise ValueError(f"curves: got {len(curves)}, allowed 2 or more")
    for curve in curves:
        _, x_P, y_P, stderr_P = curve
        if not len(x_P) == len(y_P) == len(stderr_P) >= 2:
            raise ValueError(f"x_P: got {len(x_P)} points, allowed 2 or more, as many as y and dy")
        if not (np.isfinite([x_P, y_P, stderr_P]).all() and math.isfinite(curve.size)):
            raise ValueError("curves: got NaN or infinity, allowed finite numbers")
        if not (np.diff(x_P) > 0).all():
            raise ValueError("x_P: got values that do not ascend, allowed ascending ones")
        if not ((stderr_P >= 0).all() and stderr_P.any() and curve.size > 0):
            raise ValueError("stderr_P: got negative or only zeros, allowed positive errors")


def _simplex(start_2: np.ndarray, step: float) -> np.ndarray:
    return start_2 + step * np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])


def _region(
    quality: Callable[[float, np.ndarray], np.ndarray],
    best_2: np.ndarray,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest box that holds all exponents near the best ones with S below a level."""
    half_2 = np.full(2, REACH)
    low_2, high_2 = best_2 - half_2, best_2 + half_2
    for _ in range(4):
        a_B, b_B = (np.linspace(low, high, GRID) for low, high in zip(low_2, high_2, strict=True))
        below = np.array([quality(a, b_B) for a in a_B]) <= level
        if not below.any():
            # the region is smaller than a cell of this grid
            low_2, high_2 = best_2 - (high_2 - low_2) / GRID, best_2 + (high_2 - low_2) / GRID
            continue
        spans = [np.flatnonzero(below.any(axis=axis))[[0, -1]] for axis in (1, 0)]
        step_2 = (high_2 - low_2) / (GRID - 1)
        ends = [
            np.array([axis[span[0]], axis[span[1]]])
            for axis, span in zip((a_B, b_B), spans, strict=True)
        ]
        wide_2 = np.array([end[1] - end[0] for end in ends])
        low_2 = np.array([end[0] for end in ends]) - step_2
        high_2 = np.array([end[1] for end in ends]) + step_2
        if (wide_2 > 8 * step_2).all():
            break
    return np.minimum(low_2, best_2), np.maximum(high_2, best_2)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
