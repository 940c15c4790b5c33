"""Learning coefficients: which rule fires when, what is chosen, what is refused."""

import dataclasses
from typing import Any

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
from tests.invariants.synthetic_chains import gaussian_chains

CURVATURE_D = np.geomspace(0.1, 1, 20)
NBETAS = [1000.0] * 3 + [3000.0] * 3
GAMMAS = [n * c for n in (1e3, 3e3) for c in (1e-8, 1e-7, 1e-6)]
OBSERVED_QD = np.array([CURVATURE_D, np.ones(20), np.linspace(0, 2, 20)])


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _chains(seed: int = 0, **changes: Any) -> Chains:
    fields: dict[str, Any] = {
        "curvature_D": CURVATURE_D,
        "nbetas": NBETAS,
        "gammas": GAMMAS,
        "num_draws": 400,
        "burn_in": 100,
        "observed_QD": OBSERVED_QD,
        "probe": "probe0",
    }
    return gaussian_chains(np.random.default_rng(seed), **(fields | changes))


GOOD = _chains()


def _measured(chains: Chains) -> Measured:
    return learning_coefficient(chains, rng=_rng())


def _value(measured: Measured, quantity: str) -> float:
    estimate = measured.values[quantity]
    assert isinstance(estimate, Estimate), (quantity, estimate)
    return estimate.value


def _reasons(chains: Chains) -> str:
    return str(_measured(chains).flags["reasons"])


def _changed(name: str, index: Any, value: Any, chains: Chains = GOOD) -> Chains:
    array = getattr(chains, name).copy()
    array[index] = value
    return dataclasses.replace(chains, **{name: array})


def _plus(name: str, more: np.ndarray, chains: Chains = GOOD) -> Chains:
    return dataclasses.replace(chains, **{name: getattr(chains, name) + more})


def test_a_good_record_is_ok() -> None:
    measured = _measured(GOOD)
    assert measured.flags["verdict"] == "ok", measured.flags["reasons"]
    assert measured.flags["reasons"] == ""
    assert measured.flags["nbeta"] == 3000.0 and measured.flags["gamma"] == 3e3 * 1e-7
    assert measured.flags["comparable_at"] == (
        "eps h_max nbeta 0.08, gamma / (h_max nbeta) 1e-07, 400 steps"
    )
    assert measured.flags["num_draws"] == 8 * 300
    assert _value(measured, "lambda") == _value(measured, "lambda_hat_t")
    samples = measured.values["lambda"].samples
    assert len(samples) == 8 and np.mean(samples) == pytest.approx(_value(measured, "lambda"))
    assert list(measured.curves["lambda_of_nbeta"].x) == [1000.0, 3000.0]
    assert len(measured.curves["trace"].x) == 400


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30, -5.0])
def test_burn_in_is_never_counted(garbage: float) -> None:
    dirty = GOOD
    for name in ("loss_NCS", "base_loss_NCS", "virial_NCS", "drift_NCS", "observed_QNCS"):
        dirty = _changed(name, np.s_[..., :100], garbage, dirty)
    for invariant in (learning_coefficient, susceptibilities, bayesian_influences):
        before, after = invariant(GOOD, rng=_rng()), invariant(dirty, rng=_rng())
        assert {k: str(v) for k, v in before.values.items()} == {
            k: str(v) for k, v in after.values.items()
        }
        assert before.flags == after.flags


def test_the_order_of_chains_and_settings_changes_nothing() -> None:
    def permuted(array: np.ndarray, axis: int, order: np.ndarray) -> np.ndarray:
        return np.take(array, order, axis=axis)

    rng = np.random.default_rng(1)
    setting_N, chain_C = rng.permutation(6), rng.permutation(8)
    fields: dict[str, np.ndarray] = {}
    for name in GOOD.arrays:
        array = getattr(GOOD, name)
        if array is None:
            continue
        letters = name.rsplit("_", 1)[1]
        array = permuted(array, letters.index("N"), setting_N)
        if "C" in letters:
            array = permuted(array, letters.index("C"), chain_C)
        fields[name] = array
    moved = dataclasses.replace(GOOD, **fields)
    for invariant in (learning_coefficient, susceptibilities, bayesian_influences):
        before, after = invariant(GOOD, rng=_rng()), invariant(moved, rng=_rng())
        for name, estimate in before.values.items():
            if isinstance(estimate, Estimate):
                assert _value(after, name) == pytest.approx(estimate.value, rel=1e-9), name


