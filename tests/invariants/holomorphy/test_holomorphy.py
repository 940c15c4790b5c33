"""Behaviour of the resolvents: errors, flags, refusals, symmetries."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.holomorphy import (
    covariance_poles,
    depth_modes,
    logit_residues,
    residue_overlap,
    resolvent_counts,
    stieltjes_poles,
)
from scaleinv_ray.records import DepthStack, Jacobians, Moments, WeightMatrix

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
FEW = settings(max_examples=10, deadline=None, derandomize=True)
FEWER = settings(FEW, max_examples=4)


def jacobians(seed: int, *, size: int = 24, num_positions: int = 6) -> Jacobians:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_positions, size, size)) * 0.4 / np.sqrt(size)
    return Jacobians(j_TDD=np.eye(size) + noise)


def counts(record: Jacobians) -> Measured:
    return resolvent_counts(record, rng=np.random.default_rng(0), near_radius=0.1)


def overlap(record: Jacobians) -> Measured:
    return residue_overlap(record, rng=np.random.default_rng(0))


def with_ends(seed: int, *, size: int = 24) -> Jacobians:
    rng = np.random.default_rng(seed + 1000)
    return dataclasses.replace(
        jacobians(seed, size=size),
        u_VD=rng.standard_normal((7, size)),
        e_TD=rng.standard_normal((6, size)),
    )


def logit(record: Jacobians) -> Measured:
    return logit_residues(record, rng=np.random.default_rng(0))


def poles(record: WeightMatrix) -> Measured:
    return stieltjes_poles(record, rng=np.random.default_rng(0))


def spiked(seed: int) -> WeightMatrix:
    w_OI = np.random.default_rng(seed).standard_normal((32, 80))
    w_OI[:2] *= 4
    return WeightMatrix(w_OI=w_OI)


def moments(seed: int, *, blocks: int = 8, tokens: int = 200, width: int = 20) -> Moments:
    rng = np.random.default_rng(seed)
    x_BTD = rng.standard_normal((blocks, tokens, width)) * np.r_[5.0, np.ones(width - 1)] + 1.0
    second = np.einsum("bti,btj->bij", x_BTD, x_BTD) / tokens
    return Moments(count_B=np.full(blocks, tokens), mean_BD=x_BTD.mean(axis=1), second_BDD=second)


def covariance(record: Moments) -> Measured:
    return covariance_poles(record, rng=np.random.default_rng(0))


def stack(seed: int, *, layers: int = 4, rows: int = 240, width: int = 6) -> DepthStack:
    rng = np.random.default_rng(seed)
    x_TD = rng.standard_normal((rows, width)) * np.linspace(1, 3, width)
    levels = [x_TD]
    for _ in range(layers):
        a_DD = np.eye(width) + 0.3 * rng.standard_normal((width, width)) / np.sqrt(width)
        levels.append(levels[-1] @ a_DD + 0.1 * rng.standard_normal((rows, width)))
    return DepthStack(x_LTD=np.array(levels), sequence_T=np.arange(rows))


def modes(record: DepthStack, *, rank: int = 4) -> Measured:
    return depth_modes(record, rng=np.random.default_rng(0), rank=rank, near_radius=0.1)


def numbers(measured: Measured) -> dict[str, tuple[float, float | None]]:
    return {k: (v.value, v.stderr) for k, v in measured.values.items() if isinstance(v, Estimate)}


def assert_equal(one: Measured, other: Measured) -> None:
    left, right = numbers(one), numbers(other)
    assert left.keys() == right.keys()
    for name in left:
        for one_number, other_number in zip(left[name], right[name], strict=True):
            if one_number is None:
                assert other_number is None
            else:
                assert one_number == pytest.approx(other_number, rel=1e-6, abs=1e-9), name


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


@pytest.mark.parametrize("invariant", [counts, overlap, logit])
def test_not_finite_is_refused(invariant) -> None:
    record = with_ends(6)
    broken = record.j_TDD.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(Refused, match="got 1 of .* entries not finite"):
        invariant(dataclasses.replace(record, j_TDD=broken))


@pytest.mark.parametrize("invariant", [counts, overlap, logit])
def test_structural_mode_that_is_none_is_refused(invariant) -> None:
    with pytest.raises(Refused, match="structural mode"):
        invariant(dataclasses.replace(with_ends(7), removes_mean=True))


def structural(leftover: float, gain: float) -> Jacobians:
    """A strong map that keeps an input but for the norm's epsilon."""
    rng = np.random.default_rng(20)
    h_D = rng.standard_normal(24)
    h_D /= np.linalg.norm(h_D)
    branch = gain * rng.standard_normal((24, 24)) / np.sqrt(24)
    branch -= np.outer(branch @ h_D, h_D)
    branch += np.outer(leftover * np.roll(h_D, 1), h_D)
    return Jacobians(j_TDD=(np.eye(24) + branch)[None], h_TD=h_D[None], parallel_residual=True)


