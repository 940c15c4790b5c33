"""Surrogates keep what they say and nothing else."""

import numpy as np
import pytest

from scaleinv_ray.invariants.common.block_replicates import alive_in_replicates, block_covariances
from scaleinv_ray.invariants.renormalization.surrogates import (
    factor_model,
    latent_factors,
    permuted_columns,
    surrogate_covariances,
    waves_on_a_ring,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def factors(seed: int, *, width: int, count: int) -> np.ndarray:
    """Covariance of `count` factors in equal noise, as correlation: exactly a factor model."""
    loading = rng(seed).standard_normal((width, count))
    loading *= np.sqrt(0.6) / np.linalg.norm(loading, axis=1, keepdims=True)
    return loading @ loading.T + 0.4 * np.eye(width)


def test_permuted_columns_keep_margins_and_lose_correlation() -> None:
    x_TD = rng(1).standard_normal((4000, 1)) + 0.1 * rng(2).standard_normal((4000, 5))
    before = x_TD.copy()
    y_TD = permuted_columns(x_TD, rng())
    np.testing.assert_array_equal(x_TD, before)
    np.testing.assert_array_equal(np.sort(y_TD, axis=0), np.sort(x_TD, axis=0))
    off = np.corrcoef(y_TD.T)[np.triu_indices(5, 1)]
    assert np.abs(off).max() < 4 / np.sqrt(4000)


@pytest.mark.parametrize("count", [1, 3])
def test_factor_model_of_factors_is_exact(count: int) -> None:
    scale = rng(3).uniform(0.2, 5, 20)
    covariance = factors(4, width=20, count=count) * np.outer(scale, scale)
    loading, noise = factor_model(covariance, count)
    np.testing.assert_allclose(loading @ loading.T + np.diag(noise), covariance, rtol=1e-9)


def test_factor_model_keeps_variances_of_any_covariance() -> None:
    x = rng(5).standard_normal((50, 20)) * np.arange(1, 21)
    for covariance in (np.cov(x.T), np.ones((20, 20))):  # the second one singular
        loading, noise = factor_model(covariance, 4)
        np.testing.assert_allclose((loading**2).sum(axis=1) + noise, np.diag(covariance))
        assert (noise >= 0).all()


@pytest.mark.parametrize("count", [0, 20])
def test_factor_model_refuses_other_numbers(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_factors: got {count}, allowed 1..19"):
        factor_model(np.eye(20), count)


def test_latent_rows_have_the_model_s_covariance() -> None:
    covariance = factors(6, width=12, count=2)
    x_TD = latent_factors(covariance, num_rows=40_000, num_factors=2, rng=rng())
    assert x_TD.shape == (40_000, 12)
    np.testing.assert_allclose(np.cov(x_TD.T), covariance, atol=5 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_waves_are_a_basis_and_their_fields_translation_invariant(size: int) -> None:
    basis = waves_on_a_ring(size, rng(size))
    np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-12)
    spectrum = 1.0 / (1 + (np.arange(size) + 1) // 2)  # equal within the pairs
    field = (basis * spectrum) @ basis.T
    np.testing.assert_allclose(np.roll(field, (1, 1), (0, 1)), field, atol=1e-12)
    assert (np.diff(np.abs(field[0])[: size // 2]) <= 1e-9).all() or size < 8


def test_surrogate_covariances_keep_what_they_should() -> None:
    x_TN = rng(7).standard_normal((2000, 40)) @ rng(8).standard_normal((40, 40))
    rows_B = np.array_split(np.arange(2000), 4)
    covariance_RNN = block_covariances(x_TN, rows_B)
    found = surrogate_covariances(x_TN, rows_B, covariance_RNN, num_factors=3, rng=rng())
    assert set(found) == {"rotated", "permuted", "latent", "ring"}
    for name, c_RNN in found.items():
        assert c_RNN.shape == covariance_RNN.shape, name
        np.testing.assert_array_equal(c_RNN, c_RNN.transpose(0, 2, 1))
    spectrum = np.linalg.eigvalsh(covariance_RNN)
    np.testing.assert_allclose(np.linalg.eigvalsh(found["rotated"]), spectrum, atol=1e-8)
    scale = np.sqrt(np.diagonal(covariance_RNN, axis1=1, axis2=2))
    correlation = covariance_RNN / (scale[:, :, None] * scale[:, None, :])
    np.testing.assert_allclose(
        np.linalg.eigvalsh(found["ring"]), np.linalg.eigvalsh(correlation), atol=1e-10
    )
    variances = np.diagonal(found["permuted"], axis1=1, axis2=2)[0]
    np.testing.assert_allclose(variances, np.diagonal(covariance_RNN[0]), rtol=1e-9)
    latent = np.diagonal(found["latent"], axis1=1, axis2=2)[0]
    np.testing.assert_allclose(latent, np.diagonal(covariance_RNN[0]), rtol=0.2)


def test_permuted_units_vary_in_every_replicate_however_sparse() -> None:
    x_TN = rng(9).standard_normal((80, 12))
    x_TN[:, :6] = 0
    x_TN[[3, 25], :6] = 1.0  # two blocks of four: by chance a quarter of them would meet in one
    rows_B = [np.arange(start, 80, 4) for start in range(4)]  # rows 3 and 25: blocks 3 and 1
    covariance_RNN = block_covariances(x_TN, rows_B)
    plain = 0
    for seed in range(8):
        permuted_TN = permuted_columns(x_TN[np.concatenate(rows_B)], rng(seed))
        plain += (~alive_in_replicates(permuted_TN, np.split(np.arange(80), 4))).sum()
        found = surrogate_covariances(x_TN, rows_B, covariance_RNN, num_factors=3, rng=rng(seed))
        variance_RN = np.diagonal(found["permuted"], axis1=1, axis2=2)
        assert (variance_RN > 0).all()
        np.testing.assert_allclose(variance_RN[0], np.diagonal(covariance_RNN[0]))
    assert plain > 0


def test_permuted_null_keeps_nothing_of_what_blocks_share() -> None:
    sequence = rng(10).standard_normal(16).repeat(100)  # one number a sequence, in all units
    x_TN = rng(11).standard_normal((1600, 32)) + sequence[:, None]
    rows_B = np.array_split(np.arange(1600), 8)
    found = surrogate_covariances(
        x_TN, rows_B, block_covariances(x_TN, rows_B), num_factors=3, rng=rng()
    )["permuted"][0]
    scale_N = np.sqrt(np.diagonal(found))
    off = (found / np.outer(scale_N, scale_N))[np.triu_indices(32, 1)]
    assert abs(off.mean()) < 4 / np.sqrt(1600 * len(off))  # within blocks: about a quarter
