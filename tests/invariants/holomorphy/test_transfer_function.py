"""Behaviour of the residues between two vectors."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.holomorphy.transfer_function import logit_medians, logit_poles

A = np.diag([1.0, 2.0, 4.0])


def test_shares_lie_between_one_pole_and_all() -> None:
    u_VD = np.array([[1.0, 0, 0], [1.0, 1.0, 1.0]])
    found = logit_poles(A, u_VD, np.ones(3))
    np.testing.assert_allclose(found.participation_V, [1 / 3, 1])
    np.testing.assert_allclose(found.share_V, [1, 1 / 3])


def test_only_the_direction_of_both_ends_counts() -> None:
    u_VD, v_D = np.random.default_rng(0).standard_normal((4, 3)), np.array([1.0, -2.0, 0.5])
    own, other = logit_poles(A, u_VD, v_D), logit_poles(A, 7 * u_VD, -3 * v_D)
    for name in ("participation_V", "share_V", "ratio_V", "pole_V"):
        np.testing.assert_allclose(getattr(own, name), getattr(other, name))


def test_medians_are_over_the_readers() -> None:
    medians = logit_medians(A, np.eye(3)[[0, 1, 2, 2, 2]], np.ones(3))
    assert medians["leading_real"] == 4
    assert medians["leading_distance"] == 3
    assert medians["leading_distance_scaled"] == pytest.approx(3 / np.sqrt(10 / 3))


def test_identity_has_no_scaled_distance() -> None:
    medians = logit_medians(np.eye(2), np.ones((1, 2)), np.ones(2))
    assert medians["leading_distance"] == 0
    assert medians["leading_distance_scaled"] == np.inf


def test_a_reader_of_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="all vanish"):
        logit_poles(A, np.array([[1.0, 0, 0], [0, 0, 0]]), np.ones(3))
