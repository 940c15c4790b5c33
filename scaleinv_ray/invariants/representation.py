"""Spectra of representations: eigenvalues of the covariance of activations.

Shape suffixes: B block of sequences, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import entr

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.covariance import (
    Blocks,
    about_the_mean,
    balanced_spectra,
    rounding_floor,
    squared_traces,
    without_ones,
)
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import Moments
from scaleinv_ray.resample import jackknife

MIN_TOKENS_PER_DIM = 50
MIN_BLOCKS = {"covariance_decay": 4, "participation": 5}
MIN_RANKS = 8
"""Ranks in the fit of the exponent: 2-50 % of D hold as many from D = 16 on."""
CURVE_POINTS = 128


@invariant(
    quantities={
        "exponent": Quantity(
            law="constant",
            meaning=(
                "Exponent with which the covariance eigenvalues of activations fall over their "
                "rank; isotropic 0"
            ),
        ),
        "rankme": Quantity(
            law="constant",
            meaning="Effective rank of the activations over their width, by entropy; isotropic 1",
        ),
    },
    symmetries=("rotation", "permutation", "scale", "translation", "mean_shift"),
    curves={
        "eigenvalues": "Variance along a principal axis, over the mean; its rank over the width"
    },
    version=2,
    least={"tokens_per_dim": MIN_TOKENS_PER_DIM, "blocks": MIN_BLOCKS["covariance_decay"]},
)
def covariance_decay(moments: Moments, *, rng: np.random.Generator) -> Measured:
    """Decay and effective rank of the covariance spectrum of activations.

    The blocks of sequences are split into halves (even, odd) with centred covariances C_1, C_2.
    With C_1 = sum l_i u_i u_i^T the in-sample eigenvalues l_i spread too widely and the
    cross-validated ones u_i^T C_2 u_i too little, by the same amount to first order in D / N:
    E l_i = l + e_i and E u_i^T C_2 u_i = l - e_i, e_i = (l / N) sum_{j != i} l_j / (l - l_j).
    The balanced eigenvalue g_i = sqrt(l_i u_i^T C_2 u_i), averaged over the two directions,
    cancels it, N being the tokens of a half (equal eigenvalues keep some: at 50 tokens a dimension
    an isotropic spectrum has exponent .06, rankme .999). Then, D counting the dimensions left after
    the projection below,

    - exponent: -slope of ln g_i against ln i over the ranks 2-50 % of D (alphaReQ, Agrawal et al.
      2022);
    - rankme: exp(-sum p ln p) / D with p = sqrt(g) / sum sqrt(g), the singular values of the
      activations (RankMe, Garrido et al. 2023, eq. 1, of the centred activations, over D).

    The all-ones direction is projected out first where the record removes the mean: 'mean_shift'
    is a symmetry of those records, 'rotation' of the others (and of rotations that fix it).

    Args:
        moments: count_B, mean_BD, second_BDD of B >= 4 blocks.
        rng: unused, nothing is random.

    Returns:
        The quantities with delete-one-block jackknife errors. The exponent alone is refused where
        eigenvalues in its range vanish (dead units) or D < 16. Curve eigenvalues: g_i / mean g
        against i / D at logarithmically spaced ranks (its errors are up to twice too large where
        the spectrum is crowded: eigenvectors change places as blocks are left out). Flags:
        tokens_per_dim, dimensions. Refused as a whole are less than 50 tokens a dimension,
        fewer than 4 blocks, entries that are not finite, and activations that do not vary; a
        ValueError says where shapes disagree.

    >>> block = np.eye(32) * np.arange(1, 33.0) ** -1.5  # exact moments of a power-law spectrum
    >>> exact = Moments(
    ...     count_B=np.full(4, 400), mean_BD=np.zeros((4, 32)), second_BDD=np.stack([block] * 4)
    ... )
    >>> result = covariance_decay(exact, rng=np.random.default_rng(0))
    >>> round(result.values["exponent"].value, 9)
    1.5
    """
    sound(moments)
    blocks = _blocks(moments, min_blocks=MIN_BLOCKS["covariance_decay"])
    spectra = balanced_spectra(blocks)
    num_blocks = len(blocks.count_B)

    def estimated(statistic: Callable[[np.ndarray], float]) -> Estimate:
        return jackknife(lambda kept: statistic(spectra[tuple(kept.tolist())]), num_blocks)

    values: dict[str, Estimate | Refused] = {"rankme": estimated(_rankme)}
    try:
        values["exponent"] = estimated(_exponent)
    except Refused as reason:
        values["exponent"] = reason
    return Measured(values, curves={"eigenvalues": _curve(spectra)}, flags=_flags(moments))


@invariant(
    quantities={
        "participation_ratio": Quantity(
            law="power_law",
            meaning="Share of the dimensions over which activations vary; isotropic 1",
        ),
        "participation_dimensions": Quantity(
            law="power_law", meaning="Number of dimensions over which activations vary"
        ),
    },
    symmetries=("rotation", "permutation", "scale", "translation", "mean_shift"),
    version=2,
    least={"tokens_per_dim": MIN_TOKENS_PER_DIM, "blocks": MIN_BLOCKS["participation"]},
)
def participation(moments: Moments, *, rng: np.random.Generator) -> Measured:
    """Dimensions over which the variance of activations is spread, without finite-token bias.

    PR = (tr Sigma)^2 / tr Sigma^2 = (sum l)^2 / sum l^2 for the covariance Sigma of a token's
    activations. The plug-in value is too small by about 1 + PR / N for independent tokens, and by
    far more where the tokens of a sequence resemble each other. Numerator and denominator are
    estimated apart, each without bias whatever the distribution, from products of distinct blocks
    (`common.covariance.squared_traces`).

    - participation_dimensions: PR;
    - participation_ratio: PR / D, D counting the dimensions left after the projection below.

    The all-ones direction is projected out first where the record removes the mean: 'mean_shift'
    is a symmetry of those records, 'rotation' of the others (and of rotations that fix it).
    PR has no upper bound at D: an isotropic covariance comes out above D half of the time.

    Args:
        moments: count_B, mean_BD, second_BDD of B >= 5 blocks.
        rng: unused, nothing is random.

    Returns:
        Both with delete-one-block jackknife errors. Flags: tokens_per_dim, dimensions.

    Raises:
        Refused: less than 50 tokens a dimension, fewer than 5 blocks, entries that are not finite,
            activations that do not vary, or by less than the moments' rounding (a mean 1e7 times
            the deviation), or so noisy that an estimated square is not positive.
        ValueError: where shapes disagree.

    >>> rng = np.random.default_rng(0)
    >>> x_BTD = rng.standard_normal((8, 100, 16))  # 800 tokens; the plug-in value is 15.7
    >>> record = Moments(
    ...     count_B=np.full(8, 100),
    ...     mean_BD=x_BTD.mean(1),
    ...     second_BDD=np.einsum("bti,btj->bij", x_BTD, x_BTD) / 100,
    ... )
    >>> found = participation(record, rng=rng).values["participation_dimensions"]
    >>> abs(found.value - 16) < 3 * found.stderr < 0.3
    True
    """
    sound(moments)
    blocks = _blocks(moments, min_blocks=MIN_BLOCKS["participation"])
    dim = blocks.mean_BD.shape[1]
    if (np.trace(blocks.second_BDD, axis1=1, axis2=2) <= blocks.floor).all():
        raise Refused("covariance: vanishes, the activations do not vary")
    traces = squared_traces(blocks)
    size = max(t.square_trace for t in traces.values())
    if 0 < size <= blocks.floor**2:
        raise Refused(
            f"covariance: its Frobenius norm {math.sqrt(size):.2g} lies within the rounding of the "
            f"moments, {blocks.floor:.2g}"
        )
    if min(min(t) for t in traces.values()) <= 0:
        raise Refused(
            "covariance: an estimated square is <= 0, the blocks are too few or too small"
        )

    def dimensions(kept: np.ndarray) -> float:
        found = traces[tuple(kept.tolist())]
        return found.trace_squared / found.square_trace

    num_blocks = len(blocks.count_B)
    return Measured(
        {
            "participation_ratio": jackknife(lambda kept: dimensions(kept) / dim, num_blocks),
            "participation_dimensions": jackknife(dimensions, num_blocks),
        },
        flags=_flags(moments),
    )


def _blocks(moments: Moments, *, min_blocks: int) -> Blocks:
    _check(moments, min_blocks)
    count_B = np.asarray(moments.count_B, dtype=np.float64)
    mean_BD = np.asarray(moments.mean_BD, dtype=np.float64)
    second_BDD = np.asarray(moments.second_BDD, dtype=np.float64)
    floor = rounding_floor(second_BDD)  # what the projection cancels leaves its error too
    if moments.removes_mean:
        mean_BD, second_BDD = without_ones(mean_BD, second_BDD)
    return about_the_mean(count_B, mean_BD, second_BDD, floor=floor)


def _check(moments: Moments, min_blocks: int) -> None:
    num_blocks, dim = moments.mean_BD.shape
    if num_blocks < min_blocks or (moments.count_B < 1).any():
        filled = int((moments.count_B >= 1).sum())
        raise Refused(f"count_B: {filled} of {num_blocks} blocks have tokens, needs {min_blocks}")
    if dim < 2:
        raise Refused(f"mean_BD: D = {dim}, a spectrum needs at least 2 dimensions")
    tokens = int(moments.count_B.sum())
    if tokens < MIN_TOKENS_PER_DIM * dim:
        raise Refused(
            f"count_B: {tokens} tokens for D = {dim} are {tokens / dim:.2f} a dimension, "
            f"needs {MIN_TOKENS_PER_DIM}"
        )


def _flags(moments: Moments) -> dict[str, float | int | str]:
    dim = moments.mean_BD.shape[1]
    return {
        "tokens_per_dim": float(moments.count_B.sum() / dim),
        "dimensions": dim - moments.removes_mean,
    }


def _exponent(balanced_D: np.ndarray) -> float:
    dim = len(balanced_D)
    rank = np.arange(max(1, math.ceil(0.02 * dim)), dim // 2 + 1)
    if len(rank) < MIN_RANKS:
        raise Refused(f"exponent: {len(rank)} ranks in 2-50 % of D = {dim}, needs {MIN_RANKS}")
    fitted = balanced_D[rank - 1]
    if not (fitted > 0).all():
        raise Refused(f"exponent: {int((fitted == 0).sum())} eigenvalues in 2-50 % of D vanish")
    return -float(np.polyfit(np.log(rank), np.log(fitted), 1)[0])


def _rankme(balanced_D: np.ndarray) -> float:
    singular_D = np.sqrt(balanced_D)
    entropy = float(entr(singular_D / singular_D.sum()).sum())
    return math.exp(entropy) / len(singular_D)


def _curve(spectra: dict[tuple[int, ...], np.ndarray]) -> Curve:
    relative = np.array([g_D / g_D.mean() for g_D in spectra.values()])
    whole_D, left_out_BD = relative[0], relative[1:]
    dim, num_blocks = len(whole_D), len(left_out_BD)
    rank = np.unique(np.geomspace(1, dim, CURVE_POINTS).round().astype(int))
    variance_D = (num_blocks - 1) * left_out_BD.var(axis=0)  # jackknife
    return Curve(rank / dim, whole_D[rank - 1], np.sqrt(variance_D)[rank - 1])
