"""Order-chaos exponents: symmetries, the all-ones mode, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import helmert

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.stability import order_chaos
from scaleinv_ray.records import Jacobians

D = 12
many = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def jacobians(rng: np.random.Generator, strength: float = 0.3, count: int = 4) -> np.ndarray:
    return np.eye(D) + strength * rng.standard_normal((count, D, D)) / np.sqrt(D)


def keeping_ones(j_TDD: np.ndarray) -> np.ndarray:
    """J with J 1 = 1."""
    return j_TDD + (1 - j_TDD.sum(axis=2, keepdims=True)) / j_TDD.shape[-1]


def values(j_TDD: np.ndarray, **labels) -> dict[str, Estimate | Refused]:
    return dict(order_chaos(Jacobians(j_TDD=j_TDD, **labels), rng=np.random.default_rng(0)).values)


def numbers(j_TDD: np.ndarray, **labels) -> dict[str, float]:
    return {n: e.value for n, e in values(j_TDD, **labels).items() if isinstance(e, Estimate)}


@many
@given(seed=seeds, symmetry=st.sampled_from(["rotation", "permutation"]))
def test_declared_symmetries(seed, symmetry):
    rng = np.random.default_rng(seed)
    j_TDD = 0.7 * jacobians(rng)
    q_DD = np.linalg.qr(rng.standard_normal((D, D)))[0]
    if symmetry == "permutation":
        q_DD = np.eye(D)[rng.permutation(D)]
    assert numbers(q_DD @ j_TDD @ q_DD.T) == pytest.approx(numbers(j_TDD), rel=1e-8)


@many
@given(seed=seeds)
def test_permutation_is_a_symmetry_beside_the_all_ones_mode(seed):
    rng = np.random.default_rng(seed)
    j_TDD = keeping_ones(jacobians(rng))
    p = rng.permutation(D)
    moved = j_TDD[:, p][:, :, p]
    assert numbers(moved, removes_mean=True) == pytest.approx(
        numbers(j_TDD, removes_mean=True), rel=1e-8
    )


@many
@given(seed=seeds)
def test_what_a_layer_writes_along_all_ones_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    j_TDD = keeping_ones(jacobians(rng))
    written = rng.standard_normal((4, 1, D))
    moved = j_TDD + written - written.mean(axis=2, keepdims=True)  # A 1 = 1 still
    assert numbers(moved, removes_mean=True) == pytest.approx(
        numbers(j_TDD, removes_mean=True), rel=1e-8
    )
    assert abs(numbers(moved)["chi"] / numbers(j_TDD)["chi"] - 1) > 1e-2


def test_projection_equals_the_map_in_a_basis_without_all_ones():
    j_TDD = keeping_ones(jacobians(np.random.default_rng(1)))
    by_hand = helmert(D) @ j_TDD @ helmert(D).T
    found, want = numbers(j_TDD, removes_mean=True), numbers(by_hand)
    for name in ("chi", "mean_log_singular", "max_log_singular"):
        assert found[name] == pytest.approx(want[name], rel=1e-9)
    measured = order_chaos(Jacobians(j_TDD=j_TDD, removes_mean=True), rng=np.random.default_rng(0))
    assert measured.flags["structural_modes"] == 1
    assert measured.flags["structural_residual"] < 1e-12
    assert len(measured.curves["log_singular_values"].x) == D - 1


def test_all_ones_that_is_no_mode_is_refused():
    with pytest.raises(Refused, match=r"structural mode: got .* allowed < 0.05"):
        values(jacobians(np.random.default_rng(2)), removes_mean=True)


def test_correlation_length_only_below_one_by_its_error():
    rng = np.random.default_rng(3)
    assert "needs 0 < chi < 1" in str(values(jacobians(rng))["correlation_length"])
    ordered = values(0.5 * jacobians(rng))
    assert isinstance(ordered["correlation_length"], Estimate)
    marginal = np.stack([0.5 * np.eye(D), 1.3 * np.eye(D)])  # chi = .97 +- .72
    found = values(marginal)
    assert found["chi"].value == pytest.approx(0.97)
    assert "stderr 0.72" in str(found["correlation_length"])


def test_singular_jacobians_lose_the_mean_logarithm_only():
    j_TDD = 0.5 * jacobians(np.random.default_rng(4))
    j_TDD[1, :, 3] = 0
    measured = order_chaos(Jacobians(j_TDD=j_TDD), rng=np.random.default_rng(0))
    assert "1 of 4 Jacobians are singular" in str(measured.values["mean_log_singular"])
    for name in ("chi", "max_log_singular", "correlation_length", "mean_log_singular_null"):
        assert isinstance(measured.values[name], Estimate), name
    assert measured.curves == {}
    vanishing = values(np.zeros((2, D, D)))
    assert vanishing["chi"].value == 0
    assert "vanishes" in str(vanishing["max_log_singular"])
    assert "got 0 " in str(vanishing["correlation_length"])


def test_one_position_has_no_error():
    measured = order_chaos(
        Jacobians(j_TDD=0.5 * jacobians(np.random.default_rng(5), count=1)),
        rng=np.random.default_rng(0),
    )
    for estimate in measured.values.values():
        assert estimate.stderr is None
    assert measured.curves["log_singular_values"].y_stderr is None


def test_not_finite_is_refused():
    j_TDD = jacobians(np.random.default_rng(6))
    j_TDD[0, 1, 2] = np.inf
    with pytest.raises(Refused, match="1 of .* entries not finite"):
        values(j_TDD)
