"""Replicates over blocks of sequences."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.kernels.block_replicates import (
    alive_in_replicates,
    block_covariances,
    curve_of,
    estimate_of,
    living_units,
    replicates,
    sequence_parts,
)


def test_covariances_are_those_of_the_rows_kept() -> None:
    x_TN = np.random.default_rng(0).exponential(size=(90, 4)) + 100
    rows_B = [np.arange(0, 20), np.arange(20, 55), np.arange(60, 90)]
    found = block_covariances(x_TN, rows_B)
    for keep, covariance in zip(replicates(3), found, strict=True):
        rows = np.concatenate([rows_B[b] for b in keep])
        np.testing.assert_allclose(covariance, np.cov(x_TN[rows].T, ddof=0), rtol=1e-9)


def test_one_block_is_one_replicate_of_unknown_error() -> None:
    assert replicates(1) == [[0]]
    estimate = estimate_of(np.array([2.5]), n=7)
    assert (estimate.value, estimate.stderr, estimate.n) == (2.5, None, 7)
    assert curve_of(np.arange(2), np.ones((1, 2))).y_stderr is None


def test_jackknife_error_of_a_mean_is_the_standard_error() -> None:
    blocks = np.array([1.0, 2.0, 4.0, 9.0])
    result_R = np.array([blocks[keep].mean() for keep in replicates(4)])
    estimate = estimate_of(result_R, n=4)
    assert estimate.value == 4.0
    assert estimate.stderr == pytest.approx(blocks.std(ddof=1) / 2)
    curve = curve_of(np.array([1.0]), result_R[:, None])
    assert curve.y_stderr[0] == pytest.approx(estimate.stderr)


def test_living_units_vary_in_two_blocks_and_come_by_variance() -> None:
    x_TN = np.random.default_rng(1).standard_normal((40, 8)) * np.arange(8, 0, -1)
    x_TN[10:, 3] = 0.0  # varies in the first of four blocks only
    rows_B = np.array_split(np.arange(40), 4)
    alive_N = alive_in_replicates(x_TN, rows_B)
    assert np.flatnonzero(~alive_N).tolist() == [3]
    unit_N = living_units(x_TN.var(axis=0), alive_N)
    assert sorted(unit_N.tolist()) == [0, 1, 2, 4, 5, 6, 7]
    assert (np.diff(x_TN.var(axis=0)[unit_N]) > 0).all()
    with pytest.raises(Refused, match="units that vary: got 5 of 8, needs 75%"):
        living_units(x_TN.var(axis=0), np.arange(8) < 5)


def test_parts_are_disjoint_and_complete_in_every_block() -> None:
    rank_T = np.repeat(np.arange(12), 3)
    rows_B = np.array_split(np.arange(36), 3)
    parts = sequence_parts(rows_B, rank_T, 4)
    for b, rows in enumerate(rows_B):
        together = np.concatenate([part[b] for part in parts])
        assert sorted(together.tolist()) == rows.tolist()
        assert all(len(part[b]) == 3 for part in parts)  # one sequence of each block
