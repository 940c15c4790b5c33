"""Power-law tails of the spectra of weight matrices.

Shape suffixes: O outputs, I inputs; M = min(O, I) eigenvalues of w w^T (or w^T w), N = max(O, I);
S sub-matrix. Conventions are WeightWatcher's (Martin & Mahoney, JMLR 22:165, 2021): no centring,
no 1/N. The weights are raw: the gain of a preceding norm is not folded into them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import entr

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate, exact, mean_of
from scaleinv_ray.invariants.common.covariance import (
    disjoint_tiles,
    gram_eigenvalues,
    without_zeros,
)
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.invariants.common.subsamples import check_at_least
from scaleinv_ray.invariants.weights.marchenko_pastur import gaussian_null_eigenvalues
from scaleinv_ray.invariants.weights.power_tail import (
    PowerTail,
    fit_power_tail,
    hill_exponent,
    null_score,
    stored_rounding,
)
from scaleinv_ray.records import WeightMatrix
from scaleinv_ray.resample import jackknife

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
DENSITY_EDGES = np.linspace(-3.0, 3.0, 61)
DECADE_MARGIN = math.log10(1.1)
"""A relative change of 10 %, for quantities that are decimal logarithms."""


@invariant(
    quantities={
        "alpha": Quantity(
            pooled=True,
            law="constant",
            meaning=(
                "Power-law exponent of the tail of the eigenvalues of W W^T; smaller is heavier"
            ),
        ),
        "alpha_weighted": Quantity(
            pooled=True,
            law="none",
            margin=DECADE_MARGIN,
            unit=1.0,
            meaning="Tail exponent times log10 of the largest eigenvalue of W W^T",
        ),
        "alpha_null_z": Quantity(
            pooled=True,
            law="none",
            margin=1.0,
            unit=1.0,
            meaning=(
                "Tail exponent against Gaussian matrices of the same shape, in their sd; below 0 "
                "heavier"
            ),
        ),
        "stable_rank": Quantity(
            law="power_law",
            meaning="Squared Frobenius norm over squared spectral norm of a weight matrix",
        ),
        "entropy": Quantity(
            law="constant",
            meaning="Entropy of the eigenvalues of W W^T over ln rank; all equal 1, one alone 0",
        ),
        "log_norm": Quantity(
            law="none",
            margin=DECADE_MARGIN,
            unit=1.0,
            meaning="log10 of the squared Frobenius norm of a weight matrix, decades",
        ),
        "log_spectral_norm": Quantity(
            law="none",
            margin=DECADE_MARGIN,
            unit=1.0,
            meaning="log10 of the largest eigenvalue of W W^T, decades",
        ),
    },
    symmetries=("rotation", "permutation", "transpose"),
    curves={"spectral_density": "Share of eigenvalues, a decade; log10 of it over the mean"},
    version=2,
)
def weight_tail(
    matrix: WeightMatrix,
    *,
    rng: np.random.Generator,
    num_null: int = 10,
    precision: Literal["float64", "float32"] = "float64",
) -> Measured:
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
    spectra with fewer than 5 eigenvalues > 1e-5 or with all equal within rounding.

    Args:
        matrix: w_OI, any real dtype; raw, without the gain of a preceding norm.
        rng: draws the null matrices.
        num_null: null matrices, at least 2; the error of z falls as 1 / sqrt(2 num_null).
        precision: 'float64', or 'float32', which is twice as fast and moves alpha by up to 1e-3.

    Returns:
        The quantities. stderr of alpha is 1.6 sigma, kind 'fit' (`TAIL_STDERR_FACTOR`); of z it
        adds the scatter of the null; functions of the whole spectrum are exact. Curve
        spectral_density: eigenvalues a decade, as a fraction of M, against
        log10(lambda / mean lambda). Flags: n_tail, D, xmin, sigma, rank_loss, zero_rows_columns
        (not counted in the null's shape), the stored dtype where known, and a warning where
        n_tail < 20 or D > 0.1.

    Raises:
        ValueError: with num_null < 2 or an unknown precision.

    >>> w = np.diag(np.linspace(0.0005, 0.9995, 1000) ** -0.25)  # lambda ~ x^-3
    >>> result = weight_tail(WeightMatrix(w_OI=w), rng=np.random.default_rng(0))
    >>> round(result.values["alpha"].value, 1)
    3.0
    """
    sound(matrix)
    check_at_least("num_null", num_null, 2)
    lambda_M = gram_eigenvalues(matrix.w_OI, precision=precision)
    num_small, num_large = len(lambda_M), max(matrix.w_OI.shape)
    tail = _tail(lambda_M, num_large, precision, stored=matrix.dtype or str(matrix.w_OI.dtype))
    filled_OI, dropped = without_zeros(matrix.w_OI)
    total, largest = float(lambda_M.sum()), float(lambda_M[-1])
    rank = int((lambda_M > rounding_floor(lambda_M, num_large, precision)).sum())
    log_largest = math.log10(largest)
    alpha = Estimate(tail.alpha, TAIL_STDERR_FACTOR * tail.sigma, tail.n_tail, "fit")
    weighted_stderr = TAIL_STDERR_FACTOR * tail.sigma * abs(log_largest)
    try:
        null = _gaussian_alphas(total, sorted(filled_OI.shape), num_null=num_null, rng=rng)
        score = null_score(alpha, null)
    except Refused as reason:
        score = Refused(f"null: {reason}")
    values = {
        "alpha": alpha,
        "alpha_weighted": Estimate(tail.alpha * log_largest, weighted_stderr, tail.n_tail, "fit"),
        "alpha_null_z": score,
        "stable_rank": exact(total / largest, n=num_small),
        "entropy": exact(entr(lambda_M / total).sum() / math.log(rank), n=num_small),
        "log_norm": exact(math.log10(total), n=num_small),
        "log_spectral_norm": exact(log_largest, n=num_small),
    }
    flags = _tail_flags(tail, matrix)
    flags |= {"rank_loss": num_small - rank, "zero_rows_columns": dropped}
    return Measured(values, curves={"spectral_density": _density(lambda_M)}, flags=flags)


