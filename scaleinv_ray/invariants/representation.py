"""Spectra of representations: eigenvalues of the covariance of activations.

Shape suffixes: B block of sequences, D width; H the two halves of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy.special import entr

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.records import Moments
from scaleinv_ray.resample import jackknife

MIN_TOKENS_PER_DIM = 50
MIN_BLOCKS = 4
MIN_RANKS = 8
"""Ranks in the fit of the exponent: 2-50 % of D hold as many from D = 16 on."""
CURVE_POINTS = 128


class _Blocks(NamedTuple):
    """Tokens, mean and centred covariance of every block; `floor` bounds the rounding error."""

    count_B: np.ndarray
    mean_BD: np.ndarray
    covariance_BDD: np.ndarray
    floor: float


class _Half(NamedTuple):
    """Covariance of half of the blocks with its eigenvalues, descending, and eigenvectors."""

    covariance_DD: np.ndarray
    eigenvalue_D: np.ndarray
    vector_DD: np.ndarray


class _Spectrum(NamedTuple):
    """Balanced eigenvalues, and the cross-validated participation ratio / D."""

    balanced_D: np.ndarray
    participation_ratio: float


def _without_mean(mean_BD: np.ndarray, second_BDD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the D - 1 coordinates orthogonal to the all-ones direction."""
    # The Householder reflection that maps (1, .., 1) / sqrt(D) onto the first axis costs O(D^2) a
    # block; the first coordinate is then dropped.
    dim = mean_BD.shape[1]
    normal_D = np.full(dim, 1.0 / math.sqrt(dim))
    normal_D[0] -= 1.0
    normal_D *= math.sqrt(2.0) / np.linalg.norm(normal_D)  # reflection: 1 - n n^T
    mean_BD = mean_BD - (mean_BD @ normal_D)[:, None] * normal_D
    half_BDD = second_BDD - (second_BDD @ normal_D)[:, :, None] * normal_D
    full_BDD = half_BDD - normal_D[:, None] * (normal_D @ half_BDD)[:, None, :]
    return mean_BD[:, 1:], full_BDD[:, 1:, 1:]


def _blocks(moments: Moments) -> _Blocks:
    mean_BD = np.asarray(moments.mean_BD, dtype=np.float64)
    second_BDD = np.asarray(moments.second_BDD, dtype=np.float64)
    dim = mean_BD.shape[1]
    power = float(np.trace(second_BDD, axis1=1, axis2=2).max())
    if moments.removes_mean:
        mean_BD, second_BDD = _without_mean(mean_BD, second_BDD)
    covariance_BDD = second_BDD - mean_BD[:, :, None] * mean_BD[:, None, :]
    floor = dim * np.finfo(np.float64).eps * power
    return _Blocks(np.asarray(moments.count_B, np.float64), mean_BD, covariance_BDD, floor)


def _half(blocks: _Blocks, kept: Iterable[int]) -> _Half:
    index = list(kept)
    weight_B = blocks.count_B[index] / blocks.count_B[index].sum()
    mean_BD = blocks.mean_BD[index]
    deviation_BD = np.sqrt(weight_B)[:, None] * (mean_BD - weight_B @ mean_BD)
    covariance_DD = np.tensordot(weight_B, blocks.covariance_BDD[index], axes=1)
    covariance_DD += deviation_BD.T @ deviation_BD
    eigenvalue_D, vector_DD = np.linalg.eigh(covariance_DD)
    return _Half(covariance_DD, eigenvalue_D[::-1], vector_DD[:, ::-1])


def _crossed(halves: tuple[_Half, _Half], floor: float) -> _Spectrum:
    """Balanced spectrum of two halves; eigenvalues in the rounding error count as 0."""
    balanced_D = np.zeros_like(halves[0].eigenvalue_D)
    for own, other in (halves, halves[::-1]):
        vector_DD = own.vector_DD
        held_out_D = np.einsum("ij,ij->j", vector_DD, other.covariance_DD @ vector_DD)
        real = (own.eigenvalue_D > floor) & (held_out_D > floor)
        balanced_D += np.sqrt(np.where(real, own.eigenvalue_D * held_out_D, 0.0)) / 2.0
    traces = [float(np.trace(half.covariance_DD)) for half in halves]
    overlap = float(np.vdot(halves[0].covariance_DD, halves[1].covariance_DD))
    if balanced_D[0] == 0 or overlap <= 0:
        raise Refused("covariance: vanishes, the activations do not vary")
    return _Spectrum(balanced_D, traces[0] * traces[1] / (len(balanced_D) * overlap))


