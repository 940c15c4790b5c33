"""Replicates over blocks of sequences."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.block_replicates import (
    about_row_means,
    alive_in_replicates,
    block_covariances,
    curve_of,
    estimate_of,
    living_units,
    replicates,
    sequence_parts,
    stream_rows,
)
from scaleinv_ray.records import Activations


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


def test_covariance_of_repeated_rows_has_their_rank() -> None:
    rng = np.random.default_rng(2)
    x_TN = rng.standard_normal((6, 20)).astype(np.float32)[rng.integers(0, 6, 3200)]
    found = block_covariances(x_TN, np.array_split(np.arange(3200), 8))
    for covariance in found:
        value_N = np.linalg.eigvalsh(covariance)
        assert np.abs(value_N[:15]).max() < 1e-13 * value_N[-1]  # single precision: 1e-8
        assert value_N[15] > 1e-3 * value_N[-1]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_covariance_neither_vanishes_nor_overflows(scale: float) -> None:
    x_TN = np.random.default_rng(3).standard_normal((80, 3)).astype(np.float32)
    rows_B = np.array_split(np.arange(80), 4)
    expected = block_covariances(x_TN, rows_B) * scale**2
    found = block_covariances(x_TN * np.float32(scale), rows_B)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * scale**2)


def test_unit_that_varies_by_one_rounding_has_a_variance_in_every_replicate() -> None:
    x_TN = np.full((80, 2), 1000.3, dtype=np.float32)
    x_TN[[25, 70]] = np.nextafter(np.float32(1000.3), np.float32(2000))
    x_TN[:20, 1] = -1e6  # far off in the first block, where it is constant
    rows_B = np.array_split(np.arange(80), 4)
    assert alive_in_replicates(x_TN, rows_B).all()
    found = block_covariances(x_TN, rows_B)
    assert (np.diagonal(found, axis1=1, axis2=2) > 0).all()
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))


def test_constant_units_stay_constant_about_the_mean_of_the_others() -> None:
    x_TN = np.random.default_rng(4).standard_normal((40, 6)).astype(np.float32)
    x_TN[:, 1], x_TN[:, 4] = 0.0, 7.0
    x_TN[10:, 5] = 3.0  # varies in one block only
    rows_B = np.array_split(np.arange(40), 4)
    found = about_row_means(x_TN, rows_B)
    assert found.dtype == np.float32
    assert alive_in_replicates(found, rows_B).tolist() == [True, False, True, True, False, False]
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6)
    live = x_TN[:, [0, 2, 3]]
    np.testing.assert_allclose(found[:, [0, 2, 3]], live - live.mean(axis=1)[:, None], atol=1e-6)
    assert (about_row_means(np.ones((8, 3)), [np.arange(8)]) == 0).all()  # nothing varies


@pytest.mark.parametrize(("skip", "used"), [(0, 50), (1, 49.2), (6, 45.3)])
def test_tokens_are_counted_with_some_room_for_skipped_positions(skip: int, used: float) -> None:
    x_TN = np.random.default_rng(5).standard_normal((25 * 64, 32))  # exactly 50 a unit
    stream = Activations(
        x_TD=x_TN, sequence_T=np.repeat(np.arange(25), 64), position_T=np.tile(np.arange(64), 25)
    )
    rows_B = stream_rows(stream, skip_positions=skip, num_blocks=5)[1]
    assert sum(len(rows) for rows in rows_B) / 32 == pytest.approx(used, abs=0.05)
    with pytest.raises(Refused, match="from position 7 on: got 1425/32 = 44.5, allowed >= 45"):
        stream_rows(stream, skip_positions=7, num_blocks=5)


def test_a_replicate_without_rows_is_refused() -> None:
    rows_B = [np.array([0, 1]), np.array([], dtype=int)]
    with pytest.raises(Refused, match=r"rows: got \[2, 0\] in the replicates"):
        alive_in_replicates(np.eye(2), rows_B)
