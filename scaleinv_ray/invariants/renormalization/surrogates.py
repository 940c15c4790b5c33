"""Surrogate data: what a statistic would be if only part of the structure were there.

Shape suffixes: T rows, D width, F factors; N units, B blocks of sequences, R replicates.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import ortho_group

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.block_replicates import alive_in_replicates, block_covariances
from scaleinv_ray.invariants.renormalization.coarse_graining import correlation

_LARGEST = 1e36
"""Standard deviation of a unit whose samples float32 holds."""


def permuted_columns(x_TD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows of every column permuted independently: margins kept, everything joint lost.

    Args:
        x_TD: rows.
        rng: of the permutations.

    Returns:
        An array of the same shape and dtype.

    >>> x_TD = np.repeat(np.arange(1000.0)[:, None], 2, axis=1)
    >>> y_TD = permuted_columns(x_TD, np.random.default_rng(0))
    >>> bool((np.sort(y_TD, axis=0) == x_TD).all()), bool((y_TD[:, 0] == y_TD[:, 1]).all())
    (True, False)
    """
    return rng.permuted(np.ascontiguousarray(x_TD.T), axis=1).T


def factor_model(covariance_DD: np.ndarray, num_factors: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance ~ L L^T + diag(psi) with k factors and the same diagonal.

    On the correlation matrix, with eigenvalues l_1 >= l_2 >= ..: L = V_k (l_k - s^2)^(1/2), s^2
    the mean of the other eigenvalues (probabilistic principal components: Tipping & Bishop, J. R.
    Stat. Soc. B 61:611, 1999, eq. 7, the maximum of the likelihood for equal noise), psi_i = 1 -
    |L_i|^2 >= 0, so that every unit keeps its variance; then back to the scale of the units.
    Closed, and good for singular covariances too.

    Args:
        covariance_DD: symmetric, positive diagonal.
        num_factors: k, 1 .. D - 1.

    Returns:
        Loadings [D, k] and noise variances [D].

    Raises:
        ValueError: for another number of factors.

    >>> loading, noise = factor_model(0.5 + 0.5 * np.eye(8), 1)
    >>> bool(np.allclose(loading @ loading.T + np.diag(noise), 0.5 + 0.5 * np.eye(8)))
    True
    """
    width = len(covariance_DD)
    if not 1 <= num_factors < width:
        raise ValueError(f"num_factors: got {num_factors}, allowed 1..{width - 1}")
    scale_D = np.sqrt(np.diag(covariance_DD))
    value_D, vector_DD = np.linalg.eigh(covariance_DD / np.outer(scale_D, scale_D))
    noise = value_D[:-num_factors].mean()
    loading_DF = vector_DD[:, -num_factors:] * np.sqrt(
        np.maximum(value_D[-num_factors:] - noise, 0)
    )
    rest_D = np.maximum(1 - (loading_DF**2).sum(axis=1), 0)  # rounding, where units are copies
    return loading_DF * scale_D[:, None], rest_D * scale_D**2


def latent_factors(
    covariance_DD: np.ndarray, *, num_rows: int, num_factors: int, rng: np.random.Generator
) -> np.ndarray:
    """Independent Gaussian rows x = L z + e of the k-factor model of a covariance.

    Args:
        covariance_DD: covariance to be approximated (an exact copy would have its exponents).
        num_rows: rows T.
        num_factors: k.
        rng: of the normal numbers.

    Returns:
        Rows [T, D], float32, of mean zero.

    Raises:
        Refused: for units that float32 cannot hold.
    """
    loading_DF, noise_D = factor_model(covariance_DD, num_factors)
    largest = float(np.sqrt(np.diagonal(covariance_DD).max()))
    if not largest < _LARGEST:
        raise Refused(f"units: got a standard deviation of {largest:.1e}, allowed < {_LARGEST:.0e}")
    x_TD = rng.standard_normal((num_rows, len(noise_D)), dtype=np.float32)
    x_TD *= np.sqrt(noise_D).astype(np.float32)
    score_TF = rng.standard_normal((num_rows, num_factors), dtype=np.float32)
    return x_TD + score_TF @ loading_DF.T.astype(np.float32)


def waves_on_a_ring(num_units: int, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal waves on a ring of N sites, from the longest to the shortest.

    Columns: 1; then cos and sin of 2 pi k n / N + phi_k for k = 1, 2, ..; (-1)^n for even N. Any
    field whose spectrum falls in this order is translation invariant up to the difference within
    the pairs (as the sample covariance of such a field is), with random phases phi_k.

    Args:
        num_units: N.
        rng: of the phases.

    Returns:
        Basis [N, N], a column a wave.

    >>> basis = waves_on_a_ring(7, np.random.default_rng(0))
    >>> bool(np.allclose(basis.T @ basis, np.eye(7)))
    True
    """
    site_N, pairs = np.arange(num_units), (num_units - 1) // 2
    turn = 2 * np.pi * site_N[:, None] * np.arange(1, pairs + 1) / num_units
    turn = turn + rng.uniform(0, 2 * np.pi, size=pairs)
    both = np.stack([np.cos(turn), np.sin(turn)], axis=2).reshape(num_units, -1)
    columns = [np.ones((num_units, 1)), np.sqrt(2) * both]
    if num_units % 2 == 0:
        columns.append((-1.0) ** site_N[:, None])
    return np.concatenate(columns, axis=1) / np.sqrt(num_units)


def surrogate_covariances(
    x_TN: np.ndarray,
    rows_B: list[np.ndarray],
    covariance_RNN: np.ndarray,
    *,
    num_factors: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Covariances of surrogates of the same size: what a statistic of covariances is read against.

    rotated: the units in one randomly rotated basis; permuted: of `permuted_columns`; latent: of
    `latent_factors` with the covariance of all blocks; ring: the eigenvalues of the correlation,
    in order, on `waves_on_a_ring`. Rows of permuted and latent surrogates fall into blocks as
    large as those of the data, and replicates leave one out. Units so sparse that the permutation
    brings all they have into one block are permuted within the blocks instead, and vary in every
    replicate as in the data (all units: what the means of blocks share would stay in the null).

    Args:
        x_TN: units by row, each of which varies.
        rows_B: rows of every block.
        covariance_RNN: their covariance in every replicate.
        num_factors: of the latent-factor model.
        rng: one rotation, permutation, .. serves all replicates.

    Returns:
        Name -> [R, N, N], symmetric to the last bit.
    """
    num_units = x_TN.shape[1]
    rotation_NN = ortho_group.rvs(num_units, random_state=rng)
    wave_NN = waves_on_a_ring(num_units, rng)
    value_RN = np.linalg.eigvalsh(correlation(covariance_RNN))[:, ::-1]
    own_TN = x_TN[np.concatenate(rows_B)]
    blocks = np.split(np.arange(len(own_TN)), np.cumsum([len(rows) for rows in rows_B])[:-1])
    permuted_TN = permuted_columns(own_TN, rng)
    sparse_N = ~alive_in_replicates(permuted_TN, blocks)
    for rows in blocks:
        permuted_TN[np.ix_(rows, sparse_N)] = permuted_columns(own_TN[np.ix_(rows, sparse_N)], rng)
    latent_TN = latent_factors(
        covariance_RNN[0], num_rows=len(permuted_TN), num_factors=num_factors, rng=rng
    )
    ring_RNN = (wave_NN * value_RN[:, None, :]) @ wave_NN.T
    rotated_RNN = rotation_NN.T @ covariance_RNN @ rotation_NN
    return {
        # halves: pairing needs symmetry to the last bit where there are ties
        "rotated": (rotated_RNN + rotated_RNN.transpose(0, 2, 1)) / 2,
        "permuted": block_covariances(permuted_TN, blocks),
        "latent": block_covariances(latent_TN, blocks),
        "ring": (ring_RNN + ring_RNN.transpose(0, 2, 1)) / 2,
    }