def test_single_precision_losses_are_subtracted_in_double() -> None:
    base = 10.0 + np.zeros(GOOD.loss_NCS.shape)
    excess = GOOD.loss_NCS - GOOD.base_loss_NCS
    single = dataclasses.replace(
        GOOD, loss_NCS=(base + excess).astype(np.float32), base_loss_NCS=base.astype(np.float32)
    )
    expected = _value(_measured(GOOD), "lambda")
    assert _value(_measured(single), "lambda") == pytest.approx(expected, rel=1e-3)


def test_a_diverged_chain_is_named_and_left_out() -> None:
    measured = _measured(_changed("loss_NCS", np.s_[4, 3, 200:], np.nan))
    assert measured.flags["verdict"] == "warn"
    assert measured.flags["reasons"] == ("chain 3 of setting nbeta=3000 gamma=0.0003 is not finite")
    assert measured.flags["num_chains"] == 7
    assert _value(measured, "lambda") == pytest.approx(10.0, rel=0.05)


def test_the_largest_temperature_that_is_not_rejected_is_taken() -> None:
    measured = _measured(_changed("loss_NCS", np.s_[3:, :5, 200:], np.inf))
    assert measured.flags["nbeta"] == 1000.0
    assert measured.flags["verdict_of_nbeta"] == "ok,reject"
    assert list(measured.curves["lambda_of_nbeta"].x) == [1000.0]
    assert list(measured.curves["lambda_hat_t_of_nbeta"].x) == [1000.0, 3000.0]
    assert "1 of 2 nbeta accepted" in str(measured.values["lambda_m1"])


def test_most_chains_lost_is_void_and_all_lost_is_refused() -> None:
    measured = _measured(_changed("loss_NCS", np.s_[:, :5, 200:], np.inf))
    for quantity in ("lambda", "lambda_hat_t"):
        assert "5 of 8 chains diverged" in str(measured.values[quantity])
    with pytest.raises(Refused, match="no setting has a value: 8 of 8 chains diverged; chain 0"):
        _measured(_changed("loss_NCS", np.s_[..., 200:], np.nan))


def test_chains_stuck_apart_are_rejected() -> None:
    shift_C1 = np.array([0, 0, 0, 0, 0, 0, 1, 1])[:, None] * 0.02
    measured = _measured(_plus("loss_NCS", shift_C1))
    assert measured.flags["verdict"] == "reject"
    assert "split R-hat" in str(measured.values["lambda"])
    found = measured.values["lambda_hat_t"]
    assert isinstance(found, Estimate) and found.stderr is not None
    assert found.stderr > 5  # the error knows that the chains disagree: 60 apart, 2 of 8


def _ramp() -> np.ndarray:
    """Falls by four units of lambda over the draws that count."""
    return np.linspace(4, 0, 400) / np.array(NBETAS)[:, None, None]


