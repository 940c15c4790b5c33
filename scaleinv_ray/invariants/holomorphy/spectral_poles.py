"""Isolated poles and edges of the spectra of matrices, with resamples of these.

Shape suffixes: M eigenvalues, N long side of a matrix, C block of it, B resamples, P poles,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate, exact, unknown
from scaleinv_ray.invariants.common.covariance import (
    about_the_mean,
    rounding_floor,
    without_ones,
    without_zeros,
)
from scaleinv_ray.invariants.holomorphy.rational import (
    BranchPoints,
    Isolated,
    branch_points,
    isolated_poles,
)
from scaleinv_ray.records import Moments
from scaleinv_ray.resample import jackknife

MIN_EIGENVALUES = 16
MIN_TOKENS_PER_DIM = 50
MIN_BLOCKS = 8
MIN_PRESENCE = 0.9


class SpectralPoles(NamedTuple):
    """Isolated poles and edges of a spectrum over its median, the edges also of its resamples."""

    isolated: Isolated
    edges: BranchPoints
    edges_B: list[BranchPoints]


def turned_resamples(
    lambda_M: np.ndarray, num_large: int, num_blocks: int, *, rng: np.random.Generator
) -> list[np.ndarray]:
    """Spectra of w w^T with a block of the long side left out, in a randomly turned basis.

    The long side of w = U sqrt(Lambda) V^T is turned by a Haar-random rotation, so that the draw
    depends on the singular values alone; a block of N / B of its N coordinates then leaves
    sqrt(Lambda) (1 - V_b^T V_b) sqrt(Lambda) N / (N - N_b). For Gaussian w that is deleting rows.

    Args:
        lambda_M: eigenvalues of w w^T.
        num_large: N >= M.
        num_blocks: B.
        rng: of the rotation.

    Returns:
        B spectra, ascending.
    """
    basis_NM, upper_MM = np.linalg.qr(rng.standard_normal((num_large, len(lambda_M))))
    basis_NM *= np.sign(np.diag(upper_MM))
    root_M = np.sqrt(lambda_M)
    spectra = []
    for block_CM in np.array_split(basis_NM, num_blocks):
        kept = num_large - len(block_CM)
        gram_MM = root_M[:, None] * (np.eye(len(root_M)) - block_CM.T @ block_CM) * root_M
        spectra.append(np.maximum(np.linalg.eigvalsh(gram_MM), 0.0) * num_large / kept)
    return spectra


def weight_spectra(
    w_OI: np.ndarray, num_blocks: int, *, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Eigenvalues of w w^T without zero rows and columns, and `turned_resamples` of them.

    Args:
        w_OI: a matrix; its smaller side gives the eigenvalues.
        num_blocks: of the resamples.
        rng: of their rotation.

    Returns:
        lambda_M, its resamples, and how many rows and columns of zeros were dropped.

    Raises:
        Refused: no matrix of finite entries, or its longer side is below the blocks.
    """
    w_OI = np.asarray(w_OI, dtype=np.float64)
    if w_OI.ndim != 2 or not np.isfinite(w_OI).all():
        raise Refused(f"w_OI: got shape {w_OI.shape}, needs a matrix of finite entries")
    w_OI, dropped = without_zeros(w_OI)
    w_MN = w_OI if w_OI.shape[0] <= w_OI.shape[1] else w_OI.T
    if w_MN.shape[1] < num_blocks:
        raise Refused(f"w_OI: got shape {w_OI.shape}, {num_blocks} resamples need a longer side")
    lambda_M = np.maximum(np.linalg.eigvalsh(w_MN @ w_MN.T), 0.0)
    return lambda_M, turned_resamples(lambda_M, w_MN.shape[1], num_blocks, rng=rng), dropped


def covariance_spectra(moments: Moments) -> tuple[np.ndarray, list[np.ndarray]]:
    """Eigenvalues of the covariance of activations, and with each block of sequences left out.

    Args:
        moments: at least 8 blocks and 50 tokens a dimension; where a LayerNorm follows, the
            all-ones direction is projected out.

    Returns:
        lambda_D of all blocks, and one spectrum for every block left out.

    Raises:
        Refused: too few blocks or tokens, not finite, or half of the eigenvalues within rounding.
    """
    count_B = np.asarray(moments.count_B, dtype=np.float64)
    mean_BD = np.asarray(moments.mean_BD, dtype=np.float64)
    second_BDD = np.asarray(moments.second_BDD, dtype=np.float64)
    if not (np.isfinite(mean_BD).all() and np.isfinite(second_BDD).all()):
        raise Refused("moments: have NaN or infinite entries")
    num_blocks, width = mean_BD.shape
    if num_blocks < MIN_BLOCKS:
        raise Refused(f"blocks: got {num_blocks}, allowed >= {MIN_BLOCKS}")
    if count_B.sum() < MIN_TOKENS_PER_DIM * width:
        got = count_B.sum() / width
        raise Refused(f"tokens per dimension: got {got:.3g}, allowed >= {MIN_TOKENS_PER_DIM}")
    floor = rounding_floor(second_BDD)  # what the projection cancels leaves its error too
    if moments.removes_mean:
        mean_BD, second_BDD = without_ones(mean_BD, second_BDD)
    blocks = about_the_mean(count_B, mean_BD, second_BDD, floor=floor)

    def spectrum(kept: np.ndarray) -> np.ndarray:
        weight_B = count_B[kept] / count_B[kept].sum()
        mean_D = weight_B @ blocks.mean_BD[kept]
        covariance_DD = np.tensordot(weight_B, blocks.second_BDD[kept], axes=1)
        return np.maximum(np.linalg.eigvalsh(covariance_DD - np.outer(mean_D, mean_D)), 0.0)

    everything = np.arange(num_blocks)
    whole_D = spectrum(everything)
    median = float(np.median(whole_D))
    if median <= floor:
        raise Refused(
            f"eigenvalues: got a median of {median:.2g}, half of them vanish within the rounding "
            f"of the moments, {floor:.2g}"
        )
    return whole_D, [spectrum(np.delete(everything, b)) for b in everything]


