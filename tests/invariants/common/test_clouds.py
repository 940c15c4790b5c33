"""Clouds of points: neighbours, duplicates, and the rows that two models share."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.clouds import (
    MatchedSubsamples,
    centred_rows,
    distinct_rows,
    matched_rows,
    matched_subsamples,
    neighbour_distances,
    neighbour_indices,
)
from scaleinv_ray.records import Activations


def cloud_of(
    x_TD: np.ndarray, ids: np.ndarray | None = None, *, removes_mean: bool = False
) -> Activations:
    return Activations(
        x_TD=x_TD,
        sequence_T=np.arange(len(x_TD)) if ids is None else ids,
        position_T=np.full(len(x_TD), 20),
        sampling="cloud",
        removes_mean=removes_mean,
    )


def subsamples(
    cloud: Activations, other: Activations, *, num_points: int = 10, num_subsamples: int = 3
) -> MatchedSubsamples:
    rng = np.random.default_rng(0)
    return matched_subsamples(
        cloud, other, rng=rng, num_points=num_points, num_subsamples=num_subsamples
    )


def test_neighbours_are_those_of_a_tree() -> None:
    x_PD = np.random.default_rng(0).normal(size=(1100, 3))  # more than two blocks
    expected, _ = cKDTree(x_PD).query(x_PD, k=11)
    found = neighbour_distances(x_PD - x_PD.mean(axis=0), num_neighbours=10)
    assert found == pytest.approx(expected[:, 1:], rel=1e-9)


@pytest.mark.parametrize("num_neighbours", [0, 5])
def test_too_many_neighbours(num_neighbours: int) -> None:
    with pytest.raises(ValueError, match=rf"num_neighbours: got {num_neighbours}, allowed 1\.\.4"):
        neighbour_distances(np.eye(5), num_neighbours=num_neighbours)


def test_the_first_of_each_group_stays() -> None:
    rng = np.random.default_rng(3)
    x_TD = rng.normal(size=(40, 6))
    nearest, _ = cKDTree(x_TD).query(x_TD, k=2)
    near = 0.02 * np.median(nearest[:, 1]) / np.sqrt(6)
    order = np.concatenate([np.arange(40), [3, 3, 7, 11]])
    moved = x_TD[order]
    moved[42:] += near * np.sign(rng.normal(size=(2, 6)))
    found = distinct_rows(cloud_of(moved))
    assert found.duplicates == pytest.approx(2 / 44)
    assert found.near_duplicates == pytest.approx(2 / 44)
    assert np.array_equal(found.x_TD, centred_rows(cloud_of(moved))[:40])


def test_duplicates_in_the_majority() -> None:
    # The median nearest-neighbour distance over all rows would be 0.
    x_TD = np.repeat(np.random.default_rng(4).normal(size=(30, 6)), 5, axis=0)
    found = distinct_rows(cloud_of(x_TD))
    assert (len(found.x_TD), found.near_duplicates) == (30, 0)
    assert found.duplicates == pytest.approx(0.8)


@pytest.mark.parametrize("num_rows", [1, 600])
def test_equal_rows_leave_one(num_rows: int) -> None:
    assert len(distinct_rows(cloud_of(np.full((num_rows, 3), 2.5))).x_TD) == 1


def test_layer_norm_removes_the_mean_over_units() -> None:
    found = centred_rows(
        cloud_of(np.random.default_rng(5).normal(size=(20, 4)) + 7, removes_mean=True)
    )
    assert found.sum(axis=1) == pytest.approx(np.zeros(20), abs=1e-14)
    assert found.sum(axis=0) == pytest.approx(np.zeros(4), abs=1e-13)


def test_not_a_matrix() -> None:
    with pytest.raises(ValueError, match="x_TD: got shape"):
        centred_rows(cloud_of(np.arange(3.0)))


def test_neighbour_indices_are_those_of_a_tree() -> None:
    x_PD = np.random.default_rng(0).normal(size=(700, 3))
    _, expected = cKDTree(x_PD).query(x_PD, k=8)
    found = neighbour_indices(x_PD - x_PD.mean(axis=0), num_neighbours=7)
    np.testing.assert_array_equal(np.sort(found), np.sort(expected[:, 1:]))


def test_rows_kept_are_named() -> None:
    x_TD = np.random.default_rng(6).normal(size=(12, 5))[[0, 1, 0, 2, 3, 1, 4, 5]]
    found = distinct_rows(cloud_of(x_TD))
    assert found.kept_T.tolist() == [0, 1, 3, 4, 6, 7]
    assert np.array_equal(found.x_TD, centred_rows(cloud_of(x_TD))[found.kept_T])


def test_directions_have_unit_norm_and_no_copies_along_a_ray() -> None:
    x_TD = np.random.default_rng(7).normal(size=(20, 4))
    x_TD = np.concatenate([x_TD, 2 * x_TD, -3 * x_TD, np.zeros((1, 4))])
    rows = centred_rows(cloud_of(x_TD), unit_norm=True)
    assert np.linalg.norm(rows[:-1], axis=1) == pytest.approx(np.ones(60))
    symmetric = np.concatenate([x_TD, -x_TD])  # mean 0, so that rays stay rays
    found = distinct_rows(cloud_of(symmetric), unit_norm=True)
    # x and -x of 20 rays, and the row without direction.
    assert (len(found.x_TD), found.duplicates) == (41, pytest.approx(1 - 41 / 122))
    assert np.linalg.norm(found.x_TD[-1]) == 0


def test_rows_are_matched_by_sequence() -> None:
    x_TD = np.random.default_rng(8).normal(size=(40, 3))
    ids = np.random.default_rng(9).permutation(40)
    other = cloud_of(x_TD[ids[:35]], ids[:35])
    found = subsamples(cloud_of(x_TD), other)
    assert found.flags() == {"matched_rows": 35, "distinct_rows": 35}
    assert len(found.pairs) == 3
    for first_PD, second_PD in found.pairs:
        assert first_PD == pytest.approx(second_PD, abs=1e-15)
    rows = np.concatenate([first_PD for first_PD, _ in found.pairs])
    assert len(np.unique(rows, axis=0)) == 30


def test_a_sequence_has_to_be_distinct_in_both() -> None:
    rng = np.random.default_rng(10)
    x_TD, y_TD = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    x_TD[7], y_TD[21] = x_TD[3], y_TD[20]
    found = subsamples(cloud_of(x_TD), cloud_of(y_TD), num_points=28, num_subsamples=1)
    assert (found.matched, found.distinct) == (30, 28)
    kept = np.setdiff1d(np.arange(30), [7, 21])
    for side, a_TD in zip(found.pairs[0], (x_TD, y_TD), strict=True):
        assert np.array_equal(side, centred_rows(cloud_of(a_TD))[kept])


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(11)
    x_TD, y_TD, order = rng.normal(size=(30, 4)), rng.normal(size=(30, 6)), rng.permutation(30)
    y_TD[21] = y_TD[20]
    before = subsamples(cloud_of(x_TD), cloud_of(y_TD))
    after = subsamples(cloud_of(x_TD), cloud_of(y_TD[order], order))
    assert after.flags() == before.flags()
    for pair, moved in zip(before.pairs, after.pairs, strict=True):
        for side, moved_side in zip(pair, moved, strict=True):
            assert moved_side == pytest.approx(side, abs=1e-13)


def test_clouds_that_do_not_match() -> None:
    cloud = cloud_of(np.random.default_rng(12).normal(size=(20, 3)))
    with pytest.raises(Refused, match="no sequence is in both"):
        subsamples(cloud, cloud_of(cloud.x_TD, np.arange(20) + 20))
    with pytest.raises(ValueError, match="sequence_T: got 20 rows of 10 sequences"):
        matched_rows(np.arange(20), np.repeat(np.arange(10), 2))
    elsewhere = Activations(
        x_TD=cloud.x_TD, sequence_T=cloud.sequence_T, position_T=cloud.position_T + 1
    )
    with pytest.raises(Refused, match="at different positions"):
        subsamples(cloud, elsewhere)
    with pytest.raises(Refused, match="got 20 of 20 in both clouds, needs num_points 21"):
        subsamples(cloud, cloud, num_points=21)
    with pytest.raises(ValueError, match="num_subsamples: got 0, allowed >= 1"):
        subsamples(cloud, cloud, num_subsamples=0)