@invariant(
    quantities={
        "alpha_farms": Quantity(
            law="constant",
            meaning="Tail exponent pooled over tiles of one aspect ratio; about 2.1 for noise",
        ),
        "alpha_farms_null_z": Quantity(
            law="none",
            margin=1.0,
            unit=1.0,
            meaning="Pooled tail exponent against Gaussian tiles, in their sd; below 0 heavier",
        ),
    },
    symmetries=("scale",),
    version=2,
)
def fixed_aspect_tail(
    matrix: WeightMatrix,
    *,
    rng: np.random.Generator,
    aspect: float = 1.0,
    num_submatrices: int = 16,
    num_null: int = 10,
) -> Measured:
    """Exponent of the eigenvalue tail pooled over sub-matrices of one aspect ratio (FARMS).

    The spectrum of noise depends on the shape of w, and so does every exponent fitted to it; over
    sub-matrices of one aspect ratio shapes compare (Hu et al., ICML 2025, arXiv 2506.06280). Rows
    and columns are permuted, the largest m x n tiles with n = round(aspect m) of which
    `num_submatrices` fit side by side are cut out, the eigenvalues of their smaller Gram matrices
    are pooled, and alpha_farms is Hill's exponent of the larger half, as in FARMS: its value for
    noise tends to a constant of the Marchenko-Pastur law (2.1217 at aspect 1, 2.05 to 2.13 at
    m = 16 to 128), while the scan over xmin drifts from 8 to over 30. Tiles are a quarter of the
    width of a square matrix at every width, so that structure keeps its share of them; they are
    disjoint, where FARMS lets windows overlap, which leaves them no error.

    alpha_farms_null_z = (ln alpha - mean) / sd over Gaussian tiles of the same size. 'rotation'
    is no symmetry: rotated entries are distributed differently over sub-matrices; 'permutation'
    and 'transpose' hold in distribution over rng.

    Args:
        matrix: w_OI, any real dtype.
        rng: permutes, then draws the null.
        aspect: longer over shorter side of a tile, >= 1; the longer along the longer side of w.
        num_submatrices: tiles, at least 4.
        num_null: null spectra, at least 2.

    Returns:
        Both with the delete-one-tile jackknife error (z: and the scatter of the null). Flags: the
        short side of a tile; zero_rows_columns, dropped first.

    Raises:
        ValueError: with an argument below its bound.
        Refused: not a finite matrix, tiles with a side below 8, or of rank below half.

    >>> w = np.random.default_rng(0).standard_normal((128, 512))
    >>> found = fixed_aspect_tail(WeightMatrix(w_OI=w), rng=np.random.default_rng(0))
    >>> found.flags["side"], round(found.values["alpha_farms"].value, 1)
    (64, 2.1)
    """
    sound(matrix)
    check_at_least("num_null", num_null, 2)
    if not (aspect >= 1 and num_submatrices >= 4):
        got = f"{aspect}, {num_submatrices}"
        raise ValueError(f"aspect, num_submatrices: got {got}, allowed >= 1, >= 4")
    filled_OI, dropped = without_zeros(matrix.w_OI)
    tile_SMN = disjoint_tiles(filled_OI, aspect=aspect, count=num_submatrices, rng=rng)
    lambda_SM = np.linalg.eigvalsh(tile_SMN @ tile_SMN.transpose(0, 2, 1))
    _, side, longer = tile_SMN.shape
    if np.median(lambda_SM) <= lambda_SM.max() * longer * np.finfo(np.float64).eps:
        raise Refused("spectrum: rank of the sub-matrices below half, there is no tail")
    lambda_SM = np.maximum(lambda_SM, np.finfo(np.float64).tiny)
    alpha = jackknife(
        lambda kept: hill_exponent(lambda_SM[kept].ravel()),
        num_submatrices,
        error_kind="subsamples",
    )
    null_alpha = [
        hill_exponent(
            np.concatenate([
                gaussian_null_eigenvalues(side, longer, rng=rng) for _ in range(num_submatrices)
            ])
        )
        for _ in range(num_null)
    ]
    return Measured(
        {"alpha_farms": alpha, "alpha_farms_null_z": null_score(alpha, null_alpha)},
        flags={"side": side, "zero_rows_columns": dropped},
    )


