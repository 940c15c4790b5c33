"""Covariances with a known spectrum: power laws, isotropic Gaussians, correlated tokens."""

import math

import numpy as np
import pytest
from scipy.linalg import helmert

from scaleinv_ray.invariants.representation import covariance_decay
from scaleinv_ray.records import Moments

DIM = 64


def moments_of(x_TD: np.ndarray, *, num_blocks: int = 8, removes_mean: bool = False) -> Moments:
    parts = np.array_split(x_TD, num_blocks)
    return Moments(
        count_B=np.array([len(part) for part in parts]),
        mean_BD=np.array([part.mean(axis=0) for part in parts]),
        second_BDD=np.array([part.T @ part / len(part) for part in parts]),
        removes_mean=removes_mean,
    )


def spectrum(exponent: float, dim: int = DIM) -> np.ndarray:
    return np.arange(1, dim + 1.0) ** -exponent


def tokens(
    exponent: float, seed: int, *, dim: int = DIM, shared: float = 0.0, length: int = 50
) -> np.ndarray:
    """50 tokens a dimension in sequences; `shared` is the variance that a sequence's tokens share.

    The covariance is the power law in a random basis whatever is shared.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    own = rng.standard_normal((50 * dim // length, length, dim))
    common = rng.standard_normal((50 * dim // length, 1, dim))
    mixed = math.sqrt(1 - shared) * own + math.sqrt(shared) * common
    return (mixed * np.sqrt(spectrum(exponent, dim))).reshape(-1, dim) @ basis.T


def values(moments: Moments) -> dict[str, float]:
    measured = covariance_decay(moments, rng=np.random.default_rng(0))
    return {name: estimate.value for name, estimate in measured.values.items()}


def exact_values(eigenvalue_D: np.ndarray) -> dict[str, float]:
    p = np.sqrt(eigenvalue_D) / np.sqrt(eigenvalue_D).sum()
    return {
        "rankme": math.exp(-(p * np.log(p)).sum()) / len(p),
        "participation_ratio": eigenvalue_D.sum() ** 2 / (len(p) * (eigenvalue_D**2).sum()),
    }


def in_sample_exponent(covariance_DD: np.ndarray) -> float:
    eigenvalue_D = np.linalg.eigvalsh(covariance_DD)[::-1]
    rank = np.arange(2, DIM // 2 + 1)  # 2 % of 64 is 1.28
    return -np.polyfit(np.log(rank), np.log(eigenvalue_D[rank - 1]), 1)[0]


def held_out_exponent(x_TD: np.ndarray) -> float:
    """The split-half estimate u_i^T C_2 u_i by itself."""
    half = np.array_split(x_TD, 2)
    covariances = [np.cov(part.T) for part in half]
    _, vector_DD = np.linalg.eigh(covariances[0])
    held_out = np.einsum("ij,ij->j", vector_DD, covariances[1] @ vector_DD)[::-1]
    rank = np.arange(2, DIM // 2 + 1)
    return -np.polyfit(np.log(rank), np.log(held_out[rank - 1]), 1)[0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_exact_moments_give_exact_values(exponent):
    block = np.diag(spectrum(exponent))
    record = Moments(
        count_B=np.full(5, 1000), mean_BD=np.zeros((5, DIM)), second_BDD=np.stack([block] * 5)
    )
    measured = covariance_decay(record, rng=np.random.default_rng(0))
    expected = exact_values(spectrum(exponent)) | {"exponent": exponent}
    assert {k: e.value for k, e in measured.values.items()} == pytest.approx(expected, rel=1e-10)
    for estimate in measured.values.values():
        assert estimate.stderr < 1e-12
    curve = measured.curves["eigenvalues"]
    law = spectrum(exponent) / spectrum(exponent).mean()
    assert curve.y == pytest.approx(law[np.rint(curve.x * DIM).astype(int) - 1], rel=1e-10)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0])
def test_power_law_is_recovered_from_tokens(exponent):
    found = [values(moments_of(tokens(exponent, seed))) for seed in range(4)]
    # of one record: exponent sd .007, rankme .002, participation ratio 1-4 %
    expected = exact_values(spectrum(exponent))
    assert np.mean([f["exponent"] for f in found]) == pytest.approx(exponent, abs=0.02)
    assert np.mean([f["rankme"] for f in found]) == pytest.approx(expected["rankme"], abs=0.006)
    assert np.mean([f["participation_ratio"] for f in found]) == pytest.approx(
        expected["participation_ratio"], rel=0.05
    )


@pytest.mark.parametrize("dim", [32, 128])
def test_isotropic_gaussian_uses_every_dimension(dim):
    found = values(moments_of(tokens(0.0, 1, dim=dim)))
    # naive: D / (D + N) off, .98 at 50 tokens a dimension
    assert found["participation_ratio"] == pytest.approx(1, abs=0.004)
    assert found["rankme"] == pytest.approx(1, abs=0.003)


def test_rank_deficient_activations():
    x_TD = tokens(0.0, 2)
    x_TD[:, DIM // 4 :] = 0
    measured = covariance_decay(moments_of(x_TD), rng=np.random.default_rng(0)).values
    assert measured["participation_ratio"].value == pytest.approx(1 / 4, abs=0.004)
    assert measured["rankme"].value == pytest.approx(1 / 4, abs=0.004)
    assert "vanish" in str(measured["exponent"])


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_finite_token_bias_is_smaller_than_of_either_ordinary_estimate(exponent):
    # Half of the variance is shared within sequences of 50 tokens: few tokens really are new.
    balanced, in_sample, held_out = [], [], []
    for seed in range(6):
        x_TD = tokens(exponent, seed, shared=0.5)
        balanced.append(values(moments_of(x_TD))["exponent"])
        in_sample.append(in_sample_exponent(np.cov(x_TD.T)))
        held_out.append(held_out_exponent(x_TD))
    assert np.mean(held_out) < exponent < np.mean(in_sample)
    error = abs(np.mean(balanced) - exponent)
    assert error < 0.6 * abs(np.mean(in_sample) - exponent)
    assert error < 0.6 * abs(np.mean(held_out) - exponent)


def test_participation_ratio_has_no_finite_token_bias():
    crossed, naive = [], []
    for seed in range(12):
        x_TD = tokens(0.5, seed, shared=0.5)
        crossed.append(values(moments_of(x_TD))["participation_ratio"])
        naive.append(exact_values(np.linalg.eigvalsh(np.cov(x_TD.T)))["participation_ratio"])
    truth = exact_values(spectrum(0.5))["participation_ratio"]
    assert np.mean(naive) < 0.85 * truth
    assert abs(np.mean(crossed) - truth) < 4 * np.std(crossed) / math.sqrt(len(crossed))


def test_jackknife_error_is_the_scatter_over_records():
    records = [moments_of(tokens(1.0, seed, dim=32, shared=0.2)) for seed in range(60)]
    found = [covariance_decay(record, rng=np.random.default_rng(0)) for record in records]
    # the scatter of 60 is known to 9 %, and the jackknife errs upwards if anything
    for name in ("exponent", "rankme", "participation_ratio"):
        scatter = np.std([f.values[name].value for f in found], ddof=1)
        assert 0.7 < np.mean([f.values[name].stderr for f in found]) / scatter < 1.5
    curves = [f.curves["eigenvalues"] for f in found]
    scatter_D = np.std([c.y for c in curves], axis=0, ddof=1)
    # single eigenvalues of a crowded spectrum change places as blocks leave: up to twice too large
    assert 0.9 < np.median(np.mean([c.y_stderr for c in curves], axis=0) / scatter_D) < 2.2


def test_mean_is_projected_out_where_the_record_says_so():
    dim = 48
    rng = np.random.default_rng(3)
    # Helmert rows are an orthonormal basis of the subspace whose entries sum to zero
    inner = tokens(1.0, 4, dim=dim - 1)
    inner = np.concatenate([inner, tokens(1.0, 5, dim=dim - 1)[: 50 * dim - len(inner)]])
    x_TD = inner @ helmert(dim) + 10 * rng.standard_normal((len(inner), 1)) + 3
    projected = values(moments_of(x_TD, removes_mean=True))
    by_hand = values(moments_of(x_TD @ helmert(dim).T))
    assert projected == pytest.approx(by_hand, rel=1e-8)
    assert values(moments_of(x_TD))["participation_ratio"] < 0.5 * projected["participation_ratio"]


def test_unequal_blocks_pool_to_the_covariance_of_their_tokens():
    x_TD = tokens(1.0, 6) + np.linspace(0, 2, 50 * DIM)[:, None]
    edges = [0, 300, 1000, 1400, 2500, 50 * DIM]
    parts = [x_TD[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    record = Moments(
        count_B=np.array([len(p) for p in parts]),
        mean_BD=np.array([p.mean(axis=0) for p in parts]),
        second_BDD=np.array([p.T @ p / len(p) for p in parts]),
    )
    even, odd = (np.cov(np.concatenate(parts[i::2]).T, ddof=0) for i in (0, 1))
    expected = np.trace(even) * np.trace(odd) / (DIM * np.trace(even @ odd))
    assert values(record)["participation_ratio"] == pytest.approx(expected, rel=1e-9)
