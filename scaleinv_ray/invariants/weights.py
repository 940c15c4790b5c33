"""Spectra of weight matrices: the power-law tail and the spikes above the random bulk.

Shape suffixes: O outputs, I inputs; M = min(O, I) eigenvalues of w w^T (or w^T w), N = max(O, I).
Conventions are WeightWatcher's (Martin & Mahoney, JMLR 22:165, 2021): no centring, no 1/N.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.linalg import eigvalsh_tridiagonal
from scipy.optimize import brentq
from scipy.special import entr

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact
from scaleinv_ray.records import WeightMatrix

MIN_EIGENVALUE = 1e-5
"""Eigenvalues at or below it do not enter the tail fit (WeightWatcher's EVALS_THRESH)."""
MIN_EIGENVALUES = 5
TAIL_STDERR_FACTOR = 1.6
"""Standard deviation of alpha over replicates / sigma, as the scan over xmin adds its own scatter.

Measured 1.2 to 1.6 on Pareto samples of 1000 down to 30, 1.7 to 1.9 on Student-t matrices, but
2.0 to 2.3 on Gaussian ones, which have no power law.
"""
FEW_IN_TAIL = 20
POOR_FIT = 0.1
SPIKE_WIDTHS = 3.0
"""Tracy-Widom widths above the edge from which an eigenvalue counts as a spike.

Measured false spikes a Gaussian matrix: .003 at 16 x 64 and 64 x 200, .011 at 64 x 64.
"""
DENSITY_EDGES = np.linspace(-3.0, 3.0, 61)
DECADE_MARGIN = math.log10(1.1)
"""A relative change of 10 %, for quantities that are decimal logarithms."""


class PowerTail(NamedTuple):
    """A power law p(x) ~ x^-alpha on x >= xmin, its asymptotic error and Kolmogorov distance."""

    alpha: float
    sigma: float
    xmin: float
    n_tail: int
    distance: float


def gram_eigenvalues(w_OI: np.ndarray) -> np.ndarray:
    """Squared singular values of a matrix, through its smaller Gram matrix in float64.

    The Gram matrix is summed over slabs, so that a low-precision tensor is never copied whole.

    Args:
        w_OI: matrix of any real dtype.

    Returns:
        lambda_M, ascending, float64, M = min(O, I); absolute rounding error ~ eps lambda_max.

    Raises:
        Refused: not a matrix, or not finite.

    >>> gram_eigenvalues(np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    array([4., 9.])
    """
    if w_OI.ndim != 2 or w_OI.size == 0:
        raise Refused(f"w_OI: got shape {w_OI.shape}, a weight spectrum needs a matrix")
    tall = w_OI if w_OI.shape[0] >= w_OI.shape[1] else w_OI.T
    gram_MM = np.zeros((tall.shape[1], tall.shape[1]))
    for start in range(0, tall.shape[0], 8192):
        slab = np.asarray(tall[start : start + 8192], dtype=np.float64)
        if not np.isfinite(slab).all():
            raise Refused("w_OI: has NaN or infinite entries")
        gram_MM += slab.T @ slab
    return np.maximum(np.linalg.eigvalsh(gram_MM), 0.0)


def _distances(log_x: np.ndarray, alpha: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Distance D_i of each candidate start i in `first`, a run of consecutive indices."""
    tail = np.arange(first[0], len(log_x))
    exceeding = np.exp(
        np.minimum((1.0 - alpha[first, None]) * (log_x[tail] - log_x[first, None]), 0.0)
    )
    # Both clips turn the columns j < i into |1 - 1 - 0| = 0, so no mask is needed.
    below = np.maximum(tail - first[:, None], 0) / (len(log_x) - first[:, None])
    return np.abs(1.0 - exceeding - below).max(axis=1)


def fit_power_tail(values: np.ndarray) -> PowerTail:
    """Power-law tail by the scan of Clauset, Shalizi & Newman (2009), without a minimum tail.

    For every start i < n - 1 of the sorted values, with n_i = n - i,
    alpha_i = 1 + n_i / sum_{j>=i} ln(x_j / x_i) and
    D_i = max_{j>=i} |1 - (x_j / x_i)^(1 - alpha_i) - (j - i) / n_i|; the first least D_i wins.
    (i = n - 1 is no candidate: its sum is empty and its D would be 0.) This is the definition of
    WeightWatcher 0.7.7 (which has another rule below 20 values; here one rule holds for all n);
    sigma = (alpha - 1) / sqrt(n_i) ignores the choice of xmin.

    Args:
        values: positive numbers, at least two of them different.

    Returns:
        The fit at the chosen start.

    Raises:
        Refused: fewer than two values, or all equal.

    >>> fit = fit_power_tail(np.linspace(0.0005, 0.9995, 1000) ** -0.5)  # p(x) ~ x^-3
    >>> round(fit.alpha, 1), fit.n_tail > 900
    (3.0, True)
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    log_x = np.log(x)
    num_tail = n - np.arange(n - 1)
    # Summing n_{k+1} ln(x_{k+1} / x_k) >= 0 from the top avoids the cancellation of
    # sum ln x_j - n_i ln x_i.
    log_sum = np.cumsum(((num_tail - 1) * np.diff(log_x))[::-1])[::-1]
    usable = log_sum > 0
    if not usable.any():
        raise Refused(f"spectrum: all {n} eigenvalues are equal, there is no tail to fit")
    alpha = 1.0 + np.divide(num_tail, log_sum, out=np.zeros(n - 1), where=usable)
    rows = max(1, 2**17 // n)  # a slab of 1 MiB stays in cache
    slabs = [np.arange(i, min(i + rows, n - 1)) for i in range(0, n - 1, rows)]
    distance = np.concatenate([_distances(log_x, alpha, first) for first in slabs])
    best = int(np.argmin(np.where(usable, distance, 1.0)))
    sigma = float((alpha[best] - 1.0) / math.sqrt(n - best))
    return PowerTail(float(alpha[best]), sigma, float(x[best]), n - best, float(distance[best]))


def gaussian_null_eigenvalues(
    num_small: int, num_large: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Eigenvalues of w w^T for a matrix of independent standard normal entries, in O(M^2).

    Drawn from the tridiagonal model of the Laguerre ensemble (Dumitriu & Edelman, J. Math. Phys.
    43:5830, 2002, beta = 1): B is lower bidiagonal with diagonal chi_N, chi_{N-1}, .. and
    subdiagonal chi_{M-1}, .., chi_1; the law of the eigenvalues of B B^T is exact at every M, N.

    Args:
        num_small: M = min(O, I) >= 1.
        num_large: N = max(O, I) >= M.
        rng: source of randomness.

    Returns:
        lambda_M, ascending.

    >>> spectrum = gaussian_null_eigenvalues(100, 400, rng=np.random.default_rng(0))
    >>> round(float(spectrum.mean()) / 400, 1)
    1.0
    """
    on_M = rng.chisquare(num_large - np.arange(num_small))
    below = rng.chisquare(np.arange(num_small - 1, 0, -1))
    diagonal_M = on_M.copy()
    diagonal_M[1:] += below
    return np.maximum(eigvalsh_tridiagonal(diagonal_M, np.sqrt(on_M[:-1] * below)), 0.0)


def marchenko_pastur_median(ratio: float) -> float:
    """Median of the Marchenko-Pastur law with unit variance and ratio q = M / N <= 1.

    With x = 1 + q - 2 sqrt(q) cos t the distribution function is the smooth integral
    F(t) = (2 / pi) int_0^t sin^2 u / (1 + q - 2 sqrt(q) cos u) du, 0 <= t <= pi.

    Args:
        ratio: q, 0 < q <= 1.

    Returns:
        The median, between the edges (1 -+ sqrt q)^2.

    Raises:
        ValueError: with a ratio outside (0, 1].

    >>> round(marchenko_pastur_median(1e-8), 6)
    1.0
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: got {ratio}, allowed 0 < M/N <= 1")
    root = math.sqrt(ratio)

    def eigenvalue(angle: float) -> float:
        # = 1 + q - 2 sqrt(q) cos t, without cancellation at the lower edge for q near 1
        return (1.0 - root) ** 2 + 4.0 * root * math.sin(angle / 2.0) ** 2

    def excess(angle: float) -> float:
        below, _ = quad(lambda u: math.sin(u) ** 2 / eigenvalue(u), 0.0, angle, limit=200)
        return 2.0 / math.pi * below - 0.5

    return eigenvalue(brentq(excess, 0.01, math.pi))


def _tail(lambda_M: np.ndarray, num_large: int) -> PowerTail:
    # Above lambda_max ~ 1e7 the rounding error of the Gram matrix exceeds the fixed threshold.
    floor = max(MIN_EIGENVALUE, float(lambda_M[-1]) * num_large * np.finfo(np.float64).eps)
    kept = lambda_M[lambda_M > floor]
    if len(kept) < MIN_EIGENVALUES:
        raise Refused(
            f"spectrum: {len(kept)} eigenvalues > {floor:g}, a tail needs {MIN_EIGENVALUES}"
        )
    return fit_power_tail(kept)


def _null_score(
    tail: PowerTail,
    lambda_M: np.ndarray,
    *,
    num_large: int,
    num_null: int,
    rng: np.random.Generator,
) -> Estimate | Refused:
    variance = lambda_M.sum() / (len(lambda_M) * num_large)
    try:
        log_alpha = [
            math.log(_tail(variance * null_M, num_large).alpha)
            for null_M in (
                gaussian_null_eigenvalues(len(lambda_M), num_large, rng=rng)
                for _ in range(num_null)
            )
        ]
    except Refused as reason:
        return Refused(f"null: {reason}")
    spread = float(np.std(log_alpha, ddof=1))
    score = (math.log(tail.alpha) - float(np.mean(log_alpha))) / spread
    of_fit = TAIL_STDERR_FACTOR * tail.sigma / (tail.alpha * spread)
    of_null = math.sqrt(1.0 / num_null + score**2 / (2.0 * (num_null - 1)))
    return Estimate(score, math.hypot(of_fit, of_null), num_null, "fit")


def _tail_flags(tail: PowerTail, matrix: WeightMatrix) -> dict[str, float | int | str]:
    flags: dict[str, float | int | str] = {
        "n_tail": tail.n_tail,
        "D": tail.distance,
        "xmin": tail.xmin,
        "sigma": tail.sigma,
    }
    warnings = []
    if tail.n_tail < FEW_IN_TAIL:
        warnings.append(f"n_tail {tail.n_tail} < {FEW_IN_TAIL}")
    if tail.distance > POOR_FIT:
        warnings.append(f"D {tail.distance:.3f} > {POOR_FIT}")
    if warnings:
        flags["warn"] = "; ".join(warnings)
    if matrix.dtype is not None:
        flags["dtype"] = matrix.dtype
    return flags


def _density(lambda_M: np.ndarray) -> Curve:
    scaled = lambda_M[lambda_M > 0] / lambda_M.mean()
    counts, edges = np.histogram(np.log10(scaled), DENSITY_EDGES)
    width = edges[1] - edges[0]
    return Curve(edges[:-1] + width / 2.0, counts / (len(lambda_M) * width))


@invariant(
    quantities={
        "alpha": Quantity(law="constant"),
        "alpha_weighted": Quantity(law="none", margin=DECADE_MARGIN, unit=1.0),
        "alpha_null_z": Quantity(law="none", margin=1.0, unit=1.0),
        "stable_rank": Quantity(law="power_law"),
        "entropy": Quantity(law="constant"),
        "log_norm": Quantity(law="none", margin=DECADE_MARGIN, unit=1.0),
        "log_spectral_norm": Quantity(law="none", margin=DECADE_MARGIN, unit=1.0),
    },
    symmetries=("rotation", "permutation", "transpose"),
    curves=("spectral_density",),
)
def weight_tail(matrix: WeightMatrix, *, rng: np.random.Generator, num_null: int = 10) -> Measured:
    """Power-law exponent of the eigenvalue tail of w w^T, and norms of the spectrum.

    lambda are the M eigenvalues of the smaller Gram matrix of w (float64, no centring, no 1/N);
    alpha and its error come from `fit_power_tail` on lambda > 1e-5. Beside it
    alpha_weighted = alpha log10 lambda_max; stable_rank = sum lambda / lambda_max;
    entropy = -sum p ln p / ln rank with p = lambda / sum lambda; log_norm = log10 sum lambda;
    log_spectral_norm = log10 lambda_max (WeightWatcher 0.7.7; Martin & Mahoney, JMLR 22:165).

    alpha of pure noise drifts with width (6.5 at 64 x 256, 25 at 1024 x 4096), so
    alpha_null_z = (ln alpha - mean) / sd over `num_null` Gaussian matrices of the same shape and
    Frobenius norm says how far the tail is from noise (negative: heavier). It is taken in
    ln alpha, which is less skewed under the null (.5-.8 against 1.6-2.8). The elementwise
    shuffle, which keeps heavy-tailed entries, is the variant `shuffled_weights`.

    Only stable_rank, entropy and (but for the threshold 1e-5) alpha do not change with the scale
    of w, so 'scale' is no symmetry of the whole. Refused are arrays that are no finite matrix, and
    spectra with fewer than 5 eigenvalues > 1e-5.

    Args:
        matrix: w_OI, any real dtype; raw, without the gain of a preceding norm.
        rng: draws the null matrices.
        num_null: null matrices, at least 2; the error of z falls as 1 / sqrt(2 num_null).

    Returns:
        The quantities. stderr of alpha is 1.6 sigma, kind 'fit' (`TAIL_STDERR_FACTOR`); of z it
        adds the scatter of the null; functions of the whole spectrum are exact. Curve
        spectral_density: eigenvalues a decade, as a fraction of M, against
        log10(lambda / mean lambda). Flags: n_tail, D, xmin, sigma, rank_loss, the stored dtype
        where known, and a warning where n_tail < 20 or D > 0.1.

    Raises:
        ValueError: with num_null < 2.

    >>> w = np.diag(np.linspace(0.0005, 0.9995, 1000) ** -0.25)  # lambda ~ x^-3
    >>> result = weight_tail(WeightMatrix(w_OI=w), rng=np.random.default_rng(0))
    >>> round(result.values["alpha"].value, 1)
    3.0
    """
    if num_null < 2:
        raise ValueError(f"num_null: got {num_null}, allowed integers >= 2")
    lambda_M = gram_eigenvalues(matrix.w_OI)
    num_large = max(matrix.w_OI.shape)
    tail = _tail(lambda_M, num_large)
    total, largest = float(lambda_M.sum()), float(lambda_M[-1])
    rank = int((lambda_M > largest * num_large * np.finfo(np.float64).eps).sum())
    log_largest = math.log10(largest)
    alpha_stderr = TAIL_STDERR_FACTOR * tail.sigma
    values = {
        "alpha": Estimate(tail.alpha, alpha_stderr, tail.n_tail, "fit"),
        "alpha_weighted": Estimate(
            tail.alpha * log_largest, alpha_stderr * abs(log_largest), tail.n_tail, "fit"
        ),
        "alpha_null_z": _null_score(
            tail, lambda_M, num_large=num_large, num_null=num_null, rng=rng
        ),
        "stable_rank": exact(total / largest, n=len(lambda_M)),
        "entropy": exact(entr(lambda_M / total).sum() / math.log(rank), n=len(lambda_M)),
        "log_norm": exact(math.log10(total), n=len(lambda_M)),
        "log_spectral_norm": exact(log_largest, n=len(lambda_M)),
    }
    flags = _tail_flags(tail, matrix) | {"rank_loss": len(lambda_M) - rank}
    return Measured(values, curves={"spectral_density": _density(lambda_M)}, flags=flags)


@invariant(
    quantities={
        "spikes": Quantity(law="integer", unit=1.0),
        "edge_ratio": Quantity(law="none"),
    },
    symmetries=("rotation", "permutation", "transpose", "scale"),
)
def weight_spikes(matrix: WeightMatrix, *, rng: np.random.Generator) -> Measured:
    """Eigenvalues of w w^T above the edge of the Marchenko-Pastur bulk: learned directions.

    With q = M / N and s^2 = median lambda / median of the law (= N sigma_w^2 for independent
    entries; the median hardly sees the spikes) the edge is s^2 (1 + sqrt q)^2, and its
    Tracy-Widom width s^2 / N (sqrt N + sqrt M) (1 / sqrt N + 1 / sqrt M)^(1/3) (Johnstone, Ann.
    Stat. 29:295, 2001). A spike exceeds the edge by more than 3 widths. A signal of strength
    theta > sqrt q in the population covariance 1 + theta stands at (1 + theta)(1 + q / theta)
    (Baik, Ben Arous & Peche, 2005); a weaker one is not seen.

    Args:
        matrix: w_OI, any real dtype.
        rng: unused, nothing is random.

    Returns:
        spikes, their number, and edge_ratio = lambda_max / edge; both exact functions of w.
        Flags: edge, width, bulk_scale (s^2), ratio (q).

    Raises:
        Refused: not a finite matrix, fewer than 5 eigenvalues, or rank below M / 2.

    >>> w = np.random.default_rng(0).standard_normal((100, 400))
    >>> w[0] *= 3.0
    >>> weight_spikes(WeightMatrix(w_OI=w), rng=np.random.default_rng(0)).values["spikes"].value
    1.0
    """
    lambda_M = gram_eigenvalues(matrix.w_OI)
    num_small, num_large = len(lambda_M), max(matrix.w_OI.shape)
    if num_small < MIN_EIGENVALUES:
        raise Refused(f"spectrum: {num_small} eigenvalues, a bulk needs {MIN_EIGENVALUES}")
    median = float(np.median(lambda_M))
    if median <= lambda_M[-1] * num_large * np.finfo(np.float64).eps:
        raise Refused("spectrum: rank below half the smaller dimension, there is no bulk")
    ratio = num_small / num_large
    scale = median / marchenko_pastur_median(ratio)
    edge = scale * (1.0 + math.sqrt(ratio)) ** 2
    roots = math.sqrt(num_large), math.sqrt(num_small)
    width = scale / num_large * sum(roots) * (1.0 / roots[0] + 1.0 / roots[1]) ** (1.0 / 3.0)
    spikes = int((lambda_M > edge + SPIKE_WIDTHS * width).sum())
    return Measured(
        {
            "spikes": exact(spikes, n=num_small),
            "edge_ratio": exact(float(lambda_M[-1]) / edge, n=num_small),
        },
        flags={"edge": edge, "width": width, "bulk_scale": scale, "ratio": ratio},
    )
