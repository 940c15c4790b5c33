"""Behaviour of the resolvents: errors, flags, refusals, symmetries."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ortho_group

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import residue_overlap, resolvent_counts
from scaleinv_ray.records import Jacobians


def jacobians(seed: int, *, size: int = 24, num_positions: int = 6) -> Jacobians:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_positions, size, size)) * 0.4 / np.sqrt(size)
    return Jacobians(j_TDD=np.eye(size) + noise)


def counts(record: Jacobians) -> Measured:
    return resolvent_counts(record, rng=np.random.default_rng(0), near_radius=0.1)


def overlap(record: Jacobians) -> Measured:
    return residue_overlap(record, rng=np.random.default_rng(0))


def numbers(measured: Measured) -> dict[str, tuple[float, float | None]]:
    return {k: (v.value, v.stderr) for k, v in measured.values.items() if isinstance(v, Estimate)}


def assert_equal(one: Measured, other: Measured) -> None:
    left, right = numbers(one), numbers(other)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name] == pytest.approx(right[name], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("invariant", [counts, overlap])
def test_rotation_and_permutation_change_nothing(invariant) -> None:
    record = jacobians(0)
    for q in (
        ortho_group.rvs(24, random_state=0),
        np.eye(24)[np.random.default_rng(1).permutation(24)],
    ):
        turned = dataclasses.replace(record, j_TDD=q @ record.j_TDD @ q.T)
        assert_equal(invariant(record), invariant(turned))


def test_similarity_moves_henrici_but_no_pole() -> None:
    record = jacobians(1)
    s = np.diag(np.linspace(1.0, 3.0, 24))
    other = numbers(counts(dataclasses.replace(record, j_TDD=s @ record.j_TDD @ np.linalg.inv(s))))
    own = numbers(counts(record))
    for name in ("count_inside_unit", "count_near_one", "spectral_radius"):
        assert own[name] == pytest.approx(other[name])
    assert own["henrici"][0] < other["henrici"][0]


def test_null_has_the_same_distance_from_the_identity() -> None:
    # a Ginibre Jacobian is its own null: the counts agree within their errors
    measured = numbers(counts(jacobians(2, num_positions=60)))
    for name in ("count_inside_unit", "count_near_one"):
        (value, stderr), (null, null_stderr) = measured[name], measured[f"{name}_null"]
        assert stderr is not None
        assert null_stderr is not None
        assert value == pytest.approx(null, abs=4 * np.hypot(stderr, null_stderr))


def test_error_falls_with_positions() -> None:
    few = numbers(counts(jacobians(3, num_positions=10)))["spectral_radius"][1]
    many = numbers(counts(jacobians(3, num_positions=160)))["spectral_radius"][1]
    assert few is not None
    assert many is not None
    assert many == pytest.approx(few / 4, rel=0.6)


def test_one_position_has_no_error() -> None:
    measured = counts(jacobians(4, num_positions=1))
    assert all(stderr is None for _, stderr in numbers(measured).values())
    assert measured.curves["radial_count"].y_stderr is None


def test_curves_hold_the_poles() -> None:
    record = jacobians(5)
    measured = counts(record)
    poles = measured.curves["poles"]
    expected = np.linalg.eigvals(record.j_TDD[0])
    np.testing.assert_allclose(np.sort(poles.x), np.sort(expected.real))
    assert poles.x.sum() == pytest.approx(np.trace(record.j_TDD[0]))
    radial = measured.curves["radial_count"]
    assert radial.y[0] == 0
    assert radial.y[-1] == 1
    assert np.interp(1.0, radial.x, radial.y) == numbers(measured)["count_inside_unit"][0]


def test_eigenvalues_on_the_circles_are_flagged() -> None:
    flags = counts(Jacobians(j_TDD=np.diag([1.0, -1.0005, 0.9, 1.1004, 0.3])[None])).flags
    assert flags["at_unit_circle"] == 2
    assert flags["at_near_circle"] == 2


def test_identity_is_no_failure() -> None:
    measured = numbers(counts(Jacobians(j_TDD=np.eye(5)[None].repeat(2, axis=0))))
    assert measured["count_near_one"] == (1, 0)
    assert measured["henrici"][0] == pytest.approx(0, abs=1e-7)


def test_zero_matrix_is_no_failure() -> None:
    assert numbers(counts(Jacobians(j_TDD=np.zeros((2, 5, 5)))))["spectral_radius"] == (0, 0)


@pytest.mark.parametrize("invariant", [counts, overlap])
def test_not_finite_is_refused(invariant) -> None:
    record = jacobians(6)
    broken = record.j_TDD.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(Refused, match="got 1 values not finite"):
        invariant(dataclasses.replace(record, j_TDD=broken))


@pytest.mark.parametrize("invariant", [counts, overlap])
def test_structural_mode_that_is_none_is_refused(invariant) -> None:
    with pytest.raises(Refused, match="structural mode"):
        invariant(dataclasses.replace(jacobians(7), removes_mean=True))


def test_parallel_mode_needs_the_input() -> None:
    assert (
        counts(dataclasses.replace(jacobians(8), parallel_residual=True)).flags
        == counts(jacobians(8)).flags
    )


def test_overlap_of_symmetric_matrix_has_real_poles_only() -> None:
    j = jacobians(9).j_TDD
    measured = overlap(Jacobians(j_TDD=j + j.swapaxes(1, 2)))
    assert numbers(measured)["overlap_real"][0] == pytest.approx(1 / 24)
    assert isinstance(measured.values["overlap_complex"], Refused)
    assert measured.flags["real_fraction"] == 1
