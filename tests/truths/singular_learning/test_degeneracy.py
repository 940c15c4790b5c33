"""Learning coefficients and susceptibilities of posteriors that are known exactly."""

import dataclasses

import numpy as np
import pytest

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.degeneracy import (
    bayesian_influences,
    learning_coefficient,
    susceptibilities,
)
from scaleinv_ray.records import Chains
from tests.invariants.synthetic_chains import gaussian_chains, langevin_chains, singular_chains

NBETAS = (300.0, 1000.0, 3000.0)
LADDER = {
    "nbetas": [n for n in NBETAS for _ in range(3)],
    "gammas": [n * c for n in NBETAS for c in (1e-7, 1e-6, 1e-5)],
}
"""gamma / nbeta equal at every nbeta, a tenth and ten times as large beside it."""


def _measured(chains: Chains) -> Measured:
    return learning_coefficient(chains, rng=np.random.default_rng(0))


def _get(measured: Measured, quantity: str) -> Estimate:
    estimate = measured.values[quantity]
    assert isinstance(estimate, Estimate), (quantity, estimate)
    assert estimate.stderr is not None
    return estimate


def _off(estimate: Estimate, exact: float) -> float:
    """Distance in standard errors."""
    assert estimate.stderr is not None
    return abs(estimate.value - exact) / estimate.stderr


@pytest.mark.parametrize("dim", [2, 39, 175])
def test_a_regular_minimum_has_half_its_dimension(dim: int) -> None:
    chains = gaussian_chains(
        np.random.default_rng(dim),
        curvature_D=np.geomspace(0.01, 1, dim),
        num_draws=2000 if dim < 100 else 500,
        nbetas=[n * 10 for n in LADDER["nbetas"]],
        gammas=LADDER["gammas"],
    )
    measured = _measured(chains)
    for quantity in ("lambda", "lambda_m1", "lambda_hat_t"):
        assert _off(_get(measured, quantity), dim / 2) < 4, quantity
        assert _get(measured, quantity).value == pytest.approx(dim / 2, rel=0.05)
    assert _off(_get(measured, "lambda_per_parameter"), 1.0) < 4
    assert _off(_get(measured, "virial"), 1.0) < 4
    assert measured.flags["verdict"] == "ok", measured.flags["reasons"]
    assert measured.flags["name"] == "lambda"


@pytest.mark.parametrize(("llc", "m"), [(0.5, 1), (0.75, 1), (0.5, 2), (1.0, 2), (0.25, 2)])
def test_the_fit_with_the_right_multiplicity_is_right(llc: float, m: int) -> None:
    """At one temperature m = 2 costs a fifth; the curve has it back, and the other m is off."""
    chains = singular_chains(
        np.random.default_rng(7), llc=llc, multiplicity=m, nbetas=(1e2, 1e3, 1e4, 1e5)
    )
    measured = _measured(chains)
    right, wrong = (_get(measured, f"lambda_m{k}") for k in (m, 3 - m))
    assert _off(right, llc) < 4
    assert right.value == pytest.approx(llc, rel=0.05)
    assert (wrong.value > right.value) == (m == 1)
    assert ("read the bracket in m" in str(measured.flags["reasons"])) == (m == 2)
    if m == 2:
        assert _get(measured, "lambda").value < 0.94 * llc


def test_one_temperature_at_multiplicity_two_is_eighteen_percent_low() -> None:
    """The exact mean at log nbeta + b = 11 is 1/2 - 1/11 (spectroscopy: WBIC is -18 % at m = 2)."""
    # log Z = -log(nbeta) / 2 + log(log nbeta - psi(1/2)) for the density K^(-1/2) (-log K)
    digamma_half = -1.9635100260214235
    nbeta = float(np.exp(11 + digamma_half))
    chains = singular_chains(
        np.random.default_rng(1), llc=0.5, multiplicity=2, nbetas=(nbeta,), num_draws=20_000
    )
    found = _get(_measured(chains), "lambda")
    assert _off(found, 0.5 - 1 / 11) < 4
    assert found.value / 0.5 - 1 == pytest.approx(-0.18, abs=0.02)


