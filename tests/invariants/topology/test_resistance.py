"""Effective resistances of graphs with known ones, and what is no graph."""

import numpy as np
import pytest

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.topology.resistance import neighbour_graph, resistance_distances


def resistances(adjacency_PP: np.ndarray) -> np.ndarray:
    return resistance_distances(adjacency_PP, corrected=False) ** 2


def cycle(num_points: int) -> np.ndarray:
    step = np.roll(np.eye(num_points), 1, axis=1)
    return step + step.T


def test_complete_graph_cycle_and_path() -> None:
    complete = resistances(1 - np.eye(7))
    assert complete == pytest.approx(2 / 7 * (1 - np.eye(7)), abs=1e-12)
    steps = np.arange(9)
    assert resistances(cycle(9))[0] == pytest.approx(steps * (9 - steps) / 9, abs=1e-12)
    path = np.diag(np.ones(8), 1) + np.diag(np.ones(8), -1)
    assert resistances(path)[0] == pytest.approx(steps, abs=1e-11)


def test_correction_takes_the_local_part_off() -> None:
    rng = np.random.default_rng(0)
    adjacency = neighbour_graph(np.abs(np.subtract.outer(*[rng.random(40)] * 2)), num_neighbours=5)
    degree = adjacency.sum(axis=1)
    local = 1 / degree[:, None] + 1 / degree - 2 * adjacency / np.outer(degree, degree)
    np.fill_diagonal(local, 0)
    corrected = resistance_distances(adjacency, corrected=True) ** 2
    assert corrected == pytest.approx(resistances(adjacency) - local, abs=1e-10)


def test_foster() -> None:
    # The resistances of all edges, times their weights, sum to the number of points - 1.
    rng = np.random.default_rng(1)
    weights = np.triu(rng.random((12, 12)), 1)
    weights += weights.T
    assert (weights * resistances(weights)).sum() / 2 == pytest.approx(11)


def test_neighbour_graph_is_symmetric() -> None:
    x_PD = np.random.default_rng(2).normal(size=(30, 4))
    distance_PP = np.linalg.norm(x_PD[:, None] - x_PD, axis=2)
    graph = neighbour_graph(distance_PP, num_neighbours=3)
    assert np.array_equal(graph, graph.T)
    assert graph.sum(axis=1).min() >= 3
    assert not graph.diagonal().any()
    nearest = (distance_PP + np.diag(np.full(30, np.inf))).argmin(axis=1)
    assert graph[np.arange(30), nearest].all()


@pytest.mark.parametrize("num_neighbours", [0, 5])
def test_neighbours_out_of_range(num_neighbours: int) -> None:
    with pytest.raises(ValueError, match=rf"num_neighbours: got {num_neighbours}, allowed 1\.\.4"):
        neighbour_graph(1 - np.eye(5), num_neighbours=num_neighbours)


def test_graphs_in_pieces_are_refused() -> None:
    with pytest.raises(Refused, match="falls into 2 components"):
        resistance_distances(np.kron(np.eye(2), cycle(5)), corrected=True)
    with pytest.raises(Refused, match="points without edges"):
        resistance_distances(np.zeros((3, 3)), corrected=True)


@pytest.mark.parametrize(
    ("adjacency", "text"),
    [
        (np.full((3, 3), np.nan), "negative or not finite"),
        (-cycle(4), "negative or not finite"),
        (np.triu(np.ones((3, 3)), 1), "no symmetric matrix"),
        (np.ones((3, 3)), "zeros on the diagonal"),
    ],
)
def test_no_graph(adjacency: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resistance_distances(adjacency, corrected=True)
