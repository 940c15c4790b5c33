"""Learning coefficients that are known, from chains sampled around the minimum.

Tolerances: 5 % for linear nets and 6 % for superposition, at finite temperature and with a
localiser, is what reference runs reach; exact Gaussian posteriors are held to 4 standard errors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.posterior.chains import chain_records
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.degeneracy import learning_coefficient
from scaleinv_ray.records import Chains
from scaleinv_ray.singularities import deep_linear
from scripts.toy_models import (
    Task,
    deep_linear_task,
    quadratic_task,
    superposition_task,
    teacher_task,
)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _chains(task: Task, **asked: Any) -> Chains:
    (found,) = chain_records(*task, generator=_seeded(1), **asked)
    return found


def _means(chains: Chains, paired: bool = True) -> np.ndarray:
    """Mean of nbeta (loss - base loss) after the burn-in, by setting and chain."""
    base_NCS = chains.base_loss_NCS.astype(np.float64)
    if not paired:
        base_NCS = np.full_like(base_NCS, base_NCS.mean())
    excess_NCS = chains.loss_NCS.astype(np.float64) - base_NCS
    return chains.nbeta_N[:, None] * excess_NCS[:, :, chains.burn_in :].mean(axis=2)


def _lambda(chains: Chains) -> tuple[np.ndarray, np.ndarray]:
    means_NC = _means(chains)
    return means_NC.mean(axis=1), means_NC.std(axis=1, ddof=1) / np.sqrt(means_NC.shape[1])


def _virial(chains: Chains) -> np.ndarray:
    """Over its stationary value, by setting."""
    assert chains.virial_NCS is not None and chains.drift_NCS is not None
    found_N = chains.virial_NCS[:, :, chains.burn_in :].mean(axis=(1, 2))
    drift_N = chains.drift_NCS[:, :, chains.burn_in :].mean(axis=(1, 2))
    return found_N / (1 + (chains.sampler != "mala") * chains.step_N * drift_N / 4)


def _langevin_lambda(
    curvature_P: np.ndarray, chains: Chains, noise_P: np.ndarray | float = 0.0
) -> np.ndarray:
    """Exact lambda_hat of a Gaussian target after a finite step with gradient noise, by setting.

    With a = nbeta h + gamma a coordinate's variance v solves
    v = (1 - eps a / 2)^2 v + eps + eps^2 nbeta^2 c / 4 m, c the variance of per-sample gradients.
    """
    nbeta, gamma, eps = (x[:, None] for x in (chains.nbeta_N, chains.gamma_N, chains.step_N))
    a_NP = nbeta * curvature_P + gamma
    heat_NP = eps * nbeta**2 * noise_P / (4 * chains.batch)
    variance_NP = (1 + heat_NP) / (a_NP * (1 - eps * a_NP / 4))
    return (nbeta * curvature_P * variance_NP / 2).sum(axis=1)


CURVATURE = torch.logspace(-0.5, 0.5, 10)


@pytest.mark.parametrize("sampler", ["sgld", "sgld_cv", "mala"])
def test_a_gaussian_posterior_has_half_its_dimension(sampler: str) -> None:
    task = quadratic_task(CURVATURE, num_samples=64, spread=0.1, generator=_seeded())
    chains = _chains(
        task, sampler=sampler, nbetas=[30.0, 300.0], num_chains=48, num_steps=600, burn_in=200
    )
    found_N, stderr_N = _lambda(chains)
    assert np.all(stderr_N < 0.06 * 5)
    noise_P = 0.01 * CURVATURE.numpy() ** 2 if sampler == "sgld" else 0.0
    expected_N = _langevin_lambda(CURVATURE.numpy(), chains, noise_P)
    if sampler == "mala":
        a_NP = chains.nbeta_N[:, None] * CURVATURE.numpy() + chains.gamma_N[:, None]
        expected_N = (chains.nbeta_N[:, None] * CURVATURE.numpy() / a_NP / 2).sum(axis=1)
    assert np.all(np.abs(found_N - expected_N) < 4 * stderr_N)
    np.testing.assert_allclose(expected_N[::3], 5.0, rtol=0.03)  # the least localised
    np.testing.assert_allclose(_virial(chains), 1.0, atol=0.1)


def test_control_variates_remove_the_heating_of_batches() -> None:
    """Eps nbeta^2 lambda_max(C) / 4 m = 0.16 here; control variates are exact on a quadratic."""
    task = quadratic_task(torch.ones(10), num_samples=256, spread=1.0, generator=_seeded())
    asked: dict[str, Any] = {
        "nbetas": [200.0], "gammas": [0.2], "gamma_factors": [1.0], "steps": [5e-4],
        "num_chains": 64, "num_steps": 600, "burn_in": 200,
    }  # fmt: skip
    plain, controlled = (_chains(task, sampler=s, **asked) for s in ("sgld", "sgld_cv"))
    (hot,), (hot_error,) = _lambda(plain)
    (cool,), (cool_error,) = _lambda(controlled)
    assert plain.heating_N is not None and plain.heating_N[0] == pytest.approx(0.16, rel=0.3)
    assert abs(hot - _langevin_lambda(np.ones(10), plain, 1.0)[0]) < 4 * hot_error
    assert abs(cool - _langevin_lambda(np.ones(10), controlled)[0]) < 4 * cool_error
    assert hot / cool > 1.08
    assert controlled.gradient_noise == pytest.approx(0.0, abs=1e-9)


def test_rmsprop_on_unequal_curvatures() -> None:
    """The scaled coordinates leave a Gaussian posterior's lambda at half the dimension."""
    curvature_P = torch.logspace(-1.5, 0.5, 8)
    task = quadratic_task(curvature_P, num_samples=64, spread=0.1, generator=_seeded())
    chains = _chains(
        task, sampler="rmsprop_sgld", nbetas=[100.0], gamma_factors=[0.1], num_chains=64,
        num_steps=700, burn_in=300,
    )  # fmt: skip
    (found,), (stderr,) = _lambda(chains)
    assert abs(found - 4.0) < 0.03 * 4.0 + 4 * stderr
    isotropic = _chains(task, nbetas=[100.0], gamma_factors=[1.0], num_steps=10, burn_in=5)
    assert isotropic.largest_curvature == pytest.approx(10**0.5, rel=1e-3)
    assert chains.largest_curvature is not None
    assert chains.largest_curvature < 10**0.5, "steep directions have shorter units"