def spectral_poles(lambda_M: np.ndarray, lambda_BM: Sequence[np.ndarray]) -> SpectralPoles:
    """Isolated poles of a spectrum's Stieltjes transform, and the edges of what is left.

    Args:
        lambda_M: eigenvalues, in any unit.
        lambda_BM: those of its delete-one-block resamples.

    Returns:
        Poles and edges in units of the median of lambda_M.

    Raises:
        Refused: fewer than 16 eigenvalues, or half of them zero.
    """
    if len(lambda_M) < MIN_EIGENVALUES:
        raise Refused(f"eigenvalues: got {len(lambda_M)}, allowed >= {MIN_EIGENVALUES}")
    median = float(np.median(lambda_M))
    if not median > np.finfo(np.float64).eps * len(lambda_M) * float(lambda_M.max()):
        raise Refused(f"eigenvalues: got a median of {median:.2g}, half of them vanish")
    lambda_M = lambda_M / median
    resampled = [other_M / median for other_M in lambda_BM]
    isolated = isolated_poles(lambda_M, resampled)
    return SpectralPoles(
        isolated,
        branch_points(_without(lambda_M, isolated.at_P)),
        [
            branch_points(_without(other_M, at_P))
            for other_M, at_P in zip(resampled, isolated.at_BP, strict=True)
        ],
    )


def _without(lambda_M: np.ndarray, at_P: np.ndarray) -> np.ndarray:
    """The spectrum without the eigenvalues nearest to the poles."""
    at_P = at_P[np.isfinite(at_P)]
    if not len(at_P):
        return lambda_M
    return np.delete(lambda_M, abs(at_P[:, None] - lambda_M).argmin(axis=1))


def pole_values(found: SpectralPoles) -> dict[str, Estimate | Refused]:
    """What is said of isolated poles and edges.

    Args:
        found: poles and edges with those of the resamples.

    Returns:
        isolated_poles (count), leading_over_edge (largest position over the upper edge),
        leading_weight (its -M residue), edge_upper and edge_lower, residue_sum; a refusal where
        there is no such pole or edge in the whole or in 90 % of the resamples.
    """
    isolated, edges = found.isolated, found.edges
    upper_B = [e.upper for e in found.edges_B]
    values: dict[str, Estimate | Refused] = {
        "isolated_poles": exact(len(isolated.at_P)),
        "edge_upper": _resampled(edges.upper, upper_B, "upper edge"),
        "edge_lower": _resampled(edges.lower, [e.lower for e in found.edges_B], "lower edge"),
        "residue_sum": unknown(isolated.residue_sum, n=len(found.edges_B)),
    }
    if not len(isolated.at_P):
        nothing = Refused("no isolated pole")
        return values | {"leading_over_edge": nothing, "leading_weight": nothing}
    leading_B = [
        at / edge if edge is not None and np.isfinite(at) else None
        for at, edge in zip(isolated.at_BP[:, 0], upper_B, strict=True)
    ]
    whole = isolated.at_P[0] / edges.upper if edges.upper is not None else None
    return values | {
        "leading_over_edge": _resampled(whole, leading_B, "upper edge"),
        "leading_weight": unknown(float(isolated.weight_P[0]), n=len(leading_B)),
    }


def _resampled(
    whole: float | None, left_out: Sequence[float | None], what: str
) -> Estimate | Refused:
    """A value with its jackknife error over the resamples that have one."""
    had = [value for value in left_out if value is not None]
    if whole is None or len(had) < MIN_PRESENCE * len(left_out):
        return Refused(f"no {what}, or in {len(had)} of {len(left_out)} resamples only")
    everything = len(had)

    def statistic(kept: np.ndarray) -> float:
        if len(kept) == everything:
            return whole
        return had[(set(range(everything)) - set(kept.tolist())).pop()]

    return jackknife(statistic, everything)
