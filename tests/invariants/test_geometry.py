"""Behaviour, refusals and symmetries of the geometry of clouds, and of pairs of them."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.geometry import (
    gride_dimension,
    merge_height_correlation,
    neighbour_dimension,
    neighbour_overlap,
    twonn_dimension,
)
from scaleinv_ray.records import Activations
from tests.invariants.cloud_symmetries import TRANSFORMATIONS

SPEC = REGISTRY["geometry.neighbour_dimension"]


def cloud_of(x_TD: np.ndarray, *, removes_mean: bool = False) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(
        x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud", removes_mean=removes_mean
    )


def measured(x_TD: np.ndarray, *, removes_mean: bool = False, num_subsamples: int = 4) -> Measured:
    return neighbour_dimension(
        cloud_of(x_TD, removes_mean=removes_mean),
        rng=np.random.default_rng(0),
        num_points=48,
        num_subsamples=num_subsamples,
        neighbour_order=2,
        max_neighbour_order=4,
    )


def numbers(found: Measured) -> dict[str, float]:
    return {k: v.value for k, v in found.values.items() if isinstance(v, Estimate)}


def test_an_offset_does_not_cost_precision() -> None:
    x_TD = np.random.default_rng(1).normal(size=(60, 5))
    offset = x_TD.copy()
    offset[:, 0] += 1000
    assert numbers(measured(offset)) == pytest.approx(numbers(measured(x_TD)), rel=1e-9)


def test_float32_and_extreme_scales() -> None:
    x_TD = np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32)
    expected = numbers(measured(x_TD))
    for scale in (1e-200, 1e200):
        found = numbers(measured(x_TD.astype(np.float64) * scale))
        assert found == pytest.approx(expected, rel=1e-9)


def test_exactly_the_declared_quantities_and_their_error() -> None:
    found = measured(np.random.default_rng(6).normal(size=(60, 5)))
    assert set(found.values) == set(SPEC.quantities)
    assert set(found.curves) == set(SPEC.curves)
    profile = found.curves["gride_profile"]
    assert profile.x.tolist() == [1, 2, 4]
    for name, index in (("twonn", 0), ("gride", 1)):
        value = found.values[name]
        assert isinstance(value, Estimate)
        assert profile.y_stderr is not None
        assert (value.value, value.stderr) == (profile.y[index], profile.y_stderr[index])
        assert (value.n, value.error_kind) == (4, "subsamples")


def test_one_subsample_has_no_error() -> None:
    found = measured(np.random.default_rng(7).normal(size=(60, 5)), num_subsamples=1)
    assert found.values["twonn"].stderr is None
    assert found.curves["gride_profile"].y_stderr is None


@pytest.mark.parametrize(
    ("x_TD", "reason"),
    [
        (np.random.default_rng(8).normal(size=(47, 4)), "got 47 of 47, needs num_points 48"),
        (np.full((60, 4), 1.0), "got 1 of 60"),
        (np.full((60, 4), np.nan), "not finite"),
        (np.eye(60), "equally far"),
    ],
)
def test_refusals(x_TD: np.ndarray, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        measured(x_TD)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"num_subsamples": 0}, "num_subsamples: got 0"),
        ({"max_neighbour_order": 48}, "max_neighbour_order: got 48, allowed powers of two"),
        ({"neighbour_order": 128}, "neighbour_order: got 128, allowed"),
        ({"num_points": 500}, "got 50, needs more than 128"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        neighbour_dimension(cloud_of(np.eye(8)), rng=np.random.default_rng(0), **parameters)


def test_kernels_refuse_zero_distances_and_missing_neighbours() -> None:
    with pytest.raises(ValueError, match="drop duplicates first"):
        twonn_dimension(np.array([[0.0, 1.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"neighbour_order: got 2, allowed 1\.\.1"):
        gride_dimension(np.array([[1.0, 2.0]]), neighbour_order=2)


@pytest.mark.parametrize(
    "name", ["neighbour_dimension", "neighbour_overlap", "merge_height_correlation"]
)
def test_every_declared_symmetry_is_tested(name: str) -> None:
    assert set(TRANSFORMATIONS) == set(REGISTRY[f"geometry.{name}"].symmetries)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(2, 12))
def test_symmetries(name: str, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x_TD = rng.normal(size=(64, width))
    x_TD[62:] = x_TD[:2]
    removes_mean = name == "mean_shift"
    before = measured(x_TD, removes_mean=removes_mean)
    after = measured(TRANSFORMATIONS[name](x_TD, rng), removes_mean=removes_mean)
    assert after.flags == before.flags
    assert numbers(after) == pytest.approx(numbers(before), rel=1e-7)


def overlap(
    x_TD: np.ndarray, y_TD: np.ndarray, *, removes_mean: bool = False, **changed: int
) -> Measured:
    parameters = {"num_points": 24, "num_subsamples": 2, "num_neighbours": 5} | changed
    clouds = [cloud_of(a, removes_mean=removes_mean) for a in (x_TD, y_TD)]
    return neighbour_overlap(*clouds, rng=np.random.default_rng(0), **parameters)


def correlation(
    x_TD: np.ndarray, y_TD: np.ndarray, *, removes_mean: bool = False, **changed: int
) -> Measured:
    parameters = {"num_points": 24, "num_subsamples": 2} | changed
    clouds = [cloud_of(a, removes_mean=removes_mean) for a in (x_TD, y_TD)]
    return merge_height_correlation(*clouds, rng=np.random.default_rng(0), **parameters)


PAIRED = [pytest.param(overlap, id="overlap"), pytest.param(correlation, id="merge heights")]
Compare = Callable[..., Measured]


@pytest.mark.parametrize("compare", PAIRED)
def test_pairs_have_errors_over_subsamples_and_a_floor(compare: Compare) -> None:
    rng = np.random.default_rng(9)
    found = compare(rng.normal(size=(60, 4)), rng.normal(size=(60, 7)))
    for value in found.values.values():
        assert isinstance(value, Estimate)
        assert (value.n, value.error_kind) == (2, "subsamples")
        assert value.value == pytest.approx(np.mean(value.samples))
    assert (found.flags["matched_rows"], found.flags["distinct_rows"]) == (60, 60)
    alone = compare(rng.normal(size=(30, 4)), rng.normal(size=(30, 7)))
    assert all(value.stderr is None for value in alone.values.values())


@pytest.mark.parametrize("compare", PAIRED)
@pytest.mark.parametrize(
    ("x_TD", "y_TD", "reason"),
    [
        (np.random.default_rng(1).normal(size=(20, 3)), np.eye(20), "got 20 of 20 in both clouds"),
        (np.random.default_rng(1).normal(size=(50, 3)), np.full((50, 2), np.inf), "not finite"),
        (np.random.default_rng(1).normal(size=(50, 3)), np.ones((50, 2)), "got 1 of 50"),
    ],
)
def test_pairs_refuse(compare: Compare, x_TD: np.ndarray, y_TD: np.ndarray, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        compare(x_TD, y_TD)


def test_points_that_all_merge_at_once_have_no_ranks() -> None:
    with pytest.raises(Refused, match="merge at one height"):
        correlation(np.eye(50), np.random.default_rng(2).normal(size=(50, 3)))


@pytest.mark.parametrize(
    ("compare", "changed", "text"),
    [
        (overlap, {"num_neighbours": 0}, r"num_neighbours: got 0, allowed 1\.\.23"),
        (overlap, {"num_neighbours": 24}, "num_neighbours: got 24"),
        (overlap, {"num_subsamples": 0}, "num_subsamples: got 0"),
        (correlation, {"num_points": 2}, "num_points: got 2, allowed >= 3"),
    ],
)
def test_parameters_of_pairs(compare: Compare, changed: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compare(np.eye(30), np.eye(30), **changed)


@pytest.mark.parametrize("compare", PAIRED)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(2, 12))
def test_each_cloud_of_a_pair_moves_by_itself(
    compare: Compare, name: str, seed: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    x_TD, y_TD = rng.normal(size=(54, width)), rng.normal(size=(54, width + 1))
    x_TD[50:52], y_TD[50:] = x_TD[:2], y_TD[4:8]
    move = TRANSFORMATIONS[name]
    flag = name == "mean_shift"
    expected = compare(x_TD, y_TD, removes_mean=flag)
    for a, b in [(x_TD, move(y_TD, rng)), (move(x_TD, rng), y_TD)]:
        after = compare(a, b, removes_mean=flag)
        assert numbers(after) == pytest.approx(numbers(expected), rel=1e-7, abs=1e-9)
        assert after.flags == expected.flags
