"""Behaviour of the Rips engine's guard, of order complexes, scores and fields."""

import itertools

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import Diagram, Refused
from scaleinv_ray.invariants.common.persistent_homology import (
    betti_difference,
    edge_densities,
    loop_score,
    median_distance,
    median_scaled_distances,
    num_significant,
    rips_diagram,
    universal_scores,
)


def rotated(x_PD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frame, _ = np.linalg.qr(rng.normal(size=(x_PD.shape[1], x_PD.shape[1])))
    return x_PD @ frame


def spoiled(row: int, column: int, value: float) -> np.ndarray:
    distance_PP = median_scaled_distances(np.random.default_rng(7).normal(size=(12, 3)))
    distance_PP[row, column] = value
    return distance_PP


@pytest.mark.parametrize(
    ("distance_PP", "text"),
    [
        (spoiled(2, 5, np.nan), "not finite"),
        (spoiled(2, 5, np.inf), "not finite"),
        (spoiled(2, 5, -0.1), "got -0.1, allowed entries >= 0"),
        (spoiled(3, 3, 0.1), "non-zero diagonal"),
        (spoiled(2, 5, 9.0), "got asymmetry"),
        (np.zeros((3, 4)), r"got shape \(3, 4\)"),
    ],
)
def test_matrices_that_are_no_distances(distance_PP: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rips_diagram(distance_PP, max_dimension=1)


def test_rounding_asymmetry_changes_nothing() -> None:
    # As a full matrix such input ends in a MemoryError or a wrong diagram.
    rng = np.random.default_rng(8)
    distance_PP = median_scaled_distances(rng.normal(size=(60, 3)))
    skewed = distance_PP * (1 + 1e-14 * rng.normal(size=distance_PP.shape))
    clean, found, turned = (
        rips_diagram(d, max_dimension=1) for d in (distance_PP, skewed, skewed.T)
    )
    assert found.dimension.tolist() == clean.dimension.tolist()
    assert np.sort(found.death) == pytest.approx(np.sort(clean.death), rel=1e-12)
    assert np.array_equal(found.birth, turned.birth)
    assert np.array_equal(found.death, turned.death)


def test_ties_open_no_bars() -> None:
    # Rounding breaks the ties of these distances, and the engine finds bars of length 1e-16.
    rng = np.random.default_rng(1)
    simplex = np.eye(40) - 1 / 40
    half_cube = np.array(list(itertools.product([-0.5, 0.5], repeat=6)))[::2]
    for x_PD, num_bars in ((simplex, [39, 0, 0]), (half_cube, [31, 49, 0])):
        distance_PP = median_scaled_distances(rotated(x_PD, rng))
        diagram = rips_diagram(distance_PP, max_dimension=2)
        assert np.bincount(diagram.dimension, minlength=3).tolist() == num_bars


def diagram_of(*bars: tuple[float, float]) -> Diagram:
    birth, death = np.array(bars).reshape(-1, 2).T
    return Diagram(np.ones(len(birth), dtype=int), birth, death)


def test_memory_bounded_diagrams_are_the_same() -> None:
    distance_PP = median_scaled_distances(np.random.default_rng(0).normal(size=(80, 3)))
    plain, bounded = (
        rips_diagram(distance_PP, max_dimension=1, memory_bounded=b) for b in (False, True)
    )
    for a, b in ((plain.birth, bounded.birth), (plain.death, bounded.death)):
        assert np.sort(a) == pytest.approx(np.sort(b), abs=1e-15)


@pytest.mark.parametrize("field", [2, 3, 5])
def test_fields_agree_with_the_simplex_tree(field: int) -> None:
    x_PD = np.random.default_rng(1).normal(size=(24, 4))
    distance_PP = median_scaled_distances(x_PD - x_PD.mean(axis=0))
    tree = gudhi.RipsComplex(distance_matrix=distance_PP).create_simplex_tree(3)
    tree.compute_persistence(homology_coeff_field=field)
    diagram = rips_diagram(distance_PP, max_dimension=2, field=field)
    for k in (1, 2):
        expected = tree.persistence_intervals_in_dimension(k).reshape(-1, 2)
        found = diagram.dimension == k
        assert np.sort(diagram.death[found]) == pytest.approx(np.sort(expected[:, 1]), abs=1e-12)


def test_median_of_some_rows() -> None:
    x_PD = np.random.default_rng(2).normal(size=(1500, 3))
    whole = median_distance(x_PD, num_points=1500)
    pairs = np.linalg.norm(x_PD[:, None] - x_PD, axis=2)[np.triu_indices(1500, 1)]
    assert whole == pytest.approx(np.median(pairs))
    assert median_distance(x_PD, num_points=800) == median_distance(x_PD[::2])
    assert median_distance(x_PD) == pytest.approx(whole, rel=0.05)
    with pytest.raises(Refused, match="more than half of the distances are 0"):
        median_distance(np.zeros((5, 2)))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(0.1, 8))
def test_monotone_distortions_leave_the_order_complex(seed: int, power: float) -> None:
    x_PD = np.random.default_rng(seed).normal(size=(25, 4))
    distance_PP = np.linalg.norm(x_PD[:, None] - x_PD, axis=2)
    density_PP = edge_densities(distance_PP)
    for distorted in (distance_PP**power, np.log1p(distance_PP), np.arctan(distance_PP)):
        assert np.array_equal(edge_densities(distorted), density_PP)
    assert np.array_equal(np.unique(density_PP), np.arange(301) / 300)


def test_ties_enter_the_order_complex_together() -> None:
    rng = np.random.default_rng(3)
    cube = np.array(list(itertools.product([-0.5, 0.5], repeat=3)))
    density_PP = edge_densities(median_scaled_distances(rotated(cube, rng)))
    assert np.unique(density_PP) == pytest.approx([0, 12 / 28, 24 / 28, 1])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(0.2, 5), scale=st.floats(0.1, 10))