@invariant(
    quantities={
        "alpha_shuffle_z": Quantity(
            pooled=True,
            law="none",
            margin=1.0,
            unit=1.0,
            meaning=(
                "Tail exponent against shuffles of the same entries, in their sd; below 0 heavier"
            ),
        ),
        "norm_excess": Quantity(
            law="none",
            unit=1.0,
            meaning=(
                "ln of the largest eigenvalue of W W^T above that of shuffled entries; 0 is noise"
            ),
        ),
    },
    version=2,
)
def shuffle_null(
    matrix: WeightMatrix, *, rng: np.random.Generator, num_shuffles: int = 10
) -> Measured:
    """Tail and top of the spectrum of w w^T against elementwise shuffles of the same w.

    A shuffle keeps the entries, heavy-tailed ones with them, and loses their arrangement; the
    Gaussian null of `weight_tail` loses both. alpha_shuffle_z = (ln alpha - mean) / sd of ln alpha
    over the shuffles (negative: the arrangement makes the tail heavier); norm_excess =
    ln lambda_max - mean of ln lambda_max over the shuffles (0: its largest direction is noise).
    A shuffle costs as much as the matrix: of the order of M^3 + M^2 N each.

    Args:
        matrix: w_OI, any real dtype.
        rng: shuffles.
        num_shuffles: at least 2.

    Returns:
        Both with the scatter over shuffles (z: and the error of alpha) as their error. Flags:
        the mean alpha of the shuffles.

    Raises:
        ValueError: with num_shuffles < 2.
        Refused: not a finite matrix, or fewer than 5 eigenvalues > 1e-5.

    >>> rng = np.random.default_rng(0)
    >>> w = rng.standard_normal((50, 80)) + np.outer(np.ones(50), np.linspace(-1, 1, 80))
    >>> shuffle_null(WeightMatrix(w_OI=w), rng=rng).values["norm_excess"].value > 1
    True
    """
    sound(matrix)
    check_at_least("num_shuffles", num_shuffles, 2)
    w_OI, num_large = matrix.w_OI, max(matrix.w_OI.shape, default=0)
    lambda_M = gram_eigenvalues(w_OI)
    tail = _tail(lambda_M, num_large, stored=matrix.dtype or str(matrix.w_OI.dtype))
    null_SM = [
        gram_eigenvalues(rng.permuted(w_OI.ravel()).reshape(w_OI.shape))
        for _ in range(num_shuffles)
    ]
    alpha = Estimate(tail.alpha, TAIL_STDERR_FACTOR * tail.sigma, tail.n_tail, "fit")
    try:
        null_alpha = [_tail(null_M, num_large).alpha for null_M in null_SM]
    except Refused as reason:
        raise Refused(f"shuffled {reason}") from None
    excess = np.log(lambda_M[-1]) - np.log([null_M[-1] for null_M in null_SM])
    return Measured(
        {
            "alpha_shuffle_z": null_score(alpha, null_alpha),
            "norm_excess": mean_of(excess, "subsamples"),
        },
        flags={"alpha_shuffled": float(np.mean(null_alpha))},
    )


def rounding_floor(lambda_M: np.ndarray, num_large: int, precision: str = "float64") -> float:
    """Rounding error of the eigenvalues of a Gram matrix, ascending."""
    return float(lambda_M[-1]) * num_large * float(np.finfo(precision).eps)


def _tail(
    lambda_M: np.ndarray, num_large: int, precision: str = "float64", *, stored: str = "float64"
) -> PowerTail:
    # Above lambda_max ~ 1e7 the rounding error of the Gram matrix exceeds the fixed threshold.
    floor = max(MIN_EIGENVALUE, rounding_floor(lambda_M, num_large, precision))
    kept = lambda_M[lambda_M > floor]
    if len(kept) < MIN_EIGENVALUES:
        raise Refused(
            f"spectrum: {len(kept)} eigenvalues > {floor:g}, a tail needs {MIN_EIGENVALUES}"
        )
    rounding = max(stored_rounding(dtype, len(kept)) for dtype in (precision, stored))
    return fit_power_tail(kept, rounding=rounding)


def _gaussian_alphas(
    total: float, shape: Sequence[int], *, num_null: int, rng: np.random.Generator
) -> list[float]:
    """Exponents of Gaussian matrices of that (M, N) and squared Frobenius norm."""
    variance = total / (shape[0] * shape[1])
    return [
        _tail(variance * gaussian_null_eigenvalues(shape[0], shape[1], rng=rng), shape[1]).alpha
        for _ in range(num_null)
    ]


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