RULES: list[tuple[Chains, str, str]] = [
    (_plus("loss_NCS", _ramp()), "warn", "Geweke z"),
    (_chains(num_draws=120), "warn", "MCSE"),
    (_chains(correlation=0.98, num_draws=600), "reject", "split R-hat"),
    (_chains(correlation=0.9, num_chains=2), "warn", "ESS"),
    (_plus("virial_NCS", np.array(-0.5)), "reject", "not equilibrated: virial ratio 0.5"),
    (_plus("virial_NCS", np.array(0.5)), "reject", "driven above equilibrium"),
    (dataclasses.replace(GOOD, virial_NCS=None), "warn", "no virial ratio"),
    (dataclasses.replace(GOOD, virial_NCS=np.ones(GOOD.loss_NCS.shape)), "warn", "no virial"),
    (dataclasses.replace(GOOD, heating_N=np.full(6, 0.06)), "warn", "may add 6.0%"),
    (dataclasses.replace(GOOD, restored=False), "reject", "did not equal w0"),
    (
        _chains(nbetas=NBETAS[:3], gammas=GAMMAS[:3], curvature_D=np.ones(9), observed_QD=None),
        "warn",
        "under two nbeta",
    ),
    (_chains(nbetas=[1e3, 3e3], gammas=[1e-4, 3e-4]), "warn", "one gamma at each nbeta"),
    (_chains(num_chains=1, num_draws=3000), "warn", "one chain only"),
    (
        _chains(nbetas=[x / 50 for x in NBETAS], gammas=[x / 50 for x in GAMMAS]),
        "reject",
        "not local: mean excess",
    ),
]


@pytest.mark.parametrize(("chains", "verdict", "text"), RULES, ids=[rule[2] for rule in RULES])
def test_every_rule_fires(chains: Chains, verdict: str, text: str) -> None:
    measured = _measured(chains)
    assert text in str(measured.flags["reasons"])
    assert measured.flags["verdict"] == verdict
    refused = isinstance(measured.values["lambda"], Refused)
    assert refused == (verdict == "reject")
    if refused:
        assert text in str(measured.values["lambda"])
        assert str(measured.flags["name"]).startswith("lambda_hat(")


def test_chains_that_do_not_move_have_no_value() -> None:
    still = np.full(GOOD.loss_NCS.shape, 2.0)
    with pytest.raises(Refused, match="no setting has a value: loss_NCS: .* a chain does not move"):
        _measured(dataclasses.replace(GOOD, loss_NCS=still + 0.01, base_loss_NCS=still))
    # these move, but never in their distance to the median
    swing = still + np.where(np.arange(still.shape[-1]) % 2, 0.25, 0.75)
    with pytest.raises(Refused, match="no setting has a value: loss_NCS: .* a chain does not move"):
        _measured(dataclasses.replace(GOOD, loss_NCS=swing, base_loss_NCS=still))


def test_no_curvature_on_record_is_nothing_to_compare_at() -> None:
    flags = _measured(dataclasses.replace(GOOD, largest_curvature=0.0)).flags
    assert "comparable_at" not in flags and flags["discretisation"] == 0


@pytest.mark.parametrize("name", ["heating_N", "restored"])
def test_fields_that_void(name: str) -> None:
    """Unrestored parameters leave no number at all; unknown heating only its own quantity."""
    without = dataclasses.replace(GOOD, **{name: None if name == "heating_N" else False})
    measured = _measured(without)
    assert isinstance(measured.values["lambda_hat_t"], Refused) == (name == "restored")
    assert isinstance(measured.values["heating"], Refused) == (name == "heating_N")


def test_a_virial_ratio_within_its_error_of_the_range_is_a_warning() -> None:
    few = _chains(num_draws=40, burn_in=0, curvature_D=np.ones(1), observed_QD=None)
    virial = np.random.default_rng(3).normal(0.85, 1.5, size=few.loss_NCS.shape)
    assert "equilibrium not resolved" in _reasons(dataclasses.replace(few, virial_NCS=virial))
    sharp = np.random.default_rng(3).normal(0.85, 0.1, size=few.loss_NCS.shape)
    assert "not equilibrated" in _reasons(dataclasses.replace(few, virial_NCS=sharp))


def test_one_nbeta_is_enough_where_a_logarithm_is_small_beside_lambda() -> None:
    one = _chains(nbetas=NBETAS[:3], gammas=GAMMAS[:3], curvature_D=np.ones(80), observed_QD=None)
    measured = _measured(one)
    assert measured.flags["verdict"] == "ok", measured.flags["reasons"]
    for quantity in ("lambda_m1", "lambda_m2", "nbeta_slope"):
        assert f"{quantity}: needs" in str(measured.values[quantity])


