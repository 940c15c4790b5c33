"""Behaviour, refusals and symmetries of merge trees, spectral loops and Euler curves."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.topology.alpha_complex import euler_curve
from scaleinv_ray.invariants.topology.shape import (
    euler_characteristic,
    merge_tree,
    spectral_persistence,
)
from scaleinv_ray.records import Activations
from tests.invariants.cloud_symmetries import TRANSFORMATIONS

SMALL: dict[str, dict[str, float]] = {
    "merge_tree": {"num_points": 36, "num_subsamples": 2, "num_sizes": 2},
    "spectral_persistence": {"num_points": 24, "num_subsamples": 2, "num_neighbours": 6},
    "euler_characteristic": {"num_points": 25, "num_subsamples": 2, "least_gap_errors": 0.0},
}


def cloud_of(x_TD: np.ndarray, *, removes_mean: bool = False) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(
        x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud", removes_mean=removes_mean
    )


def measured(name: str, x_TD: np.ndarray, *, removes_mean: bool = False) -> Measured:
    cloud = cloud_of(x_TD, removes_mean=removes_mean)
    function = REGISTRY[f"topology.{name}"].function
    return function(cloud, rng=np.random.default_rng(0), **SMALL[name])


def numbers(found: Measured) -> dict[str, float]:
    return {k: v.value for k, v in found.values.items() if isinstance(v, Estimate)}


def test_every_declared_symmetry_is_tested() -> None:
    with_truths = {
        "topology.merge_tree",
        "topology.spectral_persistence",
        "topology.euler_characteristic",
    }
    assert {f"topology.{name}" for name in SMALL} == with_truths <= set(REGISTRY)
    for name in SMALL:
        assert set(TRANSFORMATIONS) == set(REGISTRY[f"topology.{name}"].symmetries)


@pytest.mark.parametrize("invariant", SMALL)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(4, 12))
def test_symmetries(invariant: str, name: str, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x_TD = rng.normal(size=(76, width)) * 0.9 ** np.arange(width)
    removes_mean = name == "mean_shift"
    before = measured(invariant, x_TD, removes_mean=removes_mean)
    moved = TRANSFORMATIONS[name](x_TD, rng)
    after = measured(invariant, moved, removes_mean=removes_mean)
    assert after.flags == pytest.approx(before.flags, rel=1e-6)
    assert numbers(after) == pytest.approx(numbers(before), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("invariant", SMALL)
@pytest.mark.parametrize(
    ("x_TD", "reason"),
    [(np.eye(12), "distinct rows: got 12 of 12"), (np.full((60, 3), np.inf), "not finite")],
)
def test_refusals(invariant: str, x_TD: np.ndarray, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        measured(invariant, x_TD)


def test_a_graph_in_pieces_is_refused() -> None:
    x_TD = np.random.default_rng(0).normal(size=(52, 3))
    x_TD[26:] += 100
    with pytest.raises(Refused, match="falls into 2 components"):
        measured("spectral_persistence", x_TD)


def test_a_plane_has_no_third_component() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(Refused, match="rows span 2 dimensions, needs 3"):
        measured("euler_characteristic", rng.normal(size=(60, 2)) @ rng.normal(size=(2, 9)))


def test_slopes_without_a_dimension_are_refused() -> None:
    # The corners of a simplex are equally far from each other: E_1 = m - 1.
    with pytest.raises(Refused, match="slope 1.* is not below 1"):
        raise measured("merge_tree", np.eye(80)).values["ph_dimension"]


def test_error_of_the_dimension_is_that_of_the_slopes() -> None:
    x_TD = np.random.default_rng(2).random((400, 2))
    rng = np.random.default_rng
    many, one = (
        merge_tree(cloud_of(x_TD), rng=rng(0), num_points=100, num_subsamples=n, num_sizes=2)
        for n in (3, 1)
    )
    assert 0 < many.values["ph_dimension"].stderr < 1
    assert one.values["ph_dimension"].stderr is None
    curve = many.curves["merge_heights"]
    assert (np.diff(curve.y) >= 0).all()
    assert (curve.y_stderr >= 0).all()
    # Trapezoids of the quantiles are the mean, but for the steps.
    mean = many.values["mean_merge_height"].value
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(mean, rel=0.02)


def test_euler_curve_starts_at_one() -> None:
    found = measured("euler_characteristic", np.random.default_rng(3).normal(size=(60, 3)))
    curve = found.curves["euler"]
    assert curve.y[0] == 1
    values = numbers(found)
    assert values["euler_min"] < values["euler_nearest"] < 1
    assert values["euler_max"] >= 1 / 25


@pytest.mark.parametrize(
    ("function", "parameters", "text"),
    [
        (merge_tree, {"power": 0.0}, "power: got 0.0, allowed > 0"),
        (merge_tree, {"num_sizes": 1}, "num_sizes: got 1, allowed >= 2"),
        (merge_tree, {"num_points": 100}, "num_points: got 100, allowed >= 128"),
        (merge_tree, {"num_subsamples": 0}, "num_subsamples: got 0, allowed >= 1"),
        (spectral_persistence, {"num_points": 1001}, r"got 1001, allowed 4\.\.1000"),
        (spectral_persistence, {"num_points": 8}, r"num_neighbours: got 15, allowed 1\.\.7"),
        (euler_characteristic, {"num_points": 4}, "num_points: got 4, allowed >= 5"),
    ],
)
def test_parameters_out_of_range(
    function: Callable[..., Measured], parameters: dict[str, float], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        function(cloud_of(np.eye(8)), rng=np.random.default_rng(0), **parameters)


@pytest.mark.parametrize("x_PD", [np.zeros((5, 4)), np.full((5, 3), np.nan), np.zeros(3)])
def test_points_of_another_dimension(x_PD: np.ndarray) -> None:
    with pytest.raises(ValueError, match="allowed finite points of 2 or 3 numbers"):
        euler_curve(x_PD)