def test_the_error_is_the_scatter_of_correlated_chains() -> None:
    """AR(1) draws, correlation .9: K has .81, so that N (1 - .81)/(1 + .81) draws count."""
    found = [
        _get(
            _measured(
                gaussian_chains(
                    np.random.default_rng(seed), curvature_D=np.ones(4), correlation=0.9
                )
            ),
            "lambda",
        )
        for seed in range(40)
    ]
    scatter = float(np.std([f.value for f in found], ddof=1))
    exact = np.sqrt(4 / 2 / (8 * 1500 * 0.19 / 1.81))
    assert scatter == pytest.approx(exact, rel=0.3)  # 40 runs know it to 11 %
    claimed = float(np.sqrt(np.mean([f.stderr**2 for f in found if f.stderr is not None])))
    assert claimed == pytest.approx(exact, rel=0.15)
    assert np.mean([_off(f, 2.0) > 2 for f in found]) < 0.12


@pytest.mark.parametrize("reach", [0.08, 0.8])
def test_the_virial_ratio_is_stationary_at_any_step(reach: float) -> None:
    """Unadjusted Langevin widens by 1 / (1 - eps a / 4): lambda has it, the ratio does not."""
    chains = langevin_chains(
        np.random.default_rng(2),
        curvature_D=np.ones(50),
        nbeta=1000.0,
        gamma=1e-3,
        reach=reach,
        num_draws=2000,
    )
    measured = _measured(chains)
    assert _off(_get(measured, "virial"), 1.0) < 4
    assert _off(_get(measured, "lambda_hat_t"), 25 / (1 - reach / 4)) < 4
    assert ("step and minibatch" in str(measured.flags["reasons"])) == (reach / 4 > 0.05)


def test_flat_directions_that_have_not_relaxed_are_not_called_ok() -> None:
    """20 stiff and 200 flat directions: 110 in truth, a tenth of it with an R-hat below 1.02."""
    chains = langevin_chains(
        np.random.default_rng(3),
        curvature_D=np.repeat([1.0, 1e-5], [20, 200]),
        nbeta=1000.0,
        gamma=1e-6,
        num_draws=2500,
    )
    measured = _measured(chains)
    assert float(measured.flags["rhat"]) < 1.02
    assert _get(measured, "virial").value < 0.2
    assert measured.flags["verdict"] == "reject"
    assert measured.flags["name"] == "lambda_hat(2500)"
    assert "not equilibrated" in str(measured.values["lambda"])
    assert isinstance(measured.values["lambda_per_parameter"], Refused)
    assert _get(measured, "lambda_hat_t").value == pytest.approx(11.0, rel=0.15)
    assert "2500 steps" in str(measured.flags["comparable_at"])


def test_a_localiser_that_is_felt_is_seen() -> None:
    """lambda = sum h / (h + c) / 2 at gamma = c nbeta: its logarithmic slope in c is exact."""
    curvature_D = np.geomspace(1e-3, 1, 40)
    share = 1e-2
    chains = gaussian_chains(
        np.random.default_rng(4),
        curvature_D=curvature_D,
        nbetas=[1000.0] * 3,
        gammas=[1000.0 * share * f for f in (0.1, 1, 10)],
        num_draws=4000,
    )
    measured = _measured(chains)
    llc = [(curvature_D / (curvature_D + share * f)).sum() / 2 for f in (0.1, 1, 10)]
    expected = np.polyfit(np.log([0.1, 1, 10]), np.log(llc), 1)[0]
    assert _get(measured, "gamma_sensitivity").value == pytest.approx(expected, abs=0.03)
    assert measured.flags["verdict"] == "reject"
    assert "d ln lambda / d ln gamma" in str(measured.values["lambda"])
    assert _off(_get(measured, "lambda_hat_t"), llc[1]) < 4


def test_a_saddle_is_no_minimum() -> None:
    chains = gaussian_chains(
        np.random.default_rng(5), curvature_D=np.ones(6), lowest_curvature=-0.7
    )
    saddle = dataclasses.replace(
        chains, loss_NCS=chains.base_loss_NCS - (chains.loss_NCS - chains.base_loss_NCS)
    )
    measured = _measured(saddle)
    for quantity in ("lambda", "lambda_hat_t"):
        reason = str(measured.values[quantity])
        assert "not a local minimum (lowest curvature -0.7)" in reason
        assert float(reason.split()[1]) == pytest.approx(-6 / 2, rel=0.05)
    assert measured.flags["verdict"] == "reject"