def test_a_structural_mode_is_judged_by_what_the_map_moves() -> None:
    # the first block of a model with small embeddings: .05 of an input is left, a random one
    # moves by 7 times its length
    measured = counts(structural(leftover=0.06, gain=7.0))
    assert measured.flags["structural_residual"] == pytest.approx(0.06, rel=0.01)
    with pytest.raises(Refused, match="structural mode"):
        counts(structural(leftover=0.06, gain=0.5))
    with pytest.raises(Refused, match="structural mode"):
        counts(structural(leftover=0.7, gain=7.0))


def test_nothing_left_without_the_structural_mode_is_refused() -> None:
    with pytest.raises(Refused, match="width 1"):
        counts(Jacobians(j_TDD=np.ones((2, 1, 1)), removes_mean=True))


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


def test_rings_are_counted_between_their_circles() -> None:
    values = np.array([0.2, 0.89, 0.91, -0.95, 1.05, -1.09, 1.11, 3.0])
    measured = counts(Jacobians(j_TDD=np.diag(values)[None]))
    found = {name: value for name, (value, _) in numbers(measured).items()}
    assert found["count_inside_inner"] == pytest.approx(2 / 8)
    assert found["count_inside_outer"] == pytest.approx(6 / 8)
    assert found["count_ring"] == pytest.approx(4 / 8)
    flagged = counts(Jacobians(j_TDD=np.diag([0.9005, -1.1, 0.3])[None]))
    assert flagged.flags["at_ring_circles"] == 2


@FEW
@given(SEEDS)
def test_jacobian_invariants_under_rotation_and_permutation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    record = with_ends(seed % 1000, size=12)
    for q in (np.linalg.qr(rng.standard_normal((12, 12)))[0], np.eye(12)[rng.permutation(12)]):
        turned = dataclasses.replace(
            record,
            j_TDD=q @ record.j_TDD @ q.T,
            u_VD=record.u_VD @ q.T,
            e_TD=record.e_TD @ q.T,
        )
        for invariant in (counts, overlap, logit):
            assert_equal(invariant(record), invariant(turned))


@FEW
@given(SEEDS)
def test_logit_residues_under_any_change_of_basis(seed: int) -> None:
    rng = np.random.default_rng(seed)
    record = with_ends(seed % 1000, size=12)
    s = np.linalg.qr(rng.standard_normal((12, 12)))[0] * rng.uniform(0.3, 3, size=12)
    s = s @ np.linalg.qr(rng.standard_normal((12, 12)))[0]
    inverse = np.linalg.inv(s)
    moved = dataclasses.replace(
        record,
        j_TDD=inverse @ record.j_TDD @ s,
        u_VD=record.u_VD @ s,
        e_TD=record.e_TD @ inverse.T,
    )
    assert_equal(logit(record), logit(moved))


@pytest.mark.parametrize("missing", ["u_VD", "e_TD"])
def test_logit_residues_need_both_ends(missing: str) -> None:
    with pytest.raises(Refused, match="e_TD, u_VD: got none"):
        logit(dataclasses.replace(with_ends(10), **{missing: None}))


def test_logit_residues_refuse_what_is_not_finite_or_vanishes_or_is_defective() -> None:
    record = with_ends(11)
    with pytest.raises(Refused, match="not finite"):
        logit(dataclasses.replace(record, u_VD=record.u_VD * np.inf))
    with pytest.raises(Refused, match="all vanish"):
        logit(dataclasses.replace(record, e_TD=0 * record.e_TD))
    jordan = np.diag([0.5, 0.5, 0.2]) + np.diag([1.0, 0], k=1)
    ends = np.ones((1, 3))
    with pytest.raises(Refused, match="defective"):
        logit(Jacobians(j_TDD=jordan[None], u_VD=ends, e_TD=ends))


