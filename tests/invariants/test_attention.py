"""Behaviour and refusals of the invariants of attention patterns."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.attention import attention_decay, attention_topology
from scaleinv_ray.records import Attention

RNG = np.random.default_rng(0)
BOTH = [attention_decay, attention_topology]


def patterns(rng: np.random.Generator, sequences: int = 3, length: int = 20) -> np.ndarray:
    weight = np.exp(rng.normal(size=(sequences, length, length))) * np.tri(length)
    return weight / weight.sum(axis=2, keepdims=True)


def changed(a_STT: np.ndarray, at: tuple[int, int, int], value: float) -> np.ndarray:
    a_STT = a_STT.copy()
    a_STT[at] = value
    return a_STT


@pytest.mark.parametrize("invariant", BOTH)
def test_errors_are_over_sequences(invariant: Callable[..., Measured]) -> None:
    a_STT = patterns(np.random.default_rng(1))
    found = invariant(Attention(a_STT=a_STT), rng=RNG)
    for name, value in found.values.items():
        assert isinstance(value, Estimate)
        assert value.n == (1 if name == "sink_mass_uniform" else 3)
        assert value.stderr is not None
    alone = invariant(Attention(a_STT=a_STT[:1]), rng=RNG)
    unknown = {n for n, v in alone.values.items() if v.stderr is None}
    assert unknown == set(found.values) - {"sink_mass_uniform"}


@pytest.mark.parametrize("invariant", BOTH)
@pytest.mark.parametrize(
    ("a_STT", "reason"),
    [
        (changed(patterns(RNG), (1, 4, 2), np.nan), "not finite"),
        (changed(patterns(RNG), (1, 4, 2), -0.1), "negative"),
        (patterns(RNG) * 0.99, r"sum is off 1 by 0\.01"),
    ],
)
def test_rows_have_to_be_distributions(
    invariant: Callable[..., Measured], a_STT: np.ndarray, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        invariant(Attention(a_STT=a_STT), rng=RNG)


@pytest.mark.parametrize("invariant", BOTH)
def test_shapes_and_parameters(invariant: Callable[..., Measured]) -> None:
    with pytest.raises(ValueError, match=r"a_STT: got shape \(20, 20\)"):
        invariant(Attention(a_STT=patterns(RNG)[0]), rng=RNG)
    with pytest.raises(ValueError, match="skip_positions: got -1"):
        invariant(Attention(a_STT=patterns(RNG)), rng=RNG, skip_positions=-1)
    with pytest.raises(Refused, match="a_STT: got 20 tokens, 18 of them skipped, needs"):
        invariant(Attention(a_STT=patterns(RNG)), rng=RNG, skip_positions=18)
    with pytest.raises(Refused, match="a_STT: got 4 tokens"):
        invariant(Attention(a_STT=patterns(RNG, length=4)), rng=RNG)


def test_grid_of_the_betti_curves() -> None:
    with pytest.raises(ValueError, match="num_grid: got 1"):
        attention_topology(Attention(a_STT=patterns(RNG)), rng=RNG, num_grid=1)


@pytest.mark.parametrize("invariant", BOTH)
def test_rounding_to_bfloat16_is_allowed(invariant: Callable[..., Measured]) -> None:
    a_STT = patterns(np.random.default_rng(2), length=64)
    bits = (a_STT.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000
    rounded = bits.view(np.float32)
    assert np.abs(rounded.sum(axis=2) - 1).max() > 1e-3
    expected = invariant(Attention(a_STT=a_STT), rng=RNG).values
    for name, value in invariant(Attention(a_STT=rounded), rng=RNG).values.items():
        assert value.value == pytest.approx(expected[name].value, rel=1e-2, abs=1e-3)


def test_decay_needs_causal_attention() -> None:
    with pytest.raises(Refused, match="after its query, needs causal attention"):
        attention_decay(Attention(a_STT=np.full((2, 20, 20), 0.05)), rng=RNG)


def test_a_sequence_on_the_sink_has_no_mean_distance() -> None:
    a_STT = patterns(np.random.default_rng(3))
    a_STT[0] = np.eye(20)[0]
    values = attention_decay(Attention(a_STT=a_STT), rng=RNG).values
    refused = {name: str(value) for name, value in values.items() if isinstance(value, Refused)}
    assert refused == {"mean_distance": "mean_distance: no mass off the sink in 1 of 3 sequences"}


def test_a_distance_without_mass_has_no_logarithm() -> None:
    a_STT = np.eye(20) * np.ones((3, 1, 1))
    a_STT[:, 1:] = (np.eye(20) + np.eye(20, k=-1))[1:] / 2
    exponent = attention_decay(Attention(a_STT=a_STT), rng=RNG).values["decay_exponent"]
    assert isinstance(exponent, Refused)
    assert "no mass at distance 3 in 3 of 3 sequences" in str(exponent)
    # Mass in a single sequence is lost where that one is left out.
    a_STT[0] = np.tri(20) / np.arange(1, 21)[:, None]
    exponent = attention_decay(Attention(a_STT=a_STT), rng=RNG).values["decay_exponent"]
    assert isinstance(exponent, Refused)
    a_STT[1] = a_STT[0]
    exponent = attention_decay(Attention(a_STT=a_STT), rng=RNG).values["decay_exponent"]
    assert isinstance(exponent, Estimate)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(4, 16))
def test_topology_does_not_see_the_order_of_tokens(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    a_STT, order = patterns(rng, length=length), rng.permutation(length)
    before, after = (
        attention_topology(Attention(a_STT=a), rng=RNG, skip_positions=0)
        for a in (a_STT, a_STT[:, order][:, :, order])
    )
    for name, value in before.values.items():
        assert after.values[name].value == pytest.approx(value.value, rel=1e-9, abs=1e-12)
    for k in ("betti_0", "betti_1"):
        np.testing.assert_array_equal(after.curves[k].y, before.curves[k].y)