def test_scores_are_universal(seed: int, power: float, scale: float) -> None:
    # Only ln ln (death / birth) up to a constant counts: powers and scales of the distances do not.
    rng = np.random.default_rng(seed)
    birth = rng.random(30) + 0.5
    death = birth * np.exp(rng.exponential(size=30) + 1e-3)
    score = universal_scores(diagram_of(*zip(birth, death, strict=True)), 1)
    assert score.mean() == pytest.approx(-np.euler_gamma)
    moved = diagram_of(*zip(scale * birth**power, scale * death**power, strict=True))
    assert universal_scores(moved, 1) == pytest.approx(score, abs=1e-9)


def test_scores_of_noise_follow_their_law() -> None:
    # exp(-e^l) is uniform: quantiles of 60 clouds, some 8,000 bars, to 4 errors sqrt(p (1-p) / B).
    rng = np.random.default_rng(4)
    scores = []
    for _ in range(60):
        x_PD = rng.normal(size=(150, 8))
        scores.append(universal_scores(rips_diagram(
            median_scaled_distances(x_PD - x_PD.mean(axis=0)), max_dimension=1), 1))  # fmt: skip
    p_B = np.exp(-np.exp(np.concatenate(scores)))
    for level in (0.5, 0.2, 0.05, 0.01):
        assert (p_B < level).mean() < level + 4 * np.sqrt(level * (1 - level) / len(p_B))


def test_holm_counts() -> None:
    p = np.array([0.001, 0.012, 0.02, 0.2, 0.9])  # times 5, 4, 3, 2, 1
    score = np.log(-np.log(p))
    assert num_significant(score, level=0.05) == 2
    assert num_significant(score, level=0.07) == 3
    assert num_significant(np.log(-np.log(p[:2])), level=0.05) == 2
    assert num_significant(np.empty(0), level=0.05) == 0
    assert universal_scores(diagram_of(), 1).shape == (0,)


def test_loop_scores() -> None:
    assert loop_score(diagram_of((1, 5), (1, 2), (0, 0.5)), 1) == pytest.approx(3 / 4)
    assert loop_score(diagram_of((1, 5)), 1) == 1
    assert loop_score(diagram_of(), 1) is None


def test_betti_differences() -> None:
    first = diagram_of((1, 5), (2, 3), (2, 3))
    assert betti_difference(first, first, 1) == (0, 0.0)
    assert betti_difference(first, diagram_of((1, 2)), 1) == (3, 5.0)
    assert betti_difference(diagram_of((1, 2)), first, 1) == (3, 5.0)
    assert betti_difference(diagram_of((1, 2), (2, 3)), diagram_of((1, 3)), 1) == (0, 0.0)
    assert betti_difference(diagram_of(), diagram_of(), 1) == (0, 0.0)