def test_orthogonal_ends_have_no_cancellation_ratio() -> None:
    # a normal map, u orthogonal to v: the residues cancel exactly
    a = np.diag([0.5, 2.0])
    measured = logit(Jacobians(j_TDD=a[None], u_VD=np.array([[1.0, -1]]), e_TD=np.ones((1, 2))))
    assert isinstance(measured.values["leading_residue"], Refused)
    assert numbers(measured)["leading_share"][0] == pytest.approx(0.5)


@FEWER
@given(SEEDS, st.floats(min_value=1e-3, max_value=1e3))
def test_stieltjes_poles_under_rotation_permutation_transposition_scale(
    seed: int, scale: float
) -> None:
    record, rng = spiked(seed % 1000), np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (32, 80))
    own = poles(record)
    for w_OI in (
        left @ record.w_OI @ right,
        record.w_OI[rng.permutation(32)][:, rng.permutation(80)],
        record.w_OI.T,
        scale * record.w_OI,
    ):
        assert_equal(own, poles(WeightMatrix(w_OI=w_OI)))


def test_stieltjes_poles_refusals() -> None:
    with pytest.raises(Refused, match="got 8, allowed >= 16"):
        poles(WeightMatrix(w_OI=np.random.default_rng(0).standard_normal((8, 80))))
    with pytest.raises(Refused, match="not finite|axes"):
        poles(WeightMatrix(w_OI=np.full((20, 20), np.nan)))
    with pytest.raises(Refused, match="half of them vanish"):
        poles(WeightMatrix(w_OI=np.random.default_rng(0).standard_normal((40, 1)) * np.ones(50)))


def test_error_of_the_leading_pole_is_that_of_fresh_samples() -> None:
    found = []
    for seed in range(14):
        w_OI = np.random.default_rng(seed).standard_normal((40, 160))
        w_OI[0] *= 4
        value = poles(WeightMatrix(w_OI=w_OI)).values["leading_over_edge"]
        assert isinstance(value, Estimate)
        found.append(value)
    spread = np.std([e.value for e in found], ddof=1)
    stderr = np.sqrt(np.mean([e.stderr**2 for e in found if e.stderr is not None]))
    assert stderr == pytest.approx(spread, rel=0.5)


@FEWER
@given(SEEDS, st.floats(min_value=1e-3, max_value=1e3))
def test_covariance_poles_under_rotation_scale_translation(seed: int, scale: float) -> None:
    record, rng = moments(seed % 1000), np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    shift = rng.standard_normal(20)
    mean = scale * record.mean_BD @ q
    cross = mean[:, :, None] * shift
    second = scale**2 * q.T @ record.second_BDD @ q + cross + cross.swapaxes(1, 2)
    moved = dataclasses.replace(
        record, mean_BD=mean + shift, second_BDD=second + np.outer(shift, shift)
    )
    assert_equal(covariance(record), covariance(moved))


