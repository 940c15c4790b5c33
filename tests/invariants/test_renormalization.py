"""Behaviour of the coarse-graining: pairing, errors, refusals, symmetries."""

import dataclasses

import numpy as np
import pytest

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.renormalization import critical_exponents, greedy_pairs
from scaleinv_ray.records import Activations


def stream(seed: int, *, num_sequences: int = 64, num_positions: int = 64) -> Activations:
    """64 correlated units with memory, T/N = 64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_sequences, num_positions, 64))
    for position in range(1, num_positions):
        x[:, position] += 0.6 * x[:, position - 1]
    mixing = np.random.default_rng(99).standard_normal((64, 64)) * np.arange(1, 65) ** -0.5
    x = x @ (mixing + 4 * np.eye(64))
    return Activations(
        x_TD=x.reshape(-1, 64),
        sequence_T=np.repeat(np.arange(num_sequences), num_positions),
        position_T=np.tile(np.arange(num_positions), num_sequences),
    )


def measure(record: Activations, *, skip_positions: int = 0, num_blocks: int = 8) -> Measured:
    return critical_exponents(
        record,
        rng=np.random.default_rng(0),
        skip_positions=skip_positions,
        num_blocks=num_blocks,
    )


def numbers(measured: Measured) -> dict[str, tuple[float, float | None]]:
    return {k: (v.value, v.stderr) for k, v in measured.values.items() if isinstance(v, Estimate)}


def assert_equal(one: Measured, other: Measured, *, rtol: float = 1e-6) -> None:
    left, right = numbers(one), numbers(other)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name] == pytest.approx(right[name], rel=rtol, abs=1e-8), name


@pytest.mark.parametrize("size", [2, 7, 40])
def test_pairs_are_those_of_the_walk_through_all_pairs(size: int) -> None:
    similarity = np.random.default_rng(size).standard_normal((size, size))
    similarity += similarity.T
    free, expected = set(range(size)), set()
    rows, columns = np.triu_indices(size, 1)
    for k in np.argsort(-similarity[rows, columns]):
        pair = {int(rows[k]), int(columns[k])}
        if pair <= free:
            free -= pair
            expected.add(frozenset(pair))
    assert {frozenset(map(int, pair)) for pair in greedy_pairs(similarity)} == expected


def test_ties_are_paired_and_no_unit_twice() -> None:
    pairs = greedy_pairs(np.ones((9, 9)))
    assert len(set(pairs.ravel().tolist())) == 8


def test_all_quantities_and_curves() -> None:
    measured = measure(stream(0))
    assert set(numbers(measured)) == {
        "alpha_tilde",
        "mu",
        "z_tilde",
        "consistency",
        "alpha_tilde_rotated",
        "mu_rotated",
    }
    value = {name: number for name, (number, _) in numbers(measured).items()}
    assert value["consistency"] == pytest.approx(value["alpha_tilde"] - 1 - value["mu"])
    assert measured.curves["variance_flow"].x.tolist() == [1, 2, 4, 8, 16]
    assert measured.curves["variance_flow"].y[0] == 1
    assert measured.curves["cluster_spectrum"].y.sum() == pytest.approx(16)


def test_same_rng_same_result_and_rotation_depends_on_it() -> None:
    record = stream(1)
    assert_equal(measure(record), measure(record), rtol=0)
    other = critical_exponents(record, rng=np.random.default_rng(5), skip_positions=0)
    assert numbers(other)["mu"] == numbers(measure(record))["mu"]
    assert numbers(other)["mu_rotated"] != numbers(measure(record))["mu_rotated"]


def test_renaming_units_changes_nothing() -> None:
    record = stream(2)
    renamed = np.random.default_rng(0).permutation(64)
    assert_equal(
        measure(record), measure(dataclasses.replace(record, x_TD=record.x_TD[:, renamed]))
    )


def test_scale_changes_nothing() -> None:
    record = stream(3)
    assert_equal(measure(record), measure(dataclasses.replace(record, x_TD=record.x_TD * 7)))


def test_mean_shift_changes_nothing_before_a_layernorm() -> None:
    record = dataclasses.replace(stream(4), removes_mean=True)
    shift = np.random.default_rng(0).standard_normal((len(record.x_TD), 1)) * 5
    assert_equal(measure(record), measure(dataclasses.replace(record, x_TD=record.x_TD + shift)))
    unaware = dataclasses.replace(record, removes_mean=False)
    shifted = dataclasses.replace(unaware, x_TD=record.x_TD + shift)
    assert numbers(measure(unaware))["alpha_tilde"] != pytest.approx(
        numbers(measure(shifted))["alpha_tilde"], rel=0.05
    )


def test_order_of_rows_does_not_matter() -> None:
    record = stream(5)
    order = np.random.default_rng(0).permutation(len(record.x_TD))
    shuffled = dataclasses.replace(
        record,
        x_TD=record.x_TD[order],
        sequence_T=record.sequence_T[order],
        position_T=record.position_T[order],
    )
    assert_equal(measure(record), measure(shuffled))


def test_first_positions_are_left_out() -> None:
    record = stream(6)
    sink = record.x_TD.copy()
    sink[record.position_T == 0] += 1000
    with_sink = dataclasses.replace(record, x_TD=sink)
    assert_equal(measure(record, skip_positions=1), measure(with_sink, skip_positions=1))
    assert numbers(measure(with_sink))["alpha_tilde"][0] > 1.9


def test_single_precision_suffices_with_a_large_mean() -> None:
    record = stream(7)
    shifted = dataclasses.replace(record, x_TD=(record.x_TD + 50).astype(np.float32))
    assert_equal(measure(record), measure(shifted), rtol=1e-3)


def test_jackknife_error_covers_the_spread_over_streams() -> None:
    estimates = np.array([numbers(measure(stream(100 + s)))["mu"] for s in range(12)], dtype=float)
    spread, stderr = estimates[:, 0].std(ddof=1), estimates[:, 1].mean()
    # the pairing jumps, so the jackknife is too large, up to 2.5 times; never much too small
    assert 0.7 * spread < stderr < 5 * spread


def test_one_sequence_has_no_error() -> None:
    record = stream(8)
    one = dataclasses.replace(record, sequence_T=np.zeros_like(record.sequence_T))
    estimate = measure(one).values["alpha_tilde"]
    assert isinstance(estimate, Estimate)
    assert estimate.stderr is None


def test_few_dead_units_are_counted_and_many_refused() -> None:
    record = stream(9)
    x = record.x_TD.copy()
    x[:, :8] = 3.0
    measured = measure(dataclasses.replace(record, x_TD=x))
    assert measured.flags["dead_units"] == 8
    assert measured.curves["variance_flow"].x[-1] == 16
    x[:, :20] = 3.0
    with pytest.raises(Refused, match="got 44 of 64"):
        measure(dataclasses.replace(record, x_TD=x))


def test_unit_alive_in_one_block_only_counts_as_dead() -> None:
    record = stream(10)
    x = record.x_TD.copy()
    x[:, 0] = 0.0
    x[5, 0] = 1.0
    assert measure(dataclasses.replace(record, x_TD=x)).flags["dead_units"] == 1


def test_copies_have_no_spectrum() -> None:
    record = stream(11)
    copies = dataclasses.replace(record, x_TD=record.x_TD[:, np.arange(64) // 16])
    mu = measure(copies).values["mu"]
    assert isinstance(mu, Refused)
    assert "copies" in str(mu)


def test_no_memory_and_few_positions_refuse_z() -> None:
    record = stream(12)
    rng = np.random.default_rng(0)
    white = dataclasses.replace(record, x_TD=rng.standard_normal(record.x_TD.shape))
    assert "lag 1" in str(measure(white).values["z_tilde"])
    short = dataclasses.replace(
        record,
        sequence_T=np.arange(4096) // 8,
        position_T=np.arange(4096) % 8,
    )
    assert "positions" in str(measure(short).values["z_tilde"])
    frozen = np.repeat(rng.standard_normal((64, 64)), 64, axis=0)
    constant = dataclasses.replace(record, x_TD=frozen + 0.1 * record.x_TD)
    assert "above 1/e" in str(measure(constant).values["z_tilde"])


def test_unit_that_is_a_function_of_position_refuses_z() -> None:
    record = stream(13)
    x = record.x_TD.copy()
    x[:, 0] = record.position_T
    assert isinstance(measure(dataclasses.replace(record, x_TD=x)).values["z_tilde"], Refused)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x[:3000], "tokens per unit: got 3000/64 = 46.9"),
        (lambda x: x[:, :30], "units: got 30"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x), "1 values not"),
    ],
)
def test_refusals(change, reason: str) -> None:
    record = stream(14)
    x = change(record.x_TD)
    broken = dataclasses.replace(
        record,
        x_TD=x,
        sequence_T=record.sequence_T[: len(x)],
        position_T=record.position_T[: len(x)],
    )
    with pytest.raises(Refused, match=reason):
        measure(broken)


def test_skipping_everything_is_refused() -> None:
    with pytest.raises(Refused, match="skip_positions: got 64"):
        measure(stream(15), skip_positions=64)