@pytest.mark.parametrize("unit", [1e-3, 7.0])
def test_the_unit_of_the_loss_is_a_temperature(unit: float) -> None:
    """Loss * c at nbeta / c is the same posterior."""
    chains = singular_chains(
        np.random.default_rng(6), llc=0.5, multiplicity=2, nbetas=(1e2, 1e3, 1e4)
    )
    moved = dataclasses.replace(
        chains,
        loss_kind="squared_error",
        noise=1.0,
        nbeta_N=chains.nbeta_N / unit,
        loss_NCS=chains.loss_NCS * unit,
        base_loss_NCS=chains.base_loss_NCS * unit,
    )
    before, after = _measured(chains), _measured(moved)
    for quantity in ("lambda", "lambda_m1", "lambda_m2", "nbeta_slope"):
        expected = _get(before, quantity).value
        assert _get(after, quantity).value == pytest.approx(expected, rel=1e-9)


def _observing(seed: int) -> tuple[Chains, np.ndarray, float]:
    """Draws of a quadratic loss, curvatures of four observed ones over its own, nbeta."""
    curvature_D = np.geomspace(0.1, 1, 12)
    observed_QD = np.array([curvature_D, np.ones(12), np.eye(12)[3], np.zeros(12)])
    observed_QD[3, :2] = 0.5, -2.0
    chains = gaussian_chains(
        np.random.default_rng(seed),
        curvature_D=curvature_D,
        observed_QD=observed_QD,
        probe="probe0",
        num_chains=24,
        num_draws=1500,
    )
    return chains, observed_QD / curvature_D, 1000.0


def test_susceptibilities_of_quadratic_losses() -> None:
    """chi_q = -nbeta tr(H_q S H S) / 2 with S = (nbeta H)^-1, so -sum_d h_qd / h_d / (2 nbeta)."""
    chains, scaled_QD, nbeta = _observing(8)
    measured = susceptibilities(chains, rng=np.random.default_rng(0))
    exact_Q = -scaled_QD.sum(axis=1) / (2 * nbeta)
    curve = measured.curves["susceptibilities"]
    assert curve.y_stderr is not None
    assert (np.abs(curve.y - exact_Q) < 4 * curve.y_stderr).all()
    share_Q = np.abs(exact_Q) / np.abs(exact_Q).sum()
    expected = {
        "susceptibility_self": -12 / (2 * nbeta),
        "susceptibility_rms": np.sqrt(np.mean(exact_Q**2)),
        "susceptibility_participation": (exact_Q**2).sum() ** 2 / (4 * (exact_Q**4).sum()),
        "susceptibility_entropy": -(share_Q * np.log(share_Q)).sum() / np.log(4),
    }
    for quantity, value in expected.items():
        assert _off(_get(measured, quantity), value) < 4, quantity
        assert _get(measured, quantity).value == pytest.approx(value, rel=0.1), quantity


def test_influences_of_quadratic_losses() -> None:
    """BIF_qp = -nbeta tr(H_q S H_p S) / 2 with S = (nbeta H)^-1."""
    chains, scaled_QD, nbeta = _observing(9)
    measured = bayesian_influences(chains, rng=np.random.default_rng(0))
    exact_QQ = scaled_QD @ scaled_QD.T / (2 * nbeta)
    curve = measured.curves["influences"]
    assert curve.y_stderr is not None
    assert (np.abs(curve.y + exact_QQ.ravel()) < 4 * curve.y_stderr).all()
    size_Q = np.sqrt(np.diag(exact_QQ))
    correlation_QQ = exact_QQ / np.outer(size_Q, size_Q)
    expected = {
        "influence_self": np.trace(exact_QQ) / 4,
        "influence_correlation": (correlation_QQ.sum() - 4) / 12,
        "influence_rank": 4 / (correlation_QQ**2).sum(),
    }
    for quantity, value in expected.items():
        assert _off(_get(measured, quantity), value) < 4, quantity
        assert _get(measured, quantity).value == pytest.approx(value, rel=0.1), quantity