def test_covariance_poles_without_the_all_ones_direction() -> None:
    record = moments(3)
    strong = 9.0 * np.ones((20, 20))  # each row has its own multiple of all-ones added
    shifted = dataclasses.replace(record, second_BDD=record.second_BDD + strong)
    assert_equal(
        covariance(dataclasses.replace(record, removes_mean=True)),
        covariance(dataclasses.replace(shifted, removes_mean=True)),
    )
    assert numbers(covariance(shifted)) != numbers(covariance(record))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (moments(0, blocks=4, tokens=800), "blocks: got 4, allowed >= 8"),
        (moments(0, tokens=100), "tokens per dimension: got 40, allowed >= 50"),
        (moments(0, width=10), "eigenvalues: got 10, allowed >= 16"),
    ],
)
def test_covariance_poles_refusals(record: Moments, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        covariance(record)


@FEW
@given(SEEDS, st.floats(min_value=1e-3, max_value=1e3))
def test_depth_modes_under_rotation_scale_translation(seed: int, scale: float) -> None:
    record, rng = stack(seed % 1000), np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    x_LTD = scale * record.x_LTD @ q + rng.standard_normal(6)
    assert_equal(modes(record), modes(dataclasses.replace(record, x_LTD=x_LTD)))


@FEW
@given(SEEDS)
def test_eigenvalues_at_full_rank_under_any_change_of_basis(seed: int) -> None:
    record, rng = stack(seed % 1000, width=4), np.random.default_rng(seed)
    s = np.linalg.qr(rng.standard_normal((4, 4)))[0] * rng.uniform(0.5, 2, size=4)
    moved = modes(dataclasses.replace(record, x_LTD=record.x_LTD @ s))
    own = modes(record)
    for name in ("spectral_radius", "inside_unit", "near_one"):
        assert numbers(moved)[name] == pytest.approx(numbers(own)[name], rel=1e-6, abs=1e-9)


def test_depth_modes_take_off_the_mean_of_the_units() -> None:
    record = dataclasses.replace(stack(2), removes_mean=True)
    c_LT1 = np.random.default_rng(3).standard_normal((5, 240, 1))
    assert_equal(modes(record), modes(dataclasses.replace(record, x_LTD=record.x_LTD + c_LT1)))


def test_depth_modes_do_not_depend_on_the_order_of_sequences_in_the_record() -> None:
    record, order = stack(4), np.random.default_rng(5).permutation(240)
    shuffled = dataclasses.replace(
        record, x_LTD=record.x_LTD[:, order], sequence_T=record.sequence_T[order]
    )
    assert_equal(modes(record), modes(shuffled))


@pytest.mark.parametrize(
    ("record", "rank", "reason"),
    [
        (stack(0, layers=2), 4, "layers: got 2, allowed >= 3"),
        (stack(0, rows=199), 4, "sequences: got 199, allowed >= 50 \\* rank = 200"),
        (stack(0, rows=400, width=6), 7, "rank: got 7, the rows span 6 directions"),
    ],
)
def test_depth_modes_refusals(record: DepthStack, rank: int, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        modes(record, rank=rank)


def test_layers_that_do_nothing_are_refused() -> None:
    record = stack(6)
    with pytest.raises(Refused, match="does not change over depth"):
        modes(dataclasses.replace(record, x_LTD=record.x_LTD[:1].repeat(5, axis=0)))


def test_error_of_the_modes_is_that_of_fresh_samples() -> None:
    def sample(seed: int) -> Estimate:
        rng = np.random.default_rng(seed)
        x_TD = rng.standard_normal((400, 2))
        levels = [x_TD]
        for _ in range(3):
            levels.append(0.8 * levels[-1] + 0.3 * rng.standard_normal((400, 2)))
        record = DepthStack(x_LTD=np.array(levels), sequence_T=np.arange(400))
        value = modes(record, rank=2).values["prediction_error"]
        assert isinstance(value, Estimate)
        return value

    found = [sample(seed) for seed in range(30)]
    spread = np.std([e.value for e in found], ddof=1)
    stderr = np.sqrt(np.mean([e.stderr**2 for e in found if e.stderr is not None]))
    assert stderr == pytest.approx(spread, rel=0.5)


def test_zero_rows_and_columns_are_no_poles() -> None:
    full = spiked(5).w_OI
    padded = np.pad(full, ((3, 9), (0, 40)))
    found = poles(WeightMatrix(w_OI=padded))
    assert numbers(found) == numbers(poles(WeightMatrix(w_OI=full)))
    assert found.flags["zero_rows_columns"] == 52


def test_covariance_within_the_rounding_of_the_moments_is_refused() -> None:
    record, offset = moments(4), 1e8
    cross = offset * (record.mean_BD[:, :, None] + record.mean_BD[:, None, :])
    far = dataclasses.replace(
        record, mean_BD=record.mean_BD + offset, second_BDD=record.second_BDD + cross + offset**2
    )
    for removes_mean in (False, True):
        with pytest.raises(Refused, match="vanish within the rounding of the moments"):
            covariance(dataclasses.replace(far, removes_mean=removes_mean))


def test_readers_of_nothing_are_left_out() -> None:
    record = with_ends(12)
    assert record.u_VD is not None
    padded = dataclasses.replace(record, u_VD=np.vstack([record.u_VD, np.zeros((3, 24))]))
    assert numbers(logit(padded)) == numbers(logit(record))
    assert logit(padded).flags["zero_readers"] == 3
    with pytest.raises(Refused, match="all 7 rows are zero"):
        logit(dataclasses.replace(record, u_VD=0 * record.u_VD))


def test_a_structural_mode_has_a_direction() -> None:
    h_TD = np.ones((6, 24))
    h_TD[2] = 0
    record = dataclasses.replace(jacobians(13), h_TD=h_TD, parallel_residual=True)
    with pytest.raises(Refused, match="h_TD: is zero at 1 of 6 positions"):
        counts(record)
