"""Behaviour, refusals and symmetries of the topology of clouds."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.topology import median_scaled_distances, persistence, rips_diagram
from scaleinv_ray.records import Activations

SPEC = REGISTRY["topology.persistence"]


def cloud_of(x_TD: np.ndarray, *, removes_mean: bool = False) -> Activations:
    index = np.arange(len(x_TD))
    return Activations(
        x_TD=x_TD, sequence_T=index, position_T=index, sampling="cloud", removes_mean=removes_mean
    )


def measured(x_TD: np.ndarray, *, removes_mean: bool = False, max_dimension: int = 1) -> Measured:
    return persistence(
        cloud_of(x_TD, removes_mean=removes_mean),
        rng=np.random.default_rng(0),
        num_points=16,
        num_subsamples=3,
        max_dimension=max_dimension,
    )


def numbers(found: Measured) -> dict[str, float]:
    return {k: v.value for k, v in found.values.items() if isinstance(v, Estimate)}


@pytest.mark.parametrize("max_dimension", [1, 2])
def test_exactly_the_declared_quantities_and_curves(max_dimension: int) -> None:
    x_TD = np.random.default_rng(1).normal(size=(60, 6))
    found = measured(x_TD, max_dimension=max_dimension)
    assert set(found.values) == set(SPEC.quantities)
    absent = {name for name, value in found.values.items() if isinstance(value, Refused)}
    if max_dimension == 1:
        assert absent == {name for name in SPEC.quantities if name.endswith("_2")}
        assert "needs max_dimension 2" in str(found.values["total_persistence_2"])
    else:
        assert absent <= {"persistence_entropy_2"}
    betti = {f"betti_{k}" for k in range(max_dimension + 1)}
    assert set(found.curves) == betti | {"euler_truncated"} <= set(SPEC.curves)
    assert found.diagrams["rips"].dimension.max() <= max_dimension
    assert np.isfinite(found.diagrams["rips"].death).all()


def test_values_are_those_of_the_subsamples() -> None:
    x_TD = np.random.default_rng(2).normal(size=(48, 3))
    found = measured(x_TD)
    first = found.diagrams["rips"]
    lengths = (first.death - first.birth)[first.dimension == 1]
    total = found.values["total_persistence_1"]
    assert isinstance(total, Estimate)
    assert total.samples is not None
    assert total.n == len(total.samples) == 3
    assert total.samples[0] == pytest.approx(lengths.sum() / 16)
    assert total.stderr == pytest.approx(np.std(total.samples, ddof=1) / np.sqrt(3))
    curve = found.curves["betti_0"]
    assert curve.y[0] == 16
    assert curve.y[-1] == 1
    assert curve.y_stderr is not None
    assert curve.y_stderr[0] == 0


def test_one_subsample_has_no_error() -> None:
    found = measured(np.random.default_rng(3).normal(size=(20, 3)))
    total = found.values["total_persistence_0"]
    assert isinstance(total, Estimate)
    assert (total.n, total.stderr) == (1, None)
    assert found.curves["betti_1"].y_stderr is None


def test_a_line_has_no_loops() -> None:
    found = measured(np.random.default_rng(4).random((48, 1)))
    values = numbers(found)
    names = ("total_persistence", "max_persistence", "log_ratio_max", "num_bars", "betti_peak")
    assert [values[f"{name}_1"] for name in names] == [0] * 5
    with pytest.raises(Refused, match="persistence_entropy_1: < 2 bars in"):
        raise found.values["persistence_entropy_1"]


def test_duplicates_are_dropped_and_counted() -> None:
    x_TD = np.random.default_rng(5).normal(size=(48, 4))
    repeated = np.concatenate([x_TD, x_TD[:12]])
    found, alone = measured(repeated), measured(x_TD)
    assert found.flags["duplicates"] == pytest.approx(12 / 60)
    assert found.flags["distinct_rows"] == 48
    assert numbers(found) == pytest.approx(numbers(alone), rel=1e-9)


@pytest.mark.parametrize(
    ("x_TD", "reason"),
    [
        (np.full((48, 4), 3.0), "got 1 of 48, needs num_points 16"),
        (np.random.default_rng(6).normal(size=(15, 4)), "got 15 of 15, needs num_points 16"),
        (np.full((48, 4), np.nan), "not finite"),
        (np.full((48, 4), np.inf), "not finite"),
        (np.empty((0, 4)), "empty"),
    ],
)
def test_refusals(x_TD: np.ndarray, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        measured(x_TD)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"max_dimension": 0}, "max_dimension: got 0, allowed 1, 2"),
        ({"num_points": 3}, "num_points: got 3, allowed >= 4"),
        ({"num_subsamples": 0}, "num_subsamples: got 0"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        persistence(cloud_of(np.eye(8)), rng=np.random.default_rng(0), **parameters)


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
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(2, 12))
def test_symmetries(name: str, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x_TD = rng.normal(size=(50, width))
    x_TD[48:] = x_TD[:2]
    removes_mean = name == "mean_shift"
    before = measured(x_TD, removes_mean=removes_mean)
    after = measured(TRANSFORMATIONS[name](x_TD, rng), removes_mean=removes_mean)
    # Duplicates are told apart by their rounding only, hence the same rows are drawn.
    assert after.flags == before.flags
    assert numbers(after) == pytest.approx(numbers(before), rel=1e-7, abs=1e-9)


def test_mean_shift_matters_without_a_layer_norm() -> None:
    rng = np.random.default_rng(9)
    x_TD = rng.normal(size=(48, 6))
    shifted = TRANSFORMATIONS["mean_shift"](x_TD, rng)
    assert numbers(measured(shifted)) != pytest.approx(numbers(measured(x_TD)), rel=1e-3)
