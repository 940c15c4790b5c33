"""Attention patterns whose decay and topology are known exactly."""

import numpy as np
import pytest

from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.invariants.attention import attention_decay, attention_topology
from scaleinv_ray.records import Attention

RNG = np.random.default_rng(0)


def causal(weight_STT: np.ndarray) -> Attention:
    kept_STT = weight_STT * np.tri(weight_STT.shape[1])
    return Attention(a_STT=kept_STT / kept_STT.sum(axis=2, keepdims=True))


def ranks(length: int) -> np.ndarray:
    """t - s + 1 where that is positive, 1 elsewhere."""
    return np.maximum(np.subtract.outer(np.arange(length), np.arange(length)) + 1, 1)


def values(measured: Measured) -> dict[str, float]:
    return {k: v.value for k, v in measured.values.items() if not isinstance(v, Refused)}


@pytest.mark.parametrize("gamma", [-0.5, 0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("skip_positions", [0, 1, 7])
def test_power_laws(gamma: float, skip_positions: int) -> None:
    weight_STT = np.repeat((ranks(96) ** -gamma)[None], 3, axis=0)
    weight_STT[:, 1:, 0] *= 40  # a sink
    if skip_positions == 0:
        weight_STT[:, 1:, 0] /= 40
    found = attention_decay(causal(weight_STT), rng=RNG, skip_positions=skip_positions)
    exponent = found.values["decay_exponent"]
    assert exponent.value == pytest.approx(gamma, abs=1e-10)
    assert exponent.stderr == pytest.approx(0, abs=1e-10)


def test_uniform_attention_is_the_null() -> None:
    found = attention_decay(causal(np.ones((2, 128, 128))), rng=RNG)
    number = values(found)
    assert number["decay_exponent"] == pytest.approx(0, abs=1e-12)
    assert number["mean_distance"] == pytest.approx(1)
    assert number["entropy"] == pytest.approx(1)
    harmonic = (1 / np.arange(2, 129)).sum() / 127
    assert number["sink_mass"] == pytest.approx(harmonic)
    assert number["sink_mass_uniform"] == pytest.approx(harmonic)
    mass, uniform = found.curves["mass"], found.curves["mass_uniform"]
    assert mass.y == pytest.approx(uniform.y)
    # Queries t = r + 1 .. 128 (from 1) have a key at r beyond the sink: mean of 1 / t.
    assert uniform.y[0] == pytest.approx((1 / np.arange(2, 129)).mean())
    assert uniform.y[-1] == pytest.approx(1 / 128)
    slope = np.polyfit(np.log(mass.x), np.log(mass.y), 1, w=mass.x**-0.5)[0]
    assert -slope == pytest.approx(0.29, abs=0.005)  # what all queries together would have shown


def test_attention_to_the_query_itself() -> None:
    number = values(attention_decay(causal(np.eye(32)[None] * np.ones((2, 1, 1))), rng=RNG))
    assert number == pytest.approx(
        {"mean_distance": 0, "entropy": 0, "sink_mass": 0, "sink_mass_uniform": np.mean(
            1 / np.arange(2, 33))}
    )  # fmt: skip


def test_attention_to_the_farthest_key() -> None:
    a_STT = np.zeros((1, 32, 32))
    a_STT[:, 0, 0] = a_STT[:, 1:, 1] = 1
    number = values(attention_decay(Attention(a_STT=a_STT), rng=RNG))
    assert number["mean_distance"] == pytest.approx(2)
    assert number["sink_mass"] == 0
    whole = values(attention_decay(causal(np.eye(1, 32)[None] + 0 * a_STT), rng=RNG,
                                   skip_positions=0))  # fmt: skip
    assert (whole["sink_mass"], whole["mean_distance"]) == (1, pytest.approx(2))


def test_error_of_the_exponent_is_the_scatter_between_sets_of_sequences() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        gamma_S11 = rng.normal(1.0, 0.2, size=(6, 1, 1))
        found.append(attention_decay(causal(ranks(64) ** -gamma_S11), rng=rng))
    exponents = [m.values["decay_exponent"] for m in found]
    scatter = np.std([e.value for e in exponents], ddof=1)
    claimed = np.sqrt(np.mean([e.stderr**2 for e in exponents]))
    # 60 sets know the scatter to 9 %.
    assert claimed == pytest.approx(scatter, rel=0.3)


def test_a_cycle_has_one_loop() -> None:
    # Token t attends to t - 1 and itself, the last one to the first too: a cycle of 12 tokens.
    a_TT = 0.6 * np.eye(12) + 0.4 * np.eye(12, k=-1)
    a_TT[0, 0], a_TT[-1, -1], a_TT[-1, 0] = 1, 0.2, 0.4
    found = attention_topology(Attention(a_STT=a_TT[None]), rng=RNG, skip_positions=0)
    diagram = found.diagrams["attention"]
    loop = diagram.dimension == 1
    # Edges at 1 - .4; nothing more before t = 1, where everything is joined.
    assert diagram.birth[loop] == pytest.approx([0.6])
    assert diagram.death[loop] == pytest.approx([1.0])
    number = values(found)
    assert number["total_persistence_0"] == pytest.approx(11 * 0.6 / 12)
    assert number["total_persistence_1"] == pytest.approx(0.4 / 12)
    assert number["max_persistence_1"] == pytest.approx(0.4)
    t, betti = found.curves["betti_1"].x, found.curves["betti_1"].y
    inside = (t > 0.605) & (t < 0.995)
    assert (betti[inside] == 1).all() and (betti[t < 0.595] == 0).all()


def test_blocks_are_components() -> None:
    # Four blocks of 5 tokens, uniform within: joined at 1 - 1/5, and with each other at t = 1 only.
    a_TT = np.kron(np.eye(4), np.full((5, 5), 0.2))
    found = attention_topology(Attention(a_STT=np.stack([a_TT, a_TT])), rng=RNG, skip_positions=0)
    t, betti = found.curves["betti_0"].x, found.curves["betti_0"].y
    assert set(betti[t < 0.795]) == {20}
    assert set(betti[(t > 0.805) & (t < 0.995)]) == {4}
    assert betti[-1] == 1
    assert (found.curves["betti_1"].y == 0).all()
    number = values(found)
    assert number["total_persistence_0"] == pytest.approx((16 * 0.8 + 3) / 20)
    assert number["total_persistence_1"] == 0


def test_uniform_causal_attention_is_a_tree() -> None:
    # Token t (from 1) has 1/t on all before it: it joins at 1 - 1/t, without a loop.
    found = attention_topology(causal(np.ones((2, 24, 24))), rng=RNG, skip_positions=0)
    number = values(found)
    assert number["total_persistence_0"] == pytest.approx((1 - 1 / np.arange(2, 25)).sum() / 24)
    assert number["max_persistence_1"] == 0


def test_a_sink_fills_the_loops() -> None:
    a_TT = np.zeros((13, 13))
    a_TT[0, 0] = 1
    cycle = np.arange(1, 13)
    a_TT[cycle, np.roll(cycle, 1)] = 0.4
    a_TT[cycle, 0] = 0.6
    attention = Attention(a_STT=a_TT[None])
    with_sink = values(attention_topology(attention, rng=RNG, skip_positions=0))
    without = values(attention_topology(attention, rng=RNG, skip_positions=1))
    assert with_sink["max_persistence_1"] == 0
    assert without["max_persistence_1"] == pytest.approx(0.4)
