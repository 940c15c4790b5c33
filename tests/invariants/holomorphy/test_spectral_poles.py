"""Behaviour of the resamples of spectra."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy.rational import BranchPoints, Isolated
from scaleinv_ray.invariants.holomorphy.spectral_poles import (
    SpectralPoles,
    pole_values,
    turned_resamples,
)


def test_turned_resamples_are_the_matrix_without_a_block() -> None:
    w = np.random.default_rng(0).standard_normal((6, 30))
    lambda_M = np.linalg.eigvalsh(w @ w.T)
    found = turned_resamples(lambda_M, 30, 10, rng=np.random.default_rng(1))
    assert len(found) == 10
    # the blocks' parts add up to the whole: sum_b (1 - V_b^T V_b) = B - 1
    total = sum(other_M.sum() * 27 / 30 for other_M in found)
    assert total == pytest.approx(9 * lambda_M.sum())
    for other_M in found:
        assert (other_M * 27 / 30 <= lambda_M * (1 + 1e-12)).all()  # interlacing


def test_turned_resamples_spread_as_fresh_gaussian_matrices_do() -> None:
    # jackknife error of a linear statistic against its spread over matrices
    def statistic(lambda_M: np.ndarray) -> float:
        return float(lambda_M.mean())

    values, errors = [], []
    for seed in range(60):
        w = np.random.default_rng(seed).standard_normal((10, 60))
        lambda_M = np.linalg.eigvalsh(w @ w.T / 60)
        left_out = [
            statistic(other_M)
            for other_M in turned_resamples(lambda_M, 60, 10, rng=np.random.default_rng(99 + seed))
        ]
        values.append(statistic(lambda_M))
        errors.append(9 / 10 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def found(num_with_edge: int) -> SpectralPoles:
    edges_B = [BranchPoints(None, 2.0 + 0.1 * b) for b in range(num_with_edge)]
    edges_B += [BranchPoints(None, None)] * (10 - num_with_edge)
    isolated = Isolated(np.array([6.0]), np.array([1.0]), np.full((10, 1), 6.0), -1.0, 5, 0, True)
    return SpectralPoles(isolated, BranchPoints(None, 2.5), edges_B)


def test_an_edge_may_be_missing_from_one_resample_in_ten() -> None:
    values = pole_values(found(9))
    edge = values["edge_upper"]
    assert isinstance(edge, Estimate)
    assert edge.value == 2.5
    assert edge.n == 9
    assert isinstance(values["leading_over_edge"], Estimate)
    fewer = pole_values(found(8))
    assert isinstance(fewer["edge_upper"], Refused)
    assert isinstance(fewer["leading_over_edge"], Refused)
    assert isinstance(fewer["edge_lower"], Refused)
    assert str(fewer["edge_lower"]) == "no lower edge, or in 0 of 10 resamples only"
