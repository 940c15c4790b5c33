"""Behaviour, refusals and symmetries of the topology of clouds."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import REGISTRY, Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.topology import (
    order_complex,
    persistence,
    significant_betti,
    torsion_check,
)
from scaleinv_ray.records import Activations
from tests.invariants.cloud_symmetries import TRANSFORMATIONS

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
    with pytest.raises(Refused, match="persistence_entropy_1: too few bars in"):
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


SMALL: dict[str, dict[str, float]] = {
    "persistence": {"num_points": 16, "num_subsamples": 3, "max_dimension": 2},
    "order_complex": {"num_points": 16, "num_subsamples": 3, "num_gaussian": 2},
    "significant_betti": {"num_points": 48, "num_subsamples": 1, "level": 0.9},
    "torsion_check": {"num_points": 24, "num_landmarks": 16, "num_subsamples": 2},
}


def test_every_declared_symmetry_is_tested() -> None:
    for name in SMALL:
        assert set(TRANSFORMATIONS) == set(REGISTRY[f"topology.{name}"].symmetries)
    assert {f"topology.{name}" for name in SMALL} == {
        name for name, spec in REGISTRY.items() if spec.function.__module__.endswith(".rips")
    }


@pytest.mark.parametrize("invariant", SMALL)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(3, 12))
def test_symmetries(invariant: str, name: str, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x_TD = rng.normal(size=(52, width))
    x_TD[50:] = x_TD[:2]
    function = REGISTRY[f"topology.{invariant}"].function
    before, after = (
        function(
            cloud_of(x, removes_mean=name == "mean_shift"),
            rng=np.random.default_rng(0),
            **SMALL[invariant],
        )
        for x in (x_TD, TRANSFORMATIONS[name](x_TD, rng))
    )
    # Duplicates are told apart by their rounding only, hence the same rows are drawn.
    assert after.flags == pytest.approx(before.flags, rel=1e-7)
    assert numbers(after) == pytest.approx(numbers(before), rel=1e-7, abs=1e-9)


def test_mean_shift_matters_without_a_layer_norm() -> None:
    rng = np.random.default_rng(9)
    x_TD = rng.normal(size=(48, 6))
    shifted = TRANSFORMATIONS["mean_shift"](x_TD, rng)
    assert numbers(measured(shifted)) != pytest.approx(numbers(measured(x_TD)), rel=1e-3)


@pytest.mark.parametrize("invariant", [name for name in SMALL if name != "persistence"])
@pytest.mark.parametrize(
    ("x_TD", "reason"),
    [(np.eye(12), "distinct rows: got 12 of 12"), (np.full((60, 3), np.nan), "not finite")],
)
def test_all_refuse(invariant: str, x_TD: np.ndarray, reason: str) -> None:
    function = REGISTRY[f"topology.{invariant}"].function
    with pytest.raises(Refused, match=reason):
        function(cloud_of(x_TD), rng=np.random.default_rng(0), **SMALL[invariant])


@pytest.mark.parametrize(
    ("function", "parameters", "text"),
    [
        (persistence, {"num_gaussian": 0}, "num_gaussian: got 0, allowed >= 1"),
        (order_complex, {"num_points": 3}, "num_points: got 3, allowed >= 4"),
        (order_complex, {"num_gaussian": 0}, "num_gaussian: got 0, allowed >= 1"),
        (significant_betti, {"max_dimension": 3}, "max_dimension: got 3, allowed 1, 2"),
        (significant_betti, {"level": 1.0}, "level: got 1.0, allowed between 0 and 1"),
        (torsion_check, {"num_landmarks": 3}, "num_landmarks: got 3, allowed >= 4"),
        (torsion_check, {"num_points": 150}, "num_points: got 150, allowed >= 200"),
    ],
)
def test_more_parameters_out_of_range(
    function: Callable[..., Measured], parameters: dict[str, float], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        function(cloud_of(np.eye(8)), rng=np.random.default_rng(0), **parameters)


def test_diagrams_of_the_first_subsamples() -> None:
    x_TD = np.random.default_rng(10).normal(size=(200, 5))
    found = persistence(cloud_of(x_TD), rng=np.random.default_rng(0), num_points=40)
    assert list(found.diagrams) == ["rips", "rips_2", "rips_3"]
    totals = found.values["total_persistence_0"].samples
    for diagram, total in zip(found.diagrams.values(), totals, strict=False):
        assert diagram.death[diagram.dimension == 0].sum() / 40 == pytest.approx(total)


def test_memory_bounded_numbers_are_the_same() -> None:
    x_TD = np.random.default_rng(11).normal(size=(130, 3))
    plain, bounded = (
        persistence(
            cloud_of(x_TD), rng=np.random.default_rng(0), num_points=60, memory_bounded=flag
        )
        for flag in (False, True)
    )
    assert numbers(bounded) == pytest.approx(numbers(plain), rel=1e-12)


def test_only_the_order_of_distances_counts() -> None:
    # The snowflake d -> sqrt(d) of a line is a curve in as many dimensions as it has points.
    position = np.cumsum(0.5 + np.random.default_rng(12).random(40))
    steps = np.sqrt(np.diff(position, prepend=0.0))
    curve = np.tril(np.ones((40, 40))) * steps  # |x_i - x_j|^2 = the difference of positions
    line, snowflake = (
        order_complex(cloud_of(x), rng=np.random.default_rng(0), num_points=36, num_subsamples=1)
        for x in (position[:, None], curve)
    )
    for k in (0, 1):
        name = f"integral_betti_{k}"
        assert snowflake.values[name].value == pytest.approx(line.values[name].value)
    with pytest.raises(Refused, match="no loops in the cloud"):
        raise line.values["excess_betti_1"]


def test_bound_of_the_landmarks() -> None:
    x_TD = np.random.default_rng(13).normal(size=(120, 4))
    bounds = [
        torsion_check(
            cloud_of(x_TD), rng=np.random.default_rng(0), num_points=50, num_landmarks=count
        ).flags["landmark_bound"]
        for count in (10, 30, 50)
    ]
    assert bounds[0] > bounds[1] > bounds[2] == 0


@pytest.mark.parametrize("invariant", ["persistence", "order_complex", "merge_tree"])
def test_on_the_unit_sphere_only_directions_count(invariant: str) -> None:
    rng = np.random.default_rng(4)
    half_TD = rng.normal(size=(40, 3))
    stretch_T = rng.uniform(0.5, 2, size=(40, 1))
    # with every row goes its opposite, so that both clouds have their mean at zero
    plain = cloud_of(np.concatenate([half_TD, -half_TD]))
    stretched = cloud_of(np.concatenate([stretch_T * half_TD, -stretch_T * half_TD]))
    function = REGISTRY[f"topology.{invariant}"].function
    small = {"num_points": 64 if invariant == "merge_tree" else 20, "num_subsamples": 1}
    extra = {"num_sizes": 2} if invariant == "merge_tree" else {}

    def found(cloud: Activations, *, unit_norm: bool) -> dict[str, float]:
        parameters = small | extra | {"unit_norm": unit_norm}
        measured = function(cloud, rng=np.random.default_rng(0), **parameters)
        return numbers(measured)

    assert found(plain, unit_norm=True) == pytest.approx(found(stretched, unit_norm=True))
    assert found(plain, unit_norm=False) != pytest.approx(found(stretched, unit_norm=False))
