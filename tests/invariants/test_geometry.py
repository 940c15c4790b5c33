"""Behaviour, refusals and symmetries of neighbour geometry."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.geometry import (
    gride_dimension,
    neighbour_dimension,
    twonn_dimension,
)
from scaleinv_ray.kernels.clouds import (
    centred_rows,
    distinct_rows,
    neighbour_distances,
)
from scaleinv_ray.records import Activations

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


def test_neighbours_are_those_of_a_tree() -> None:
    x_PD = np.random.default_rng(0).normal(size=(1100, 3))  # more than two blocks
    expected, _ = cKDTree(x_PD).query(x_PD, k=11)
    found = neighbour_distances(x_PD - x_PD.mean(axis=0), num_neighbours=10)
    assert found == pytest.approx(expected[:, 1:], rel=1e-9)


@pytest.mark.parametrize("num_neighbours", [0, 5])
def test_too_many_neighbours(num_neighbours: int) -> None:
    with pytest.raises(ValueError, match=rf"num_neighbours: got {num_neighbours}, allowed 1\.\.4"):
        neighbour_distances(np.eye(5), num_neighbours=num_neighbours)


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


def test_not_a_matrix() -> None:
    with pytest.raises(ValueError, match="x_TD: got 1 axes, allowed 2"):
        centred_rows(cloud_of(np.arange(3.0)))


def rotated(x_TD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frame, _ = np.linalg.qr(rng.normal(size=(x_TD.shape[1], x_TD.shape[1])))
    return x_TD @ frame


TRANSFORMATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "rotation": rotated,
    "scale": lambda x_TD, rng: x_TD * 10.0 ** rng.uniform(-30, 30),
    "translation": lambda x_TD, rng: x_TD + 100 * rng.normal(size=x_TD.shape[1]),
    "permutation": lambda x_TD, rng: x_TD[:, rng.permutation(x_TD.shape[1])],
    "mean_shift": lambda x_TD, rng: x_TD + 100 * rng.normal(size=(len(x_TD), 1)),
}


def test_every_declared_symmetry_is_tested() -> None:
    assert set(TRANSFORMATIONS) == set(SPEC.symmetries)


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
