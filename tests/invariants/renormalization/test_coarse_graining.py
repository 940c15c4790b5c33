"""Pairing and summing on stacks of matrices."""

import numpy as np
import pytest

from scaleinv_ray.invariants.renormalization.coarse_graining import (
    correlation,
    greedy_pairs,
    hierarchy,
    within,
)


def covariances(seed: int, count: int, size: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, 3 * size, size))
    c = x.transpose(0, 2, 1) @ x
    return (c + c.transpose(0, 2, 1)) / 2


def walk(similarity: np.ndarray) -> set[frozenset[int]]:
    """Pairs of a walk through all pairs in order of falling similarity."""
    free, pairs = set(range(len(similarity))), set()
    rows, columns = np.triu_indices(len(similarity), 1)
    for k in np.argsort(-similarity[rows, columns], kind="stable"):
        pair = {int(rows[k]), int(columns[k])}
        if pair <= free:
            free -= pair
            pairs.add(frozenset(pair))
    return pairs


@pytest.mark.parametrize("size", [2, 7, 40])
def test_pairs_are_those_of_the_walk_through_all_pairs(size: int) -> None:
    similarity = np.random.default_rng(size).standard_normal((5, size, size))
    similarity += similarity.transpose(0, 2, 1)
    for found, matrix in zip(greedy_pairs(similarity), similarity, strict=True):
        assert {frozenset(pair) for pair in found.tolist()} == walk(matrix)


def test_ties_go_to_the_lower_index_and_no_unit_twice() -> None:
    pairs = greedy_pairs(np.ones((2, 9, 9)))
    assert pairs.tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7]]] * 2
    whole = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(float)
    whole = np.maximum(whole, whole.T)
    assert {frozenset(pair) for pair in greedy_pairs(whole[None])[0].tolist()} == walk(whole)


def test_one_unit_has_no_partner() -> None:
    assert greedy_pairs(np.ones((3, 1, 1))).shape == (3, 0, 2)


def test_a_matrix_that_is_not_symmetric_is_told() -> None:
    circle = np.array([[0.0, 2, 1], [1, 0, 2], [2, 1, 0]])  # each prefers the next
    with pytest.raises(ValueError, match="not symmetric"):
        greedy_pairs(circle[None])


def test_a_stack_gives_what_its_matrices_give() -> None:
    stack = covariances(0, 4, 32)
    together = hierarchy(stack, largest=8)
    for r, matrix in enumerate(stack):
        alone = hierarchy(matrix[None], largest=8)
        np.testing.assert_array_equal(alone.variance_RK[0], together.variance_RK[r])
        for one, other in zip(alone.clusters, together.clusters, strict=True):
            np.testing.assert_array_equal(one[0], other[r])


@pytest.mark.parametrize("size", [32, 37])
def test_variances_are_those_of_the_sums_over_clusters(size: int) -> None:
    stack = covariances(1, 2, size)
    levels = hierarchy(stack, largest=8)
    assert [c.shape for c in levels.clusters] == [(2, size >> k, 2**k) for k in range(4)]
    for variance_R, cluster in zip(levels.variance_RK.T, levels.clusters, strict=True):
        blocks = within(stack, cluster).sum(axis=(2, 3)).mean(axis=1)
        np.testing.assert_allclose(variance_R, blocks, rtol=1e-12)
        assert all(len(set(c.ravel().tolist())) == c.size for c in cluster)


def test_halves_of_clusters_are_the_clusters_before() -> None:
    levels = hierarchy(covariances(2, 1, 32), largest=8).clusters
    for fine, coarse in zip(levels[:-1], levels[1:], strict=True):
        halves = coarse.reshape(-1, fine.shape[2])
        assert {tuple(h) for h in halves.tolist()} <= {tuple(c) for c in fine[0].tolist()}


def test_copies_up_to_rounding_are_paired() -> None:
    # many ties, which the order of additions must not turn into a circle of preferences
    x = np.random.default_rng(3).standard_normal((200, 4))
    units = np.repeat(x, 16, axis=1) * np.random.default_rng(4).uniform(0.1, 3, 64)
    covariance = units.T @ units
    clusters = hierarchy(covariance[None], largest=16).clusters[-1]
    assert {frozenset(c) for c in (clusters[0] // 16).tolist()} == {
        frozenset([k]) for k in range(4)
    }


def test_correlation_is_symmetric_to_the_last_bit() -> None:
    found = correlation(covariances(5, 3, 20))
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2), 1)
