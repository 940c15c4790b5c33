"""Minima that training finds: linear networks by ranks of partial products, manifolds of zeros."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from scaleinv_ray.contract import Refused
from scaleinv_ray.singularities import (
    critical_manifold,
    deep_linear,
    linear_minimum,
    subset_simulation,
    volume_law,
)
from scripts.toy_models import around, deep_linear_task, superposition_task


def of_ranks(rng, num_in, num_hidden, num_out, r1, r2, rank):
    """Matrices of ranks r1 and r2 whose product has the rank asked for."""
    first, second = np.zeros((num_hidden, num_in)), np.zeros((num_out, num_hidden))
    first[range(r1), range(r1)] = 1
    seen = [*range(rank), *range(r1, r1 + r2 - rank)]
    second[range(r2), seen] = 1
    turn = rng.normal(size=(num_hidden, num_hidden))
    left, right = (rng.normal(size=(n, n)) for n in (num_out, num_in))
    return turn @ first @ right, left @ second @ np.linalg.inv(turn)


CASES = [
    (widths, r1, r2, rank)
    for widths in [(3, 4, 2), (3, 3, 3), (2, 5, 4)]
    for r1 in range(min(widths[:2]) + 1)
    for r2 in range(min(widths[1:]) + 1)
    for rank in range(max(0, r1 + r2 - widths[1]), min(r1, r2) + 1)
]


@pytest.mark.parametrize(("widths", "r1", "r2", "rank"), CASES)
def test_a_minimum_of_two_layers(widths, r1, r2, rank):
    first, second = of_ranks(np.random.default_rng(0), *widths, r1, r2, rank)
    found = linear_minimum([first, second], tolerance=1e-9)
    num_in, num_hidden, num_out = widths
    # d(W2 W1) = W2 dW1 + dW2 W1: the linear equations are the rank of the derivative.
    derivative = np.c_[np.kron(second, np.eye(num_in)), np.kron(np.eye(num_out), first.T)]
    assert found.regular == np.linalg.matrix_rank(derivative)
    rest = (num_in - r1, num_hidden - r1 - r2 + rank, num_out - r2)
    assert found.rest == (rest if min(rest) else ())
    worst = deep_linear(widths, rank)
    assert found.coefficient.llc >= worst.llc
    if r1 == r2 == rank:
        assert found.coefficient == worst


def test_the_volume_at_a_minimum_that_is_not_the_worst():
    """Widths 1, 1, 2 at W1 = 1, W2 = 0: 1, where the worst zero of the same map has 1/2."""
    found = linear_minimum([np.ones((1, 1)), np.zeros((2, 1))], tolerance=1e-6).coefficient
    assert (found.llc, deep_linear((1, 1, 2), 0).llc) == (1, Fraction(1, 2))

    def loss(w_PN):
        first_P = 1 + w_PN[..., 0] / 2
        return (first_P**2) * (w_PN[..., 1] ** 2 + w_PN[..., 2] ** 2)

    density = subset_simulation(loss, 3, rng=np.random.default_rng(0), num_particles=1000)
    law = volume_law(density, max_multiplicity=1)
    assert abs(law.llc.value - 1) < 4 * law.llc.stderr


@pytest.mark.parametrize(
    ("widths", "rank"), [((8, 4, 8), 2), ((10, 10, 10), 0), ((10, 10, 10), 3), ((20, 5, 20), 5)]
)
def test_minima_with_free_weights_are_as_degenerate_as_the_worst_without_logarithms(widths, rank):
    task = deep_linear_task(
        widths, rank, num_samples=64, generator=torch.Generator().manual_seed(0), free=1.0
    )
    weights = [w.numpy() for w in task.parameters.values()]
    found = linear_minimum(weights, tolerance=1e-4)
    assert found.coefficient == (deep_linear(widths, rank).llc, 1)
    assert not found.rest


def test_a_minimum_that_is_none_is_refused():
    with pytest.raises(ValueError, match="needs 2 columns"):
        linear_minimum([np.eye(2), np.eye(3)], tolerance=0.1)
    with pytest.raises(ValueError, match="tolerance: got 0"):
        linear_minimum([np.eye(2), np.eye(2)], tolerance=0)
    near = np.diag([1.0, 0.3])
    with pytest.raises(Refused, match="contradict each other"):
        linear_minimum([near, near], tolerance=0.2)


def of_intervals(rng, intervals, num_layers):
    """Weights that are sums of intervals (first layer, last layer), in bases of their own."""
    alive = [[k for k, (s, e) in enumerate(intervals) if s <= layer <= e]
             for layer in range(num_layers + 1)]  # fmt: skip
    turns = [rng.normal(size=(len(a), len(a))) for a in alive]
    return [
        turns[i + 1]
        @ np.array([[float(k == j) for j in alive[i]] for k in alive[i + 1]])
        @ np.linalg.inv(turns[i])
        for i in range(num_layers)
    ]


def derivative_of_product(weights):
    """Of the product of all weights, by the entries of all of them."""
    blocks = []
    for i, w in enumerate(weights):
        before, after = np.eye(weights[0].shape[1]), np.eye(len(w))
        for other in weights[:i]:
            before = other @ before
        for other in weights[i + 1 :]:
            after = other @ after
        blocks.append(np.kron(after, before.T))
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize(
    ("intervals", "rest", "llc"),
    [
        # all that is not used at zero: the worst zero of the map
        ([(0, 3), (0, 0), (1, 1), (2, 2), (3, 3)], (1, 1, 1, 1), (Fraction(2), 3)),
        # what comes in gets one layer further: a product of two factors
        ([(0, 1), (2, 2), (3, 3), (3, 3)], (1, 1, 2), (Fraction(1, 2), 1)),
        # weights of size one between small ones: a product of two factors as well
        ([(0, 0), (1, 2), (3, 3)], (1, 1, 1), (Fraction(1, 2), 2)),
        # it arises too early, and what it meets came far enough: all is linear
        ([(0, 2), (2, 3), (1, 1), (0, 3)], (), (Fraction(2), 1)),
        # nothing in between: the product stays zero, whatever the others do
        ([(0, 0), (3, 3), (0, 3)], (), (Fraction(3, 2), 1)),
    ],
)
def test_minima_of_three_layers(intervals, rest, llc):
    weights = of_intervals(np.random.default_rng(1), intervals, 3)
    found = linear_minimum(weights, tolerance=1e-9)
    assert (found.rest, found.coefficient) == (rest, llc)
    assert found.regular == np.linalg.matrix_rank(derivative_of_product(weights), 1e-9)
    widths = [weights[0].shape[1], *map(len, weights)]
    assert llc[0] >= deep_linear(widths, sum(i == (0, 3) for i in intervals)).llc


def test_the_worst_minimum_of_a_deep_network_has_the_coefficient_of_its_map():
    for widths, rank in [((5, 4, 3, 2), 1), ((4, 4, 4, 4, 4), 2), ((6, 3, 5, 4), 0)]:
        generator = torch.Generator().manual_seed(0)
        task = deep_linear_task(widths, rank, num_samples=64, generator=generator)
        found = linear_minimum([w.numpy() for w in task.parameters.values()], tolerance=1e-4)
        assert found.coefficient == deep_linear(widths, rank)


def test_products_that_share_factors_are_refused():
    weights = of_intervals(
        np.random.default_rng(0), [(0, 0), (0, 1), (1, 1), (2, 2), (2, 3), (3, 3)], 3
    )
    with pytest.raises(Refused, match=r"3 products are left .* at least 1/2"):
        linear_minimum(weights, tolerance=1e-9)


@pytest.mark.parametrize(
    ("features", "vertices", "llc"),
    [(5, 5, Fraction(7)), (6, 6, Fraction(17, 2)), (6, 5, Fraction(17, 2))],
)
def test_polygons_of_superposition_are_a_circle_of_minima(features, vertices, llc):
    """Coefficients of Chen et al. 2023, from the minimum alone; rotations are its one freedom."""
    task = superposition_task(features, vertices, dtype=torch.float64)
    found = critical_manifold(*around(task), rng=np.random.default_rng(0))
    assert found == ((llc, 1), 1)


def test_a_polygon_that_is_no_minimum_is_refused():
    task = superposition_task(6, 4, dead_bias=0.0, dtype=torch.float64)
    with pytest.raises(Refused, match="no minimum|not a manifold"):
        critical_manifold(*around(task), rng=np.random.default_rng(0))


def test_a_fourth_power_is_no_manifold():
    def quartic(x_P):
        return x_P[0] ** 2 + x_P[1] ** 4, np.array([2 * x_P[0], 4 * x_P[1] ** 3])

    with pytest.raises(Refused, match=r"lambda is between 1/2 and 3/4"):
        critical_manifold(np.diag([2.0, 0.0]), quartic, rng=np.random.default_rng(0))