def _linear_chains(widths: Sequence[int], rank: int, **asked: Any) -> Chains:
    task = deep_linear_task(
        widths, rank, num_samples=max(64, 2 * sum(widths)), generator=_seeded(), noise=0.3, free=1.0
    )
    return _chains(task, sampler="mala", nbetas=[1000.0], **asked)


def test_a_linear_network() -> None:
    exact = float(deep_linear([8, 4, 8], 2).llc)
    chains = _linear_chains(
        [8, 4, 8], 2, gamma_factors=[1.0], num_chains=32, num_steps=900, burn_in=300
    )
    (found,), (stderr,) = _lambda(chains)
    assert found == pytest.approx(exact, rel=0.05)
    assert stderr < 0.02 * exact


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "rank"), [([8, 4, 8], 2), ([20, 5, 20], 5), ([10, 10, 10], 3), ([10, 10, 10], 0)]
)
def test_linear_networks_are_right_and_called_ok(widths: list[int], rank: int) -> None:
    """The localiser relaxes flat directions in about 4,000 steps: burn-in is three times that."""
    exact = float(deep_linear(widths, rank).llc)
    chains = _linear_chains(widths, rank, num_steps=36_000, burn_in=12_000)
    measured = learning_coefficient(chains, rng=np.random.default_rng(0))
    found = measured.values["lambda"]
    assert isinstance(found, Estimate), (found, measured.flags)
    assert found.value == pytest.approx(exact, rel=0.05)
    assert measured.flags["verdict"] == "ok", measured.flags


SUPERPOSITION = [(5, 5, None, 7.0), (6, 6, None, 8.5), (6, 5, None, 8.5)]


@pytest.mark.parametrize(("features", "vertices", "dead", "exact"), SUPERPOSITION)
def test_superposition(features: int, vertices: int, dead: float | None, exact: float) -> None:
    task = superposition_task(features, vertices, dead_bias=dead, num_samples=20 * features)
    chains = _chains(
        task, sampler="mala", nbetas=[1e4], gamma_factors=[1.0], num_chains=32, num_steps=700,
        burn_in=300,
    )  # fmt: skip
    (found,), (stderr,) = _lambda(chains)
    assert stderr < 0.02 * exact
    assert found == pytest.approx(exact, rel=0.06)


