"""Pairs of clouds whose overlap, correlation and distance are known."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist
from scipy.stats import hypergeom, spearmanr

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.geometry import merge_height_correlation, neighbour_overlap
from scaleinv_ray.invariants.topology.distances import diagram_distance
from scaleinv_ray.invariants.topology.merge_heights import minimum_spanning_tree
from scaleinv_ray.records import Activations


def cloud_of(x_TD: np.ndarray) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud")


def similar(x_TD: np.ndarray, rng: np.random.Generator, width: int = 20) -> np.ndarray:
    """The cloud turned into a wider space, scaled and shifted."""
    frame, _ = np.linalg.qr(rng.normal(size=(width, x_TD.shape[1])))
    return 40 * x_TD @ frame.T + 3


def test_equal_clouds_share_everything() -> None:
    rng = np.random.default_rng(0)
    x_TD = rng.normal(size=(400, 8))
    pair = cloud_of(x_TD), cloud_of(similar(x_TD, rng))
    size = {"num_points": 100, "num_subsamples": 4}
    overlap = neighbour_overlap(*pair, rng=rng, **size).values["neighbour_overlap"]
    assert (overlap.value, overlap.stderr) == (1, 0)
    heights = merge_height_correlation(*pair, rng=rng, **size).values["merge_height_correlation"]
    assert heights.value == pytest.approx(1, abs=1e-12)
    for name, distance in diagram_distance(*pair, rng=rng, **size).values.items():
        if name.endswith("_floor"):
            assert distance.value > 1e-3
        else:
            assert distance.value == pytest.approx(0, abs=1e-12)


def test_independent_clouds_share_what_permuted_rows_share() -> None:
    rng = np.random.default_rng(1)
    pair = cloud_of(rng.normal(size=(2000, 6))), cloud_of(rng.normal(size=(2000, 9)))
    found = neighbour_overlap(*pair, rng=rng, num_points=200, num_subsamples=10)
    assert found.flags["expected_permuted"] == 30 / 199
    # A point's count is hypergeometric; over points counts are dependent, hence twice the error.
    stderr = hypergeom(199, 30, 30).std() / 30 / np.sqrt(2000)
    for value in found.values.values():
        assert value.value == pytest.approx(30 / 199, abs=2 * 4 * stderr)
    found = merge_height_correlation(*pair, rng=rng, num_points=200, num_subsamples=10)
    for value in found.values.values():
        assert value.stderr < 0.05
        assert value.value == pytest.approx(0, abs=4 * value.stderr)


def test_overlap_counts_neighbours_by_hand() -> None:
    # On a line in steps that grow, the two nearest of i are i-1, i-2 (and 1, 2 of 0; 0, 2 of 1).
    # With the ends exchanged three points keep both neighbours or one.
    x_TD = np.array([1.0, 2.1, 4.3, 8.9, 18.0, 37.0])[:, None]
    y_TD = x_TD[[5, 1, 2, 3, 4, 0]]
    near = [{1, 2}, {0, 2}, {0, 1}, {1, 2}, {2, 3}, {3, 4}]
    swapped = {0: 5, 5: 0}
    moved = [{swapped.get(j, j) for j in near[swapped.get(i, i)]} for i in range(6)]
    shared = sum(len(a & b) for a, b in zip(near, moved, strict=True))
    found = neighbour_overlap(
        cloud_of(x_TD), cloud_of(y_TD), rng=np.random.default_rng(2),
        num_points=6, num_subsamples=1, num_neighbours=2,
    )  # fmt: skip
    assert found.values["neighbour_overlap"].value == pytest.approx(shared / 12)
    assert 0 < shared < 12


def test_overlap_falls_with_noise_between_the_floor_and_one() -> None:
    rng = np.random.default_rng(3)
    x_TD = rng.normal(size=(1000, 10))
    found = []
    for noise in (0.1, 0.5, 2.0):
        other = cloud_of(x_TD + noise * rng.normal(size=x_TD.shape))
        both = [
            invariant(cloud_of(x_TD), other, rng=rng, num_points=250, num_subsamples=4)
            for invariant in (neighbour_overlap, merge_height_correlation)
        ]
        found.append([next(iter(m.values.values())).value for m in both])
    for falling in np.array(found).T:
        assert 1 > falling[0] > falling[1] > falling[2] > 0


def test_merge_height_is_the_longest_edge_on_the_way() -> None:
    rng = np.random.default_rng(4)
    x_PD, y_PD = rng.normal(size=(60, 3)), rng.normal(size=(60, 5))
    heights = []
    for points_PD in (x_PD, y_PD):
        tree = minimum_spanning_tree(points_PD)
        height_PP = np.zeros((60, 60))
        reached = [int(tree.edge_E2[0, 0])]
        for (at, new), length in zip(tree.edge_E2, tree.length_E, strict=True):
            height_PP[reached, new] = height_PP[new, reached] = np.maximum(
                height_PP[at, reached], length
            )
            reached.append(int(new))
        assert height_PP[np.triu_indices(60, 1)] == pytest.approx(
            cophenet(linkage(pdist(points_PD), method="single")), rel=1e-9
        )
        # Equal heights are one number here, and again below, so that ties are ties.
        heights.append(height_PP[np.triu_indices(60, 1)].round(12))
    found = merge_height_correlation(
        cloud_of(x_PD), cloud_of(y_PD), rng=rng, num_points=60, num_subsamples=1
    )
    expected = spearmanr(*heights).statistic
    assert found.values["merge_height_correlation"].value == pytest.approx(expected, abs=1e-12)


def test_heights_do_not_move_under_a_monotone_distortion() -> None:
    # On a line single linkage sees the gaps alone; these are squared.
    rng = np.random.default_rng(5)
    gap_T = rng.permutation(np.geomspace(1, 30, 80))
    pair = cloud_of(np.cumsum(gap_T)[:, None]), cloud_of(np.cumsum(gap_T**2)[:, None])
    found = merge_height_correlation(*pair, rng=rng, num_points=80, num_subsamples=1)
    # The first row is no gap's neighbour, its loss to near-duplicates would change the gaps.
    assert found.flags["distinct_rows"] == 80
    assert found.values["merge_height_correlation"].value == pytest.approx(1, abs=1e-12)


def rectangle(width: float) -> np.ndarray:
    return np.array([[0.0, 0.0], [width, 0.0], [width, 1.0], [0.0, 1.0]])


def test_distance_of_two_rectangles() -> None:
    pair = cloud_of(rectangle(1.0)), cloud_of(rectangle(2.0))
    found = diagram_distance(*pair, rng=np.random.default_rng(6), num_points=4, num_subsamples=9)
    # Over their median sides, 1 and 2: deaths (1, 1, 1) and (.5, .5, 1); loops (1, sqrt 2) and
    # (1, sqrt 5 / 2), for which the diagonal is nearer than the other.
    halves = (np.sqrt(2) - 1) / 2, (np.sqrt(5) / 2 - 1) / 2
    expected = {
        "bottleneck_0": 0.5,
        "wasserstein_0": 2 * 0.5 / 4,
        "bottleneck_1": halves[0],
        "wasserstein_1": sum(halves) / 4,
    }
    for name, value in expected.items():
        assert found.values[name].value == pytest.approx(value, abs=1e-12), name
        assert found.values[name].stderr is None
        assert isinstance(found.values[f"{name}_floor"], Refused)


def test_a_circle_is_told_from_noise_and_not_from_a_circle() -> None:
    rng = np.random.default_rng(7)

    def circle() -> np.ndarray:
        angle = 2 * np.pi * rng.random(600)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    first, second, noise = circle(), circle(), rng.normal(size=(600, 2))
    size = {"num_points": 60, "num_subsamples": 8}
    same = diagram_distance(cloud_of(first), cloud_of(second), rng=rng, **size)
    other = diagram_distance(cloud_of(first), cloud_of(noise), rng=rng, **size)
    for measured, far in ((same, False), (other, True)):
        value, floor = (measured.values[n].value for n in ("bottleneck_1", "bottleneck_1_floor"))
        # Independent draws of one shape are at the floor by definition.
        assert (value > 2 * floor) == far
    # The loop of the circle ends at sqrt 3 over the median chord sqrt 2; it has no partner, hence
    # half of its length, less the gap between points at which it is born.
    assert 0.5 < other.values["bottleneck_1"].value / (np.sqrt(3 / 2) / 2) < 1
