"""Densities of states: refusals, weightless and repeated nodes, the null of the outliers."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.curvature.lanczos import quadrature, tridiagonal
from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.quadrature import (
    count_outliers,
    null_gap,
    outlier_counts,
    relative_gaps,
)
from scaleinv_ray.invariants.curvature import ggn_density, hessian_density
from scaleinv_ray.invariants.holomorphy import ggn_poles
from scaleinv_ray.records import Lanczos

NODES_RK = np.array([[-1.0, 0.5, 4.0], [-2.0, 0.0, 4.0]])
WEIGHTS_RK = np.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
RECORD = Lanczos(nodes_RK=NODES_RK, weights_RK=WEIGHTS_RK, dim=50, weight_norm=3.0)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_values_of_given_nodes() -> None:
    found = {q: v.value for q, v in hessian_density(RECORD, rng=_rng()).values.items()}
    assert found["lambda_max"] == 4.0
    assert found["scaled_sharpness"] == 36.0
    assert found["lambda_ratio"] == -0.5
    assert found["negative_fraction"] == pytest.approx(0.15)
    assert found["flat_fraction"] == pytest.approx(0.4)
    assert found["mean_square"] == pytest.approx((0.2 + 0.175 + 1.6 + 0.4 + 1.6) / 2)


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_what_does_not_change_with_the_unit_of_the_loss(scale: float) -> None:
    moved = dataclasses.replace(RECORD, nodes_RK=scale * NODES_RK)
    before, after = (hessian_density(r, rng=_rng()).values for r in (RECORD, moved))
    for quantity in set(before) - {"lambda_max", "scaled_sharpness", "mean_square"}:
        assert after[quantity].value == pytest.approx(before[quantity].value, rel=1e-9), quantity


def test_nodes_without_weight_do_not_count() -> None:
    padded = dataclasses.replace(
        RECORD,
        nodes_RK=np.hstack([NODES_RK, [[99.0], [-99.0]]]),
        weights_RK=np.hstack([WEIGHTS_RK, np.zeros((2, 1))]),
    )
    before, after = (hessian_density(r, rng=_rng()).values for r in (RECORD, padded))
    for quantity in set(before) - {"outlier_count"}:
        assert after[quantity].value == pytest.approx(before[quantity].value), quantity


def test_one_probe_has_no_error() -> None:
    one = dataclasses.replace(RECORD, nodes_RK=NODES_RK[:1], weights_RK=WEIGHTS_RK[:1])
    for estimate in hessian_density(one, rng=_rng()).values.values():
        assert isinstance(estimate, Estimate) and estimate.stderr is None


def test_ghosts_are_one_outlier() -> None:
    bulk_K = np.linspace(0, 1, 60)
    nodes_K = np.concatenate([bulk_K, [8.0, 8.0 + 1e-9, 9.0]])
    weights_K = np.concatenate([np.full(60, 0.98 / 60), [0.005, 0.005, 0.01]])
    assert count_outliers(nodes_K, weights_K, least_gap=0.3) == 2


def _directions(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    v_RP = rng.normal(size=(count, dim))
    return v_RP / np.linalg.norm(v_RP, axis=1, keepdims=True)


def test_the_null_has_no_outliers_at_its_level() -> None:
    """The widest gap of 20 nulls is exceeded by a further one at a rate of 1 in 21."""
    rng = _rng()
    limit = [null_gap(500, 40, num_null=20, rng=rng) for _ in range(30)]
    fresh = [null_gap(500, 40, num_null=1, rng=rng) for _ in range(300)]
    above = np.mean(np.subtract.outer(fresh, limit) > 0)
    assert 0.01 < above < 0.1


def test_no_vector_of_a_bulk_counts_outliers_at_the_level_of_all() -> None:
    """A limit for one vector would be passed by one of 12 in 4 matrices of 10."""
    rng = _rng()
    counted = 0
    for _ in range(20):
        a_PP = rng.normal(size=(100, 100))
        value_P, basis_PP = np.linalg.eigh(a_PP + a_PP.T)
        weights_RP = (_directions(rng, 12, 100) @ basis_PP) ** 2
        nodes_RP = np.broadcast_to(value_P, weights_RP.shape)
        found = outlier_counts(nodes_RP, weights_RP, dim=100, flat=1e-3, num_null=20, rng=rng)
        counted += any(found)
    assert counted <= 4  # 20 / 21 expected at most; more than 4 by a chance of .003


def test_nodes_that_stand_for_many_eigenvalues_count_none() -> None:
    """A hundred eigenvalues far out, which three steps see as one or two nodes."""
    rng = _rng()
    value_P = np.concatenate([np.zeros(4000), rng.uniform(1.0, 2.0, size=100)])
    v_RP = rng.normal(size=(3, len(value_P)))
    nodes_RK, weights_RK = quadrature(
        tridiagonal(lambda v: v * torch.tensor(value_P), torch.tensor(v_RP), 3, keep_basis=True)
    )
    asked = {"dim": len(value_P), "flat": 1e-3, "num_null": 20, "rng": rng}
    refused = outlier_counts(nodes_RK, weights_RK, **asked)
    assert isinstance(refused, Refused) and "needs more Lanczos steps" in str(refused)
    found = re.search(r"stand for (\d+) eigenvalues", str(refused))
    assert found and int(found[1]) == pytest.approx(300, abs=4 * math.sqrt(2 * 300))
    record = Lanczos(nodes_RK=nodes_RK, weights_RK=weights_RK, dim=len(value_P), operator="ggn")
    assert isinstance(ggn_density(record, rng=_rng()).values["outlier_count"], Refused)
    values = ggn_poles(record, rng=_rng()).values
    assert all(isinstance(values[f"isolated_{of}"], Refused) for of in ("poles", "residue"))
    assert isinstance(values["leading_residue"], Estimate)


def test_gaps_of_constant_nodes() -> None:
    gaps, counts = relative_gaps(np.ones(4), np.full(4, 0.25))
    assert len(gaps) == len(counts) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"operator": "ggn"}, "operator: got 'ggn', allowed 'hessian'"),
        ({"nodes_RK": np.where(NODES_RK > 1, np.inf, NODES_RK)}, "not finite"),
        ({"weights_RK": 2 * WEIGHTS_RK}, "no probabilities"),
        ({"nodes_RK": 0 * NODES_RK}, "vanishes"),
    ],
)
def test_refusals(change: dict[str, object], text: str) -> None:
    with pytest.raises(Refused, match=text):
        hessian_density(dataclasses.replace(RECORD, **change), rng=_rng())


def test_refused_quantities() -> None:
    values = hessian_density(dataclasses.replace(RECORD, weight_norm=None), rng=_rng()).values
    assert isinstance(values["scaled_sharpness"], Refused)
    negative = dataclasses.replace(RECORD, nodes_RK=NODES_RK - 10)
    assert isinstance(hessian_density(negative, rng=_rng()).values["lambda_max"], Refused)
    with pytest.raises(Refused, match="allowed 'ggn'"):
        ggn_density(RECORD, rng=_rng())


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="flat: got 1.0"):
        hessian_density(RECORD, rng=_rng(), flat=1.0)
    with pytest.raises(ValueError, match="num_null: got 0"):
        hessian_density(RECORD, rng=_rng(), num_null=0)


@pytest.mark.parametrize("nodes_RK", [[[-1, -0.5, 0.0]] * 2, [[-1, 0, 0], [-1, 0, 2]]])
def test_no_ratio_to_a_largest_node_that_is_not_above_zero(nodes_RK: list[list[float]]) -> None:
    moved = dataclasses.replace(RECORD, nodes_RK=np.array(nodes_RK, dtype=float))
    values = hessian_density(moved, rng=_rng()).values
    assert str(values["lambda_ratio"]) == "lambda_ratio: a probe has no node above zero"
    assert isinstance(values["mean_square"], Estimate)


def test_a_probe_of_zeros() -> None:
    half = dataclasses.replace(RECORD, nodes_RK=np.array([[0.0, 0, 0], [0, 1, 2]]))
    values = hessian_density(half, rng=_rng()).values
    for quantity in ("trace", "effective_rank", "spectral_entropy"):
        assert str(values[quantity]) == "nodes_RK: a probe sees zeros only"
    assert isinstance(values["lambda_ratio"], Refused)
    for quantity in ("lambda_max", "mean_square", "flat_fraction", "outlier_count"):
        assert isinstance(values[quantity], Estimate)