def test_the_four_gon_is_no_minimum() -> None:
    task = superposition_task(6, 4, dead_bias=0.0, num_samples=120)
    chains = _chains(
        task, sampler="mala", nbetas=[1e4], gamma_factors=[1.0], num_chains=32, num_steps=600,
        burn_in=300,
    )  # fmt: skip
    (found,), (stderr,) = _lambda(chains)
    assert found < -3 * stderr, "chains find lower losses, by jumps"
    measured = learning_coefficient(chains, rng=np.random.default_rng(0))
    assert isinstance(measured.values["lambda"], Refused)
    assert "not a local minimum" in str(measured.values["lambda"])


def test_an_unequilibrated_chain_shows_in_the_virial_alone() -> None:
    """20 stiff and 200 flat directions: lambda is 110, chains from w0 agree on about 11."""
    curvature_P = torch.cat([torch.ones(20), torch.full((200,), 1e-4)])
    task = quadratic_task(curvature_P, num_samples=256, spread=0.0, generator=_seeded())
    chains = _chains(
        task, nbetas=[1000.0], gammas=[0.0], gamma_factors=[1.0], num_dispersed=0, num_chains=16,
        num_steps=2000, burn_in=1000,
    )  # fmt: skip
    (found,), _ = _lambda(chains)
    assert 10 < found < 13
    measured = learning_coefficient(chains, rng=np.random.default_rng(0))
    assert float(measured.flags["rhat"]) < 1.02
    assert _virial(chains)[0] < 0.3
    assert measured.flags["verdict"] == "reject"


def test_dispersed_chains_have_relaxed_where_the_gaussian_is_exact() -> None:
    """Starts beyond N(0, (nbeta H + gamma)^-1) are outside in flat directions and come inwards."""
    curvature_P = torch.cat([torch.ones(5), torch.full((20,), 1e-3)])
    task = quadratic_task(curvature_P, num_samples=64, spread=0.0, generator=_seeded())
    chains = _chains(
        task, nbetas=[1000.0], gammas=[0.0], gamma_factors=[1.0], num_chains=16, num_steps=400,
        burn_in=200,
    )  # fmt: skip
    assert chains.dispersed_C is not None and chains.dispersed_C.sum() == 8
    means_C = _means(chains)[0]
    away = chains.dispersed_C == 1
    assert means_C[away].mean() > 12.5 > means_C[~away].mean() + 5


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_rescaling_relu_layers(factor: float) -> None:
    """In units of the weights localiser and step follow a rescaling; isotropic ones do not."""
    task = teacher_task([4, 6, 3], num_samples=64, generator=_seeded(), dtype=torch.float64)
    asked: dict[str, Any] = {
        "nbetas": [1000.0], "gamma_factors": [1.0], "num_steps": 150, "burn_in": 50,
    }  # fmt: skip
    scaled = dict(task.parameters)
    scaled["weight_1"] = scaled["weight_1"] * factor
    scaled["weight_2"] = scaled["weight_2"] / factor
    (before,), _ = _lambda(_chains(task, scales=_sizes(task.parameters), **asked))
    moved = task._replace(parameters=scaled)
    (after,), _ = _lambda(_chains(moved, scales=_sizes(scaled), **asked))
    assert after == pytest.approx(before, rel=0.015)
    (isotropic,), _ = _lambda(_chains(moved, **asked))
    assert abs(isotropic / before - 1) > 0.015


def _sizes(parameters: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(p.square().mean().sqrt()) for name, p in parameters.items()}


def test_a_diverged_chain_ends_in_nan() -> None:
    """Far beyond the stable step 4 / (nbeta h) the chain grows until it overflows, and stays so."""
    task = quadratic_task(torch.ones(4), num_samples=64, spread=0.1, generator=_seeded())
    chains = _chains(
        task, nbetas=[100.0, 200.0], gamma_factors=[1.0], steps=[1e-3, 1.0], num_steps=200,
        burn_in=100,
    )  # fmt: skip
    finite_NCS = np.isfinite(chains.loss_NCS)
    assert finite_NCS[0].all()
    assert not finite_NCS[1, :, 100:].any()
    measured = learning_coefficient(chains, rng=np.random.default_rng(0))
    assert measured.flags["nbeta"] == 100.0


def test_pairing_narrows_the_means_of_chains() -> None:
    """Noise of a batch's own loss level cancels; fivefold and more on a net with label noise."""
    task = deep_linear_task([8, 4, 8], 2, num_samples=512, generator=_seeded(), noise=1.0)
    chains = _chains(
        task, sampler="sgld_cv", nbetas=[2000.0], gamma_factors=[1.0], num_chains=16,
        num_dispersed=0,
    )  # fmt: skip
    paired, unpaired = (_means(chains, paired=p)[0].std(ddof=1) for p in (True, False))
    assert unpaired / paired > 5
