"""Behaviour of spanning trees, growing sets and landmarks."""

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree as reference_tree
from scipy.spatial.distance import cdist, pdist, squareform

from scaleinv_ray.invariants.topology.landmarks import farthest_points
from scaleinv_ray.invariants.topology.merge_heights import (
    length_slope,
    merge_heights,
    minimum_spanning_tree,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_points=st.integers(2, 60),
    width=st.integers(1, 40),
    exponent=st.integers(-200, 200),
    clusters=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_heights_are_exact(
    seed: int, num_points: int, width: int, exponent: int, clusters: float
) -> None:
    # Clusters 1e4 apart lie below the resolution of float32 products.
    rng = np.random.default_rng(seed)
    x_PD = rng.normal(size=(num_points, width))
    x_PD += clusters * rng.integers(0, 3, size=(num_points, 1))
    expected = np.sort(reference_tree(squareform(pdist(x_PD))).data)
    found = merge_heights(np.ldexp(x_PD, exponent))
    assert found == pytest.approx(np.ldexp(expected, exponent), rel=1e-12)


def test_tree_spans_and_its_edges_have_their_lengths() -> None:
    x_PD = np.random.default_rng(0).normal(size=(80, 5))
    tree = minimum_spanning_tree(x_PD)
    attached = {0}
    for (inside, outside), length in zip(tree.edge_E2.tolist(), tree.length_E, strict=True):
        assert inside in attached
        assert outside not in attached
        assert length == pytest.approx(np.linalg.norm(x_PD[inside] - x_PD[outside]))
        attached.add(outside)
    assert attached == set(range(80))


def test_ties_and_duplicates() -> None:
    x_PD = np.repeat(np.eye(6), 3, axis=0)
    assert merge_heights(x_PD) == pytest.approx([0] * 12 + [np.sqrt(2)] * 5)
    assert merge_heights(np.ones((1, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("x_PD", "text"),
    [
        (np.full((3, 2), np.nan), "not finite"),
        (np.zeros(3), r"got shape \(3,\)"),
        (np.zeros((0, 3)), r"got shape \(0, 3\)"),
    ],
)
def test_no_points(x_PD: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        merge_heights(x_PD)


@pytest.mark.parametrize(("num_points", "num_sizes"), [(64, 1), (7, 3)])
def test_sizes_out_of_range(num_points: int, num_sizes: int) -> None:
    with pytest.raises(ValueError, match=f"num_sizes: got {num_sizes}"):
        length_slope(np.eye(num_points), power=1.0, num_sizes=num_sizes)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 20), count=st.integers(1, 50))
def test_landmarks_cover(seed: int, width: int, count: int) -> None:
    x_PD = np.random.default_rng(seed).normal(size=(50, width))
    found = farthest_points(x_PD, count=count, start=7)
    distance_PL = cdist(x_PD, x_PD[found.index_L])
    assert found.index_L[0] == 7
    assert len(set(found.index_L.tolist())) == count
    assert found.cover_radius == pytest.approx(distance_PL.min(axis=1).max(), rel=1e-12)
    expected = gudhi.subsampling.choose_n_farthest_points(
        points=x_PD, nb_points=count, starting_point=7
    )
    assert x_PD[found.index_L] == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"count": 0}, r"count: got 0, allowed 1\.\.5"),
        ({"count": 6}, r"count: got 6, allowed 1\.\.5"),
        ({"count": 2, "start": 5}, r"start: got 5, allowed 0\.\.4"),
    ],
)
def test_landmarks_out_of_range(parameters: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        farthest_points(np.eye(5), **parameters)