@pytest.mark.parametrize(("dim", "verdict"), [(5, "warn"), (80, "ok")])
def test_growth_along_the_ladder_counts_where_a_logarithm_may_explain_it(
    dim: int, verdict: str
) -> None:
    """Six per cent more at the largest of three nbeta than at the smallest."""
    nbetas = [n for n in (300.0, 1000.0, 3000.0) for _ in range(3)]
    flat = _chains(
        nbetas=nbetas,
        gammas=[n * 1e-7 * 10 ** (k % 3) for k, n in enumerate(nbetas)],
        curvature_D=np.ones(dim),
        observed_QD=None,
        num_draws=1500,
    )
    excess = (flat.loss_NCS - flat.base_loss_NCS) * (np.array(nbetas) ** 0.025)[:, None, None]
    measured = _measured(dataclasses.replace(flat, loss_NCS=flat.base_loss_NCS + excess))
    slope = measured.values["nbeta_slope"]
    assert 2 * slope.stderr < slope.value < 0.05
    assert measured.flags["verdict"] == verdict, measured.flags["reasons"]


def test_starts_on_both_sides_of_equilibrium_do_not_cancel() -> None:
    """Chains from w0 still inside, dispersed ones still outside: only the mean looks right."""
    start_C = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    mixed = dataclasses.replace(
        _plus("virial_NCS", np.where(start_C, 0.2, -0.2)[:, None]), dispersed_C=start_C
    )
    measured = _measured(mixed)
    assert _value(measured, "virial") == pytest.approx(1.0, abs=0.05)
    assert measured.flags["verdict"] == "reject" and measured.flags["dispersed"] == 4
    for text in ("chains started at w0: not equilibrated", "started dispersed: driven above"):
        assert text in str(measured.values["lambda"])
    relaxed = dataclasses.replace(GOOD, dispersed_C=start_C)
    assert _measured(relaxed).flags["verdict"] == "ok"


def test_a_rejected_localiser_takes_the_fits_with_it() -> None:
    felt = _chains(gammas=[n * c for n in (1e3, 3e3) for c in (0.01, 0.1, 1.0)])
    measured = _measured(felt)
    for quantity in ("lambda", "lambda_per_parameter", "lambda_m1"):
        assert "d ln lambda / d ln gamma" in str(measured.values[quantity])
    assert isinstance(measured.values["lambda_hat_t"], Estimate)
    assert set(measured.curves) == {"lambda_hat_t_of_nbeta", "trace"}


def test_far_from_the_minimum_counts_for_log_likelihoods_only() -> None:
    hot = _chains(nbetas=[x / 50 for x in NBETAS], gammas=[x / 50 for x in GAMMAS])
    squared = dataclasses.replace(hot, loss_kind="squared_error", noise=0.3)
    measured = _measured(squared)
    assert measured.flags["verdict"] == "ok" and measured.flags["noise"] == 0.3


@pytest.mark.parametrize(
    ("chains", "text"),
    [
        (dataclasses.replace(GOOD, loss_kind="squared_error"), "noise: got None"),
        (dataclasses.replace(GOOD, loss_kind="squared_error", noise=0.0), r"noise: got 0\.0"),
        (dataclasses.replace(GOOD, burn_in=393), r"burn_in: got 393, allowed 0\.\.392 of 400"),
        (dataclasses.replace(GOOD, burn_in=-1), "burn_in: got -1"),
        (_changed("nbeta_N", 2, 0.0), "nbeta_N: got"),
        (_changed("gamma_N", 2, -1.0), "gamma_N: got"),
        (_changed("step_N", 2, np.nan), "step_N: got"),
        (dataclasses.replace(GOOD, step_N=GOOD.step_N[:5]), r"step_N: got shape \(5,\)"),
        (
            dataclasses.replace(GOOD, base_loss_NCS=GOOD.base_loss_NCS[:, :2]),
            "base_loss_NCS: got shape",
        ),
        (dataclasses.replace(GOOD, loss_NCS=GOOD.loss_NCS[..., 0]), "loss_NCS: got shape"),
    ],
)
def test_refusals(chains: Chains, text: str) -> None:
    for invariant in (learning_coefficient, susceptibilities, bayesian_influences):
        with pytest.raises(Refused, match=text):
            invariant(chains, rng=_rng())


