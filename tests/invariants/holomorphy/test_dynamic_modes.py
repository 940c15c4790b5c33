"""Behaviour of the fit over depth: sums, subspace, held-out errors."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.holomorphy.dynamic_modes import (
    depth_blocks,
    depth_sums,
    fit_modes,
    held_out_modes,
    squared_errors,
)
from scaleinv_ray.records import DepthStack


def rows(seed: int, *, depth: int = 4, count: int = 60, width: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((depth, count, width)) * np.linspace(1, 2, width)


def test_fit_is_least_squares_of_centred_rows() -> None:
    x_LTD = rows(0) + 3.0
    centred = x_LTD - x_LTD.mean(axis=1, keepdims=True)
    before, after = centred[:-1].reshape(-1, 5), centred[1:].reshape(-1, 5)
    expected = np.linalg.lstsq(before, after, rcond=None)[0].T
    modes = fit_modes([depth_sums(x_LTD)], rank=5)
    operator = modes.basis_DR @ modes.operator_RR @ modes.basis_DR.T
    np.testing.assert_allclose(operator, expected, atol=1e-10)
    assert modes.energy == pytest.approx(1)


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    x_LTD = rows(1)
    whole = fit_modes([depth_sums(x_LTD)], rank=3)
    parts = fit_modes([depth_sums(x_LTD[:, :20]), depth_sums(x_LTD[:, 20:])], rank=3)
    np.testing.assert_allclose(abs(parts.eigenvalue_R), abs(whole.eigenvalue_R))
    np.testing.assert_allclose(parts.mean_LD, whole.mean_LD)


def test_modes_come_by_descending_modulus() -> None:
    modulus_R = abs(fit_modes([depth_sums(rows(2))], rank=5).eigenvalue_R)
    assert (np.diff(modulus_R) <= 0).all()


def test_own_rows_are_predicted_better_than_by_the_identity() -> None:
    x_LTD = rows(3)
    own, identity, total = squared_errors(fit_modes([depth_sums(x_LTD)], rank=5), x_LTD)
    assert own < total < identity  # independent depths: the identity doubles the variance


def test_held_out_rows_of_independent_depths_are_not_predicted() -> None:
    blocks = [rows(seed, count=400) for seed in range(4)]
    found = held_out_modes(blocks, rank=5)
    assert set(found) == {(0, 1, 2, 3), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)}
    whole = found[0, 1, 2, 3]
    assert whole.error == pytest.approx(1, abs=0.02)
    assert whole.identity_error == pytest.approx(np.sqrt(2), abs=0.05)


def test_too_high_a_rank_is_refused() -> None:
    flat = rows(4)
    flat[..., 2:] = 0
    with pytest.raises(Refused, match="rank: got 3, the rows span"):
        fit_modes([depth_sums(flat)], rank=3)


def test_blocks_are_whole_sequences_about_a_common_mean() -> None:
    x_LTD = rows(5, count=120) + 1e6
    stack = DepthStack(x_LTD=x_LTD, sequence_T=np.repeat(np.arange(60), 2))
    blocks = depth_blocks(stack, num_blocks=8, rank=1)
    assert all(block.shape[1] % 2 == 0 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks, axis=1).mean(axis=1), 0, atol=1e-9)
    low = DepthStack(x_LTD=x_LTD.astype(np.float32), sequence_T=stack.sequence_T)
    assert depth_blocks(low, num_blocks=8, rank=1)[0].dtype == np.float64
