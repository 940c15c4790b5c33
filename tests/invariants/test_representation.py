"""Representation spectra: symmetries, refusals, flags."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import Refused
from scaleinv_ray.invariants.representation import covariance_decay, participation
from scaleinv_ray.records import Moments

DIM = 20
many = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def moments_of(x_TD: np.ndarray, *, num_blocks: int = 5, removes_mean: bool = False) -> Moments:
    parts = np.array_split(x_TD, num_blocks)
    return Moments(
        count_B=np.array([len(part) for part in parts]),
        mean_BD=np.array([part.mean(axis=0) for part in parts]),
        second_BDD=np.array([part.T @ part / len(part) for part in parts]),
        removes_mean=removes_mean,
    )


def sample(rng: np.random.Generator, *, num_tokens: int = 50 * DIM) -> np.ndarray:
    mixing = rng.standard_normal((DIM, DIM)) * np.arange(1, DIM + 1.0) ** -0.5
    return rng.standard_normal((num_tokens, DIM)) @ mixing


def numbers(moments: Moments) -> dict[str, float]:
    found = {}
    for function in (covariance_decay, participation):
        measured = function(moments, rng=np.random.default_rng(0))
        for name, estimate in measured.values.items():
            found |= {name: estimate.value, f"{name} stderr": estimate.stderr}
    return found


@pytest.fixture(params=[covariance_decay, participation])
def function(request):
    return request.param


def rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


CHANGES = {
    "rotation": lambda x, rng: x @ rotation(DIM, rng),
    "permutation": lambda x, rng: x[:, rng.permutation(DIM)],
    "scale": lambda x, rng: x * 10 ** rng.uniform(-4, 4),
    "translation": lambda x, rng: x + 5 * rng.standard_normal(DIM),
    "mean_shift": lambda x, rng: x + 5 * rng.standard_normal((len(x), 1)),
}


@many
@given(seed=seeds, change=st.sampled_from(["rotation", "permutation", "scale", "translation"]))
def test_symmetries(seed, change):
    rng = np.random.default_rng(seed)
    x_TD = sample(rng)
    moved = CHANGES[change](x_TD, rng)
    assert numbers(moments_of(moved)) == pytest.approx(numbers(moments_of(x_TD)), rel=1e-6)


@many
@given(seed=seeds, change=st.sampled_from(["mean_shift", "permutation", "scale", "translation"]))
def test_symmetries_where_the_mean_is_removed(seed, change):
    rng = np.random.default_rng(seed)
    x_TD = sample(rng)
    before = numbers(moments_of(x_TD, removes_mean=True))
    moved = CHANGES[change](x_TD, rng)
    assert numbers(moments_of(moved, removes_mean=True)) == pytest.approx(before, rel=1e-6)


def test_mean_shift_and_rotation_exclude_each_other():
    rng = np.random.default_rng(0)
    x_TD = sample(rng)
    for change, removes_mean in (("mean_shift", False), ("rotation", True)):
        before = numbers(moments_of(x_TD, removes_mean=removes_mean))
        after = numbers(moments_of(CHANGES[change](x_TD, rng), removes_mean=removes_mean))
        assert abs(after["participation_ratio"] / before["participation_ratio"] - 1) > 1e-3


def test_refuses_too_few_tokens_and_says_how_many(function):
    few = moments_of(sample(np.random.default_rng(1), num_tokens=50 * DIM - 1))
    with pytest.raises(Refused, match=r"999 tokens for D = 20 are 49\.95 a dimension, needs 50"):
        function(few, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("function", "needed"), [(covariance_decay, 4), (participation, 5)])
def test_refuses_too_few_blocks(function, needed):
    x_TD = sample(np.random.default_rng(1))
    with pytest.raises(Refused, match=f"3 of 3 blocks have tokens, needs {needed}"):
        function(moments_of(x_TD, num_blocks=3), rng=np.random.default_rng(0))
    function(moments_of(x_TD, num_blocks=needed), rng=np.random.default_rng(0))
    empty = dataclasses.replace(moments_of(x_TD), count_B=np.array([0, 250, 250, 250, 250]))
    with pytest.raises(Refused, match="4 of 5 blocks have tokens"):
        function(empty, rng=np.random.default_rng(0))


def test_refuses_what_does_not_vary_or_is_not_finite(function):
    constant = np.full((50 * DIM, DIM), 0.7)
    with pytest.raises(Refused, match="do not vary"):
        function(moments_of(constant), rng=np.random.default_rng(0))
    only_means = np.random.default_rng(2).standard_normal((50 * DIM, 1)) * np.ones(DIM)
    with pytest.raises(Refused, match="do not vary"):
        function(moments_of(only_means, removes_mean=True), rng=np.random.default_rng(0))
    broken = moments_of(sample(np.random.default_rng(3)))
    broken.mean_BD[2, 1] = np.nan
    with pytest.raises(Refused, match="not finite"):
        function(broken, rng=np.random.default_rng(0))
    with pytest.raises(Refused, match="D = 1"):
        function(moments_of(np.ones((90, 1))), rng=np.random.default_rng(0))


def test_participation_of_blocks_that_share_no_direction_is_refused():
    blocks = np.zeros((5, 10, 10))
    for b in range(5):
        blocks[b, 2 * b, 2 * b] = 1.0  # every covariance of one block is orthogonal to the others
    record = Moments(count_B=np.full(5, 100), mean_BD=np.zeros((5, 10)), second_BDD=blocks)
    with pytest.raises(Refused, match="square is <= 0"):
        participation(record, rng=np.random.default_rng(0))


def test_names_moments_that_do_not_fit_together(function):
    record = moments_of(sample(np.random.default_rng(4)))
    broken = dataclasses.replace(record, second_BDD=record.second_BDD[:, :-1])
    with pytest.raises(ValueError, match="second_BDD: got shape"):
        function(broken, rng=np.random.default_rng(0))


def test_exponent_alone_is_refused_in_few_dimensions_or_with_dead_units():
    narrow = sample(np.random.default_rng(5))[:, :12]
    found = covariance_decay(moments_of(narrow), rng=np.random.default_rng(0)).values
    assert "6 ranks in 2-50 % of D = 12, needs 8" in str(found["exponent"])
    assert found["rankme"].stderr > 0
    dead = sample(np.random.default_rng(6))
    dead[:, 7:] = 1.5
    found = covariance_decay(moments_of(dead), rng=np.random.default_rng(0)).values
    assert "3 eigenvalues in 2-50 % of D vanish" in str(found["exponent"])
    assert 0 < found["rankme"].value <= 7 / DIM


def test_flags_and_curve():
    x_TD = sample(np.random.default_rng(7))
    measured = covariance_decay(moments_of(x_TD, removes_mean=True), rng=np.random.default_rng(0))
    assert measured.flags == {"tokens_per_dim": 50.0, "dimensions": DIM - 1}
    curve = measured.curves["eigenvalues"]
    assert len(curve.x) == DIM - 1
    assert (curve.x[0], curve.x[-1]) == (1 / (DIM - 1), 1.0)
    assert (curve.y_stderr > 0).all()
    assert all(len(e.samples) == 5 for e in measured.values.values())


def test_dimensions_and_ratio_are_one_quantity():
    x_TD = sample(np.random.default_rng(8))
    for removes_mean, dim in ((False, DIM), (True, DIM - 1)):
        record = moments_of(x_TD, removes_mean=removes_mean)
        measured = participation(record, rng=np.random.default_rng(0))
        found = measured.values
        assert found["participation_dimensions"].value == pytest.approx(
            dim * found["participation_ratio"].value, rel=1e-12
        )
        assert measured.flags == {"tokens_per_dim": 50.0, "dimensions": dim}


def test_variance_within_the_rounding_of_the_moments_is_refused():
    x_TD = np.random.default_rng(0).standard_normal((50 * DIM, DIM))
    near = participation(moments_of(x_TD + 1e3), rng=np.random.default_rng(0)).values
    want = participation(moments_of(x_TD), rng=np.random.default_rng(0)).values
    for name, estimate in want.items():
        assert near[name].value == pytest.approx(estimate.value, rel=1e-6)
    with pytest.raises(Refused, match="lies within the rounding of the moments"):
        participation(moments_of(x_TD + 1e7), rng=np.random.default_rng(0))