@pytest.mark.parametrize(
    ("chains", "text"),
    [
        (dataclasses.replace(GOOD, observed_QNCS=None), "needs observed probes"),
        (dataclasses.replace(GOOD, observed="a,b"), "observed_QNCS: got shape"),
        (_changed("observed_QNCS", np.s_[1, 4, 2, 300], np.nan), "not finite in chains that are"),
    ],
)
def test_responses_that_cannot_be_had(chains: Chains, text: str) -> None:
    for invariant in (susceptibilities, bayesian_influences):
        with pytest.raises(Refused, match=text):
            invariant(chains, rng=_rng())


def test_influences_refused() -> None:
    one = dataclasses.replace(GOOD, observed_QNCS=GOOD.observed_QNCS[:1], observed="probe0")
    with pytest.raises(Refused, match="got 1 probe, needs 2"):
        bayesian_influences(one, rng=_rng())
    still = dataclasses.replace(GOOD, observed_QNCS=GOOD.observed_QNCS.copy())
    still.observed_QNCS[1] = 0.0
    with pytest.raises(Refused, match="the loss of probe1 does not move"):
        bayesian_influences(still, rng=_rng())
    spoiled = bayesian_influences(dataclasses.replace(GOOD, restored=False), rng=_rng())
    assert all(isinstance(v, Refused) for v in spoiled.values.values())
    assert list(spoiled.curves) == ["influences_t"]


def test_unrelated_losses_have_full_rank_or_too_few_draws() -> None:
    rng = _rng()
    kept = dataclasses.replace(GOOD, observed_QNCS=rng.normal(size=GOOD.observed_QNCS.shape))
    values = bayesian_influences(kept, rng=rng).values
    assert values["influence_rank"].value > 0.9
    assert abs(values["influence_correlation"].value) < 4 * values["influence_correlation"].stderr
    few = _chains(num_draws=110)
    noise_QNCS = rng.normal(size=(12, *few.observed_QNCS.shape[1:]))
    names = ",".join(f"probe{q}" for q in range(12))
    loud = dataclasses.replace(few, observed_QNCS=noise_QNCS, observed=names)
    assert "of tr R^2 is noise" in str(bayesian_influences(loud, rng=rng).values["influence_rank"])


def test_susceptibilities_refused_one_by_one() -> None:
    def values(chains: Chains) -> dict[str, str]:
        found = susceptibilities(chains, rng=_rng()).values
        return {k: str(v) for k, v in found.items() if isinstance(v, Refused)}

    assert values(GOOD) == {}
    assert list(values(dataclasses.replace(GOOD, probe="other"))) == ["susceptibility_self"]
    one = dataclasses.replace(GOOD, observed_QNCS=GOOD.observed_QNCS[:1], observed="probe0")
    assert list(values(one)) == ["susceptibility_entropy"]
    noise = np.random.default_rng(4).normal(size=GOOD.observed_QNCS.shape)
    assert (
        "is noise" in values(dataclasses.replace(GOOD, observed_QNCS=noise))["susceptibility_rms"]
    )
    spoiled = dataclasses.replace(GOOD, restored=False)
    assert set(values(spoiled)) == set(susceptibilities(GOOD, rng=_rng()).values)
    assert list(susceptibilities(spoiled, rng=_rng()).curves) == ["susceptibilities_t"]


@pytest.mark.parametrize(("num_chains", "replicates"), [(1, 8), (3, 9), (8, 8), (12, 12)])
def test_few_chains_are_cut_for_the_error_of_susceptibilities(
    num_chains: int, replicates: int
) -> None:
    measured = susceptibilities(_chains(num_chains=num_chains), rng=_rng())
    assert measured.flags["num_replicates"] == replicates
    assert measured.values["susceptibility_self"].n == replicates