def _spectra(blocks: _Blocks) -> dict[tuple[int, ...], _Spectrum]:
    """Spectrum of all blocks and with each block left out: B + 2 eigendecompositions."""
    num_blocks = len(blocks.count_B)
    everything = tuple(range(num_blocks))
    even, odd = everything[::2], everything[1::2]
    whole = _half(blocks, even), _half(blocks, odd)
    spectra = {everything: _crossed(whole, blocks.floor)}
    for left_out in everything:
        members, partner = (even, whole[1]) if left_out in even else (odd, whole[0])
        reduced = _half(blocks, (b for b in members if b != left_out))
        kept = tuple(b for b in everything if b != left_out)
        spectra[kept] = _crossed((reduced, partner), blocks.floor)
    return spectra


def _exponent(spectrum: _Spectrum) -> float:
    dim = len(spectrum.balanced_D)
    rank = np.arange(max(1, math.ceil(0.02 * dim)), dim // 2 + 1)
    if len(rank) < MIN_RANKS:
        raise Refused(f"exponent: {len(rank)} ranks in 2-50 % of D = {dim}, needs {MIN_RANKS}")
    fitted = spectrum.balanced_D[rank - 1]
    if not (fitted > 0).all():
        raise Refused(f"exponent: {int((fitted == 0).sum())} eigenvalues in 2-50 % of D vanish")
    return -float(np.polyfit(np.log(rank), np.log(fitted), 1)[0])


def _rankme(spectrum: _Spectrum) -> float:
    singular_D = np.sqrt(spectrum.balanced_D)
    entropy = float(entr(singular_D / singular_D.sum()).sum())
    return math.exp(entropy) / len(singular_D)


def _curve(spectra: dict[tuple[int, ...], _Spectrum]) -> Curve:
    relative = np.array([s.balanced_D / s.balanced_D.mean() for s in spectra.values()])
    whole_D, left_out_BD = relative[0], relative[1:]
    dim, num_blocks = len(whole_D), len(left_out_BD)
    rank = np.unique(np.geomspace(1, dim, CURVE_POINTS).round().astype(int))
    variance_D = (num_blocks - 1) * left_out_BD.var(axis=0)  # jackknife
    return Curve(rank / dim, whole_D[rank - 1], np.sqrt(variance_D)[rank - 1])


def _check(moments: Moments) -> None:
    num_blocks, dim = moments.mean_BD.shape
    if moments.second_BDD.shape != (num_blocks, dim, dim) or len(moments.count_B) != num_blocks:
        raise ValueError(
            f"moments: got count_B {moments.count_B.shape}, second_BDD {moments.second_BDD.shape}, "
            f"allowed {(num_blocks,)}, {(num_blocks, dim, dim)} beside mean_BD {(num_blocks, dim)}"
        )
    if num_blocks < MIN_BLOCKS or (moments.count_B < 1).any():
        filled = int((moments.count_B >= 1).sum())
        raise Refused(f"count_B: {filled} of {num_blocks} blocks have tokens, needs {MIN_BLOCKS}")
    if dim < 2:
        raise Refused(f"mean_BD: D = {dim}, a spectrum needs at least 2 dimensions")
    tokens = int(moments.count_B.sum())
    if tokens < MIN_TOKENS_PER_DIM * dim:
        raise Refused(
            f"count_B: {tokens} tokens for D = {dim} are {tokens / dim:.2f} a dimension, "
            f"needs {MIN_TOKENS_PER_DIM}"
        )
    if not (np.isfinite(moments.mean_BD).all() and np.isfinite(moments.second_BDD).all()):
        raise Refused("moments: have NaN or infinite entries")


@invariant(
    quantities={
        "exponent": Quantity(law="constant"),
        "rankme": Quantity(law="constant"),
        "participation_ratio": Quantity(law="power_law"),
    },
    symmetries=("rotation", "permutation", "scale", "translation", "mean_shift"),
    curves=("eigenvalues",),
)
def covariance_decay(moments: Moments, *, rng: np.random.Generator) -> Measured:
    """Decay and effective dimension of the covariance spectrum of activations.

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
      activations (RankMe, Garrido et al. 2023, eq. 1, of the centred activations, over D);
    - participation_ratio: tr C_1 tr C_2 / (D tr C_1 C_2), numerator and denominator unbiased.

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
    _check(moments)
    spectra = _spectra(_blocks(moments))
    num_blocks = len(moments.count_B)

    def estimated(statistic: Callable[[_Spectrum], float]) -> Estimate:
        return jackknife(lambda kept: statistic(spectra[tuple(kept.tolist())]), num_blocks)

    values: dict[str, Estimate | Refused] = {
        "rankme": estimated(_rankme),
        "participation_ratio": estimated(lambda spectrum: spectrum.participation_ratio),
    }
    try:
        values["exponent"] = estimated(_exponent)
    except Refused as reason:
        values["exponent"] = reason
    flags = {
        "tokens_per_dim": float(moments.count_B.sum() / moments.mean_BD.shape[1]),
        "dimensions": moments.mean_BD.shape[1] - moments.removes_mean,
    }
    return Measured(values, curves={"eigenvalues": _curve(spectra)}, flags=flags)
