"""Distances between persistence diagrams: against hera, and what a metric owes."""

import gudhi.hera
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import Diagram
from scaleinv_ray.invariants.topology.diagram_metrics import (
    bars_of,
    bottleneck_distance,
    wasserstein_distance,
)

DISTANCES = [bottleneck_distance, wasserstein_distance]


def random_bars(rng: np.random.Generator, count: int) -> np.ndarray:
    birth_B = rng.random(count)
    return np.stack([birth_B, birth_B + rng.exponential(0.3, count)], axis=1)


@pytest.mark.parametrize("counts", [(1, 1), (5, 40), (120, 90)])
def test_agrees_with_hera(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    first, second = (random_bars(rng, count) for count in counts)
    # Its relative error is delta.
    expected = gudhi.hera.wasserstein_distance(
        first, second, order=1.0, internal_p=np.inf, delta=1e-8
    )
    assert wasserstein_distance(first, second) == pytest.approx(expected, rel=1e-7)
    expected = gudhi.hera.bottleneck_distance(first, second, delta=0.0)
    assert bottleneck_distance(first, second) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), counts=st.tuples(*[st.integers(0, 12)] * 3))
def test_metrics(seed: int, counts: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (random_bars(rng, count) for count in counts)
    for distance in DISTANCES:
        assert distance(a, rng.permutation(a)) == pytest.approx(0, abs=1e-300)
        assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12
        assert distance(3 * a, 3 * b) == pytest.approx(3 * distance(a, b), rel=1e-12)
    assert bottleneck_distance(a, b) <= wasserstein_distance(a, b) + 1e-12
    total = abs((a[:, 1] - a[:, 0]).sum() - (b[:, 1] - b[:, 0]).sum())
    assert total <= 2 * wasserstein_distance(a, b) + 1e-12


def test_without_bars_everything_goes_to_the_diagonal() -> None:
    bars, none = np.array([[1.0, 2.0], [0.0, 0.5]]), np.empty((0, 2))
    assert bottleneck_distance(bars, none) == pytest.approx(0.5)
    assert wasserstein_distance(none, bars) == pytest.approx(0.75)
    assert [distance(none, none) for distance in DISTANCES] == [0, 0]


def test_bars_of_a_dimension() -> None:
    diagram = Diagram(np.array([0, 1, 0]), np.array([0.0, 1.0, 0.0]), np.array([2.0, 3.0, 4.0]))
    assert bars_of(diagram, 0).tolist() == [[0, 2], [0, 4]]
    assert bars_of(diagram, 2).shape == (0, 2)
