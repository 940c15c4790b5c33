"""Weight spectra: symmetries, refusals, flags, dtypes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.common.covariance import gram_eigenvalues
from scaleinv_ray.invariants.weights import (
    fixed_aspect_tail,
    shuffle_null,
    weight_spikes,
    weight_tail,
)
from scaleinv_ray.records import WeightMatrix

many = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(8, 40), st.integers(8, 40))


def orthogonal(dim: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


def values(function, w_OI: np.ndarray) -> dict[str, float]:
    measured = function(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))
    return {name: estimate.value for name, estimate in measured.values.items()}


def rotated(w_OI, rng):
    return orthogonal(w_OI.shape[0], rng) @ w_OI @ orthogonal(w_OI.shape[1], rng)


def permuted(w_OI, rng):
    return w_OI[rng.permutation(w_OI.shape[0])][:, rng.permutation(w_OI.shape[1])]


@many
@given(seed=seeds, shape=shapes, change=st.sampled_from(["rotation", "permutation", "transpose"]))
def test_symmetries(seed, shape, change):
    rng = np.random.default_rng(seed)
    w_OI = rng.standard_t(4, shape)
    moved = {
        "rotation": lambda: rotated(w_OI, rng),
        "permutation": lambda: permuted(w_OI, rng),
        "transpose": lambda: w_OI.T,
    }[change]()
    for function in (weight_tail, weight_spikes):
        assert values(function, moved) == pytest.approx(values(function, w_OI), rel=1e-6, abs=1e-9)


@many
@given(seed=seeds, shape=shapes, log_scale=st.floats(-3, 3))
def test_scale_leaves_the_spikes_and_shifts_the_norms(seed, shape, log_scale):
    w_OI = np.random.default_rng(seed).standard_t(4, shape)
    scaled = w_OI * 10**log_scale
    assert values(weight_spikes, scaled) == pytest.approx(values(weight_spikes, w_OI), rel=1e-8)
    if (gram_eigenvalues(scaled) > 1e-5).all() and (gram_eigenvalues(w_OI) > 1e-5).all():
        before, after = values(weight_tail, w_OI), values(weight_tail, scaled)
        for name in ("alpha", "stable_rank", "entropy"):
            assert after[name] == pytest.approx(before[name], rel=1e-6)
        for name in ("log_norm", "log_spectral_norm"):
            assert after[name] == pytest.approx(before[name] + 2 * log_scale, abs=1e-9)


@pytest.mark.parametrize(
    ("w_OI", "reason"),
    [
        (np.ones(12), r"shape \(12,\)"),
        (np.ones((3, 4, 5)), r"shape \(3, 4, 5\)"),
        (np.ones((0, 9)), r"shape \(0, 9\)"),
        (np.full((9, 9), np.nan), "not finite"),
        (np.where(np.eye(9) > 0, np.inf, 1.0), "not finite"),
        (np.ones((30, 30)), "1 eigenvalues"),
        (np.zeros((30, 30)), "0 eigenvalues"),
        (np.diag(np.arange(1.0, 5.0)), "4 eigenvalues"),
        (1e-4 * np.eye(30), "0 eigenvalues > 1e-05"),
        (np.eye(30), "all 30 eigenvalues are equal"),
    ],
)
def test_weight_tail_refuses(w_OI, reason):
    with pytest.raises(Refused, match=reason):
        weight_tail(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("w_OI", "reason"),
    [
        (np.ones(12), "allowed 2 axes"),
        (np.full((9, 9), np.nan), "not finite"),
        (np.diag(np.arange(1.0, 5.0)), "4 eigenvalues"),
        (np.ones((30, 30)), "rank below half"),
        (np.zeros((30, 30)), "rank below half"),
    ],
)
def test_weight_spikes_refuses(w_OI, reason):
    with pytest.raises(Refused, match=reason):
        weight_spikes(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))


def test_wrong_arguments_are_named():
    matrix, rng = WeightMatrix(w_OI=np.diag(np.arange(1.0, 65.0))), np.random.default_rng(0)
    for function in (weight_tail, fixed_aspect_tail):
        with pytest.raises(ValueError, match="num_null: got 1"):
            function(matrix, rng=rng, num_null=1)
    with pytest.raises(ValueError, match="num_shuffles: got 1"):
        shuffle_null(matrix, rng=rng, num_shuffles=1)
    with pytest.raises(ValueError, match="precision: got 'half'"):
        weight_tail(matrix, rng=rng, precision="half")
    for wrong in ({"aspect": 0.5}, {"aspect": math.nan}, {"num_submatrices": 3}):
        with pytest.raises(ValueError, match="aspect, num_submatrices: got"):
            fixed_aspect_tail(matrix, rng=rng, **wrong)


@pytest.mark.parametrize(
    ("w_OI", "reason"),
    [
        (np.ones(64), "allowed 2 axes"),
        (np.full((64, 64), np.nan), "not finite"),
        (np.ones((15, 300)), r"shape \(15, 300\), 64 disjoint .* side >= 8"),
        (np.ones((128, 128)), "rank of the sub-matrices below half"),
        (np.zeros((128, 128)), "rank of the sub-matrices below half"),
    ],
)
def test_fixed_aspect_tail_refuses(w_OI, reason):
    with pytest.raises(Refused, match=reason):
        fixed_aspect_tail(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0), num_submatrices=64)


@pytest.mark.parametrize(
    ("w_OI", "reason"),
    [
        (np.ones(64), "allowed 2 axes"),
        (np.full((9, 9), np.nan), "not finite"),
        (np.zeros((9, 9)), "0 eigenvalues"),
        (np.diag(np.arange(1.0, 5.0)), "4 eigenvalues"),
    ],
)
def test_shuffle_null_refuses(w_OI, reason):
    with pytest.raises(Refused, match=reason):
        shuffle_null(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))


@many
@given(seed=seeds, log_scale=st.floats(-12, 12))
def test_scale_leaves_the_fixed_aspect_tail(seed, log_scale):
    w_OI = np.random.default_rng(seed).standard_t(4, (40, 50))
    scaled = values(fixed_aspect_tail, w_OI * 10**log_scale)
    assert scaled == pytest.approx(values(fixed_aspect_tail, w_OI), rel=1e-6)


def test_the_sign_of_an_entry_and_its_place_are_what_a_shuffle_loses():
    """A constant matrix with random signs is noise to the last; the same without signs is not."""
    rng = np.random.default_rng(5)
    signs = rng.choice([-1.0, 1.0], (40, 60))
    assert abs(values(shuffle_null, signs)["norm_excess"]) < 0.2
    banded = np.where(np.arange(40)[:, None] < 20, 3.0, 0.3) * signs
    assert values(shuffle_null, banded)["norm_excess"] > 0.2


def test_float32_moves_alpha_by_less_than_stated():
    rng = np.random.default_rng(6)
    moved = []
    for shape in ((64, 64), (96, 384), (300, 200)):
        matrix = WeightMatrix(w_OI=rng.standard_t(4, shape))
        double, single = (
            weight_tail(matrix, rng=np.random.default_rng(0), precision=p)
            for p in ("float64", "float32")
        )
        moved.append(abs(single.values["alpha"].value - double.values["alpha"].value))
        for name in ("stable_rank", "log_norm", "log_spectral_norm"):
            assert single.values[name].value == pytest.approx(double.values[name].value, rel=1e-5)
        # ln rank counts what is above the rounding error of the precision
        assert single.flags["rank_loss"] >= double.flags["rank_loss"] == 0
    assert 0 < max(moved) < 1e-3


def test_rank_is_judged_by_the_precision():
    rng = np.random.default_rng(7)
    w_OI = rng.standard_normal((40, 12)) @ rng.standard_normal((12, 60))
    for precision in ("float64", "float32"):
        found = weight_tail(WeightMatrix(w_OI=w_OI), rng=rng, precision=precision)
        assert found.flags["rank_loss"] == 28
        assert found.values["alpha"].n <= 12


def test_poor_and_short_tails_are_flagged_not_refused():
    rng = np.random.default_rng(1)
    short = weight_tail(WeightMatrix(w_OI=rng.standard_normal((16, 64))), rng=rng)
    assert "n_tail" in short.flags["warn"]
    assert short.flags["n_tail"] < 20
    two_levels = np.sqrt(np.r_[np.linspace(1, 1.01, 30), np.linspace(9, 9.01, 30)])
    poor = weight_tail(WeightMatrix(w_OI=np.diag(two_levels)), rng=rng)
    assert poor.flags["D"] > 0.1
    assert "D 0." in poor.flags["warn"]
    pareto = np.sqrt((1 - rng.random(300)) ** -0.5)
    good = weight_tail(WeightMatrix(w_OI=np.diag(pareto), dtype="bfloat16"), rng=rng)
    assert "warn" not in good.flags
    assert good.flags["dtype"] == "bfloat16"


def test_rank_loss_and_entropy_of_a_projection():
    rng = np.random.default_rng(2)
    # 12 of 30 directions, of nearly equal weight: entropy ~ ln 12 / ln 12
    basis = orthogonal(30, rng)[:12]
    w_OI = basis.T * np.linspace(1, 1.001, 12) @ basis
    measured = weight_tail(WeightMatrix(w_OI=w_OI), rng=rng)
    assert measured.flags["rank_loss"] == 18
    assert measured.values["entropy"].value == pytest.approx(1, abs=1e-5)
    assert measured.values["stable_rank"].value == pytest.approx(12, rel=2e-3)


def test_density_integrates_to_one_on_the_common_grid():
    rng = np.random.default_rng(3)
    curves = [
        weight_tail(WeightMatrix(w_OI=rng.standard_normal((m, 4 * m))), rng=rng).curves
        for m in (16, 64)
    ]
    small, large = (c["spectral_density"] for c in curves)
    assert np.array_equal(small.x, large.x)
    for curve in (small, large):
        assert curve.y.sum() * (curve.x[1] - curve.x[0]) == pytest.approx(1)


@pytest.mark.parametrize("function", [weight_tail, fixed_aspect_tail, shuffle_null])
def test_same_rng_same_result(function):
    w_OI = np.random.default_rng(4).standard_normal((40, 60))
    assert values(function, w_OI) == values(function, w_OI)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("function", [weight_tail, shuffle_null])
def test_orthogonal_matrices_have_no_tail(function, dtype):
    w_OI = orthogonal(128, np.random.default_rng(0)).astype(dtype)
    with pytest.raises(Refused, match="equal within rounding, there is no tail"):
        function(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))


def test_noise_in_half_precision_keeps_its_tail():
    w_OI = np.random.default_rng(0).standard_normal((8, 4096)).astype(np.float16)  # narrow bulk
    assert values(weight_tail, w_OI)["alpha"] > 1


def test_pruned_units_and_padding_are_no_spikes():
    full_OI = np.random.default_rng(0).standard_normal((96, 312))
    w_OI = np.insert(np.insert(full_OI, [0] * 150 + [200] * 50, 0.0, axis=1), [5] * 20, 0.0, axis=0)
    assert values(weight_spikes, w_OI) == pytest.approx(values(weight_spikes, full_OI))
    assert values(fixed_aspect_tail, w_OI) == pytest.approx(values(fixed_aspect_tail, full_OI))
    found, want = values(weight_tail, w_OI), values(weight_tail, full_OI)
    for name in ("alpha", "alpha_null_z", "stable_rank"):
        assert found[name] == pytest.approx(want[name], rel=1e-9)
    for function in (weight_spikes, fixed_aspect_tail, weight_tail):
        measured = function(WeightMatrix(w_OI=w_OI), rng=np.random.default_rng(0))
        assert measured.flags["zero_rows_columns"] == 220
