"""What recorded effects say of models whose circuits are known, and of those without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.by_kind.effects import effects_of
from scaleinv_ray.capture.by_kind.readings import readings_of
from scaleinv_ray.circuitry.compiled import compile_program
from scaleinv_ray.circuitry.compiled.programs import induction
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.contract import Measured, Refused
from scaleinv_ray.invariants.circuits import GAUSSIAN_PARTICIPATION, redundancy
from scaleinv_ray.invariants.circuits.graph import circuit_areas, modules
from scaleinv_ray.invariants.circuits.onset import onset
from scaleinv_ray.invariants.circuits.quantities import (
    concentration,
    depth,
    strength,
    together,
)
from scaleinv_ray.invariants.circuits.readings import probes, rules
from scaleinv_ray.ladder.architectures import build_model
from scaleinv_ray.ladder.spec import Rung, TrainSpec
from scaleinv_ray.probes import ProbeRequest
from scaleinv_ray.probes.corrupted import Pairs, corrupt
from scaleinv_ray.protocols import CircuitsProtocol
from scaleinv_ray.records import Effects, Readings
from scaleinv_ray.store import read_record, write_record

RNG = np.random.default_rng(0)


def made(effect_NS: np.ndarray, *, layers: int = 4, **given: Any) -> Effects:
    """A record of effects of heads that lie evenly in the layers; the task is done."""
    count, sequences = effect_NS.shape
    held: dict[str, Any] = {
        "exact_N": np.ones(count, dtype=np.int8),
        "layer_N": np.arange(count, dtype=np.int32) * layers // count,
        "head_N": np.arange(count, dtype=np.int32),
        "clean_S": np.ones(sequences), "corrupted_S": -np.ones(sequences),
        "all_S": effect_NS.sum(axis=0), "num_layers": layers,
    }  # fmt: skip
    return Effects(effect_NS=effect_NS, **(held | given))


def value(measured: Measured, quantity: str) -> float:
    found = measured.values[quantity]
    assert not isinstance(found, Refused), found
    return found.value


def letters(sequences: int = 16, variant: str = "induction", vocab: int = 13) -> Pairs:
    request = ProbeRequest(
        encode=list, sequences=sequences, length=22, vocab_size=vocab, corpus=None,
        rng=np.random.default_rng(0), special_ids=frozenset({0}),
    )  # fmt: skip
    return corrupt(variant, request).after((0,))


def test_the_two_heads_of_the_induction_program_are_all_there_is() -> None:
    anatomy = Anatomy.of(induction(constant=1e4, beta=20.0).model)
    record = effects_of(
        anatomy, letters(), CircuitsProtocol(nodes=("heads",)), labels={"num_layers": 2}
    )
    size_N = np.abs(record.effect_NS.mean(axis=1))
    first, second = np.sort(size_N)[::-1][:2]
    assert {(int(record.layer_N[n]), int(record.head_N[n])) for n in np.argsort(-size_N)[:2]} == {
        (0, 0),
        (1, 0),
    }
    found = concentration(record, rng=RNG)
    exact = (first + second) ** 2 / (first**2 + second**2) / 8
    assert value(found, "participation_fraction") == pytest.approx(exact, rel=0.02)
    centre = (0.25 * size_N[0] + 0.75 * size_N[4]) / (size_N[0] + size_N[4])
    assert value(depth(record, rng=RNG), "depth_centre") == pytest.approx(centre, rel=0.01)
    # cutting one of them undoes what the other does: either is all
    assert value(together(record, rng=RNG), "redundancy") == pytest.approx(
        (first + second) / abs(record.all_S.mean()), rel=1e-6
    )
    assert value(together(record, rng=RNG), "n90_joint_fraction") <= 2 / 8
    assert value(strength(record, rng=RNG), "top_effect") == pytest.approx(first, rel=0.02)


def of_first_token(program: str) -> Effects:
    anatomy = Anatomy.of(compile_program(program, constant=1e6).model)
    a_ST = np.full((8, 6), 2)
    a_ST[:, 1:] = np.random.default_rng(0).integers(1, 3, size=(8, 5))
    a_ST[:, 0] = 1
    b_ST = a_ST.copy()
    b_ST[:, 0] = 2
    one_S1 = np.ones((8, 1), dtype=int)
    pairs = Pairs(a_ST, b_ST, np.full((8, 1), 5), one_S1, one_S1 + 1)
    record = effects_of(anatomy, pairs, CircuitsProtocol(nodes=("heads",)))
    return replace(record, variant="random_init", num_layers=1)


def test_a_cancelling_pair_is_two_components_and_nothing_together() -> None:
    record = of_first_token("cancelling")
    np.testing.assert_allclose(np.sort(record.effect_NS.mean(1))[[0, -1]], [-1, 1], atol=1e-9)
    shares = [size for size in np.abs(record.effect_NS.mean(1)) if size > 1e-6]
    assert len(shares) == 2 and abs(record.all_S.mean()) < 1e-3
    with pytest.raises(Refused, match="effect of all together: got 0 "):
        redundancy(record.effect_NS, 0 * record.all_S)


def test_one_of_an_or_alone_has_no_circuit_to_be_read() -> None:
    record = of_first_token("either")
    assert abs(record.all_S.mean()) == pytest.approx(1, abs=1e-9)
    with pytest.raises(Refused, match="effects: got"):
        together(replace(record, effect_NS=0 * record.effect_NS), rng=RNG)


def test_effects_without_structure_have_the_trivial_values() -> None:
    mean_N = np.random.default_rng(1).normal(size=2000)
    found = concentration(made(mean_N[:, None] + np.zeros((1, 6))), rng=RNG)
    assert value(found, "participation_fraction") == pytest.approx(GAUSSIAN_PARTICIPATION, abs=0.02)
    assert value(found, "n90_fraction") == pytest.approx(0.646, abs=0.02)
    assert value(found, "sorted_exponent") == pytest.approx(
        float(found.flags["trivial_exponent"]), abs=0.03
    )


def test_untrained_models_share_their_effects_as_gaussian_ones() -> None:
    found = []
    for seed in range(3):
        spec = TrainSpec(name="x", architecture="attention_only", widths=(64,), depth=2, head_dim=4)
        model = build_model(spec, Rung(64, 2, seed)).eval()
        record = effects_of(
            Anatomy.of(model), letters(64, vocab=200), CircuitsProtocol(metric="logit_diff")
        )
        with pytest.raises(Refused, match=r"does not do the task: got \d+ of 64 .*p = "):
            concentration(record.of("trained"), rng=RNG)
        x_NS = record.effect_NS
        found.append((np.abs(x_NS.mean(1)).sum() ** 2) / (x_NS.mean(1) ** 2).sum() / len(x_NS))
    assert np.mean(found) == pytest.approx(GAUSSIAN_PARTICIPATION, abs=0.1)


def test_a_null_is_measured_whatever_it_does_and_a_trained_model_is_not() -> None:
    effect_NS = np.arange(1.0, 9.0)[:, None] + np.random.default_rng(0).normal(size=(8, 32)) * 0.1
    failing = made(effect_NS, clean_S=np.tile([1.0, -1.0], 16))
    for of in (concentration, depth, together):
        assert of(failing.of("random_init"), rng=RNG).values
        for variant in ("trained", None):
            with pytest.raises(Refused, match=r"got 16 of 32 sequences right \(p = 0.57\)"):
                of(replace(failing, variant=variant), rng=RNG)
    assert value(strength(failing, rng=RNG), "task_gap") == 1.0


def test_names_of_heads_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    record = made(rng.normal(size=(12, 1)) + rng.normal(size=(12, 20)) * 0.1)
    order = rng.permutation(12)
    mixed = replace(
        record, effect_NS=record.effect_NS[order], layer_N=record.layer_N[order],
        head_N=record.head_N[order],
    )  # fmt: skip
    for of in (concentration, depth, together, strength):
        ours, others = of(record, rng=RNG).values, of(mixed, rng=RNG).values
        for name, estimate in ours.items():
            if not isinstance(estimate, Refused):
                assert estimate.value == pytest.approx(others[name].value)  # type: ignore[union-attr]


def test_sizes_together_lie_between_those_that_were_run() -> None:
    effect_NS = np.ones((8, 16)) + np.random.default_rng(0).normal(size=(8, 16)) * 1e-3
    sizes = np.array([1, 2, 4, 8])
    record = made(effect_NS, size_K=sizes, along_KH=np.outer(sizes / 8, np.ones(8)))
    assert value(together(record, rng=RNG), "n90_joint_fraction") == pytest.approx(0.9)
    assert value(together(record, rng=RNG), "redundancy") == pytest.approx(1.0)
    without = together(made(effect_NS), rng=RNG).values["n90_joint_fraction"]
    assert isinstance(without, Refused) and "circuits.budget" in str(without)


def test_onset_is_where_half_of_the_final_effect_is_passed() -> None:
    shape_N = np.array([1.0, 0.2, 0.1, 0.1])
    steps = [
        made(shape_N[:, None] * np.full((1, 8), size) + 1e-9, step=step)
        for step, size in ((0, 0.0), (10, 0.1), (100, 0.2), (200, 0.8), (400, 1.0))
    ]
    found = onset(steps, rng=RNG)
    half = (0.5 - 0.2) / (0.8 - 0.2)
    wanted = np.expm1(np.log1p(100) + half * (np.log1p(200) - np.log1p(100)))
    assert value(found, "onset_step") == pytest.approx(wanted, rel=1e-6)
    gap = np.log1p(200) - np.log1p(100)
    error = found.values["onset_step"].stderr  # type: ignore[union-attr]
    assert error == pytest.approx((1 + wanted) * gap / np.sqrt(12), rel=1e-3)
    with pytest.raises(Refused, match="got the first one, 200, past half"):
        onset(steps[3:] + [replace(steps[-1], step=500)], rng=RNG)


def edges_kept(alone_FH: np.ndarray, **given: Any) -> Effects:
    """A record whose circuits of a half and of all edges give this m, sequence by sequence."""
    effect_NS = np.ones((4, 2 * alone_FH.shape[1])) * np.arange(1.0, 5)[:, None]
    return made(effect_NS, kept_F=np.array([0.5, 1.0]), alone_FH=alone_FH, **given)


def test_edges_that_were_not_asked_for_are_refused() -> None:
    record = made(np.ones((4, 8)) * np.arange(1.0, 5)[:, None])
    for of in (circuit_areas, modules):
        with pytest.raises(Refused, match="circuits.edges: got false"):
            of(record, rng=RNG)


def test_areas_without_spread_have_no_error_and_half_of_the_edges_are_half_of_the_area() -> None:
    # all edges are the clean run, m(A) = 1 and m(B) = -1; half of them do half of that
    found = circuit_areas(edges_kept(np.array([[0.0] * 8, [1.0] * 8])), rng=RNG)
    assert found.values["cpr"].value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert found.values["cmd"].value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert {x.stderr for x in found.values.values()} == {0.0}  # type: ignore[union-attr]


def test_the_error_of_an_area_is_that_of_a_mean_where_only_the_circuits_vary() -> None:
    # with m(A) - m(B) = 2 everywhere cpr is linear in m of the half: its weight is 1/2 of f
    half_H = np.random.default_rng(0).normal(size=12) * 0.1
    found = circuit_areas(edges_kept(np.stack([half_H, np.ones(12)])), rng=RNG)
    error = half_H.std(ddof=1) / np.sqrt(12)
    cpr = found.values["cpr"]
    assert not isinstance(cpr, Refused)
    assert cpr.value == pytest.approx(0.5 + half_H.mean() / 4)
    assert cpr.stderr == pytest.approx(error / 4)
    assert cpr.error_kind == "jackknife"


def test_the_error_of_an_area_is_the_scatter_of_areas_of_other_sequences() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        clean_S = 2 + rng.normal(size=32)
        alone_FH = np.stack([0.5 * clean_S[1::2] + 0.3 * rng.normal(size=16), clean_S[1::2]])
        found.append(
            circuit_areas(edges_kept(alone_FH, clean_S=clean_S, corrupted_S=np.zeros(32)), rng=rng)
        )
    cpr = [x.values["cpr"] for x in found]
    scatter = np.std([x.value for x in cpr], ddof=1)  # type: ignore[union-attr]
    told = np.sqrt(np.mean([x.stderr**2 for x in cpr]))  # type: ignore[union-attr, operator]
    assert told == pytest.approx(scatter, rel=0.15)


def test_random_edges_stand_beside_and_a_gap_of_noise_is_refused() -> None:
    alone_FH = np.array([[1.0] * 8, [1.0] * 8])
    random_GFQ = np.array([[[-1.0] * 4, [1.0] * 4]] * 3)
    flags = circuit_areas(edges_kept(alone_FH, random_alone_GFQ=random_GFQ), rng=RNG).flags
    assert flags["random_cpr"] == 0.25
    assert flags["random_cmd"] == 0.75
    noise_S = np.random.default_rng(0).normal(size=16)
    none = edges_kept(alone_FH, clean_S=noise_S, corrupted_S=-noise_S).of("random_init")
    with pytest.raises(Refused, match=r"m\(A\) - m\(B\): got .* allowed >= 2 errors"):
        circuit_areas(none, rng=RNG)


def in_modules(between_MM: np.ndarray) -> Measured:
    between_MMS = np.triu(between_MM, 1)[..., None] * np.ones(8)
    return modules(made(np.arange(1.0, 9)[:, None] * np.ones(8), between_MMS=between_MMS), rng=RNG)


def test_two_blocks_of_edges_are_two_modules_and_equal_edges_are_none() -> None:
    blocks = in_modules(np.kron(np.eye(2), np.ones((5, 5))) + 0.01)
    # 2 * 10 pairs of 1.01 within, 25 of .01 between: half of the strengths is in each
    assert blocks.flags["q"] == pytest.approx(20.2 / 20.45 - 0.5, abs=1e-4)
    assert (blocks.flags["modules"], blocks.flags["p"]) == (2, 1 / 40)
    assert value(blocks, "modularity_excess") > 0.1
    equal = in_modules(np.ones((10, 10)))
    assert value(equal, "modularity_excess") == pytest.approx(0, abs=1e-9)
    assert equal.flags["p"] == 1.0


def test_random_sets_of_equal_components_need_as_many_and_of_one_strong_one_more() -> None:
    sizes = np.array([1, 2, 4, 8])
    for weight_N in (np.ones(8), np.array([100.0, 1, 1, 1, 1, 1, 1, 1])):
        rng = np.random.default_rng(0)

        def along(order_N: np.ndarray, weight_N: np.ndarray = weight_N) -> np.ndarray:
            total_K = weight_N[order_N].cumsum()[sizes - 1]
            return total_K[:, None] * np.ones(4)

        record = made(
            weight_N[:, None] + rng.normal(size=(8, 8)) * 1e-3, size_K=sizes,
            along_KH=along(np.arange(8)),
            random_DKR=np.stack([along(rng.permutation(8)) for _ in range(40)]),
        )  # fmt: skip
        found = together(record, rng=RNG)
        n90, random = value(found, "n90_joint_fraction"), float(found.flags["random_n90"])
        if weight_N.max() == 1:
            assert random == pytest.approx(n90, abs=1e-3)
            assert found.flags["random_lower"] == 1.0
        else:
            assert random > 3 * n90
            assert float(found.flags["random_lower"]) < 0.3
        assert found.curves["random_joint"].y[-1] == pytest.approx(1.0)


def test_the_induction_program_reads_the_previous_token_behind_its_first_block() -> None:
    # a beginning token, and blocks of eight of 48 letters; each sequence repeats its own
    rng = np.random.default_rng(0)
    block_ST = np.stack([rng.permutation(np.arange(1, 13))[:8] for _ in range(48)])
    tokens_ST = np.concatenate([np.zeros((48, 1), dtype=int), np.tile(block_ST, 3)[:, :21]], axis=1)
    record = readings_of(Anatomy.of(induction(beta=20.0, dtype=torch.float32).model), tokens_ST)
    assert record.previous_LS is not None and record.previous_control_LS is not None
    at_L = record.previous_LS.mean(axis=1)
    assert at_L[0] < 0.4 and at_L[1] > 0.99
    found = probes(record, rng=RNG)
    assert value(found, "previous_depth") == pytest.approx(0.25, abs=0.01)  # half way to block 1
    assert value(found, "previous_rise") > 0.6
    assert 0.5 < value(found, "previous_selectivity") < value(found, "previous_accuracy")
    assert found.flags["previous_chance"] == pytest.approx(1 / 12, abs=0.02)
    told = rules(record, rng=RNG)
    # copy what followed the last occurrence where there was one: that is nearly all it does
    assert value(told, "rules_told_at_2") > 0.6
    assert value(told, "rules_told") > 0.6
    assert value(told, "rules_half") <= 2


def test_readings_without_a_target_are_refused_one_by_one() -> None:
    agreed_KH = np.array([[0.5] * 4, [1.0] * 4])
    record = Readings(leaves_K=np.array([1, 2]), agreed_KH=agreed_KH, majority_H=np.full(4, 0.5))
    with pytest.raises(Refused, match="without enough previous or repeated tokens"):
        probes(record, rng=RNG)
    of_one = replace(
        record, repeated_LU=np.array([[0.5] * 4, [1.0] * 4]), repeated_chance=0.5,
        repeated_control_LU=np.full((2, 4), 0.5),
    )  # fmt: skip
    found = probes(of_one, rng=RNG)
    assert isinstance(found.values["previous_accuracy"], Refused)
    assert value(found, "repeated_selectivity") == 0.25
    assert value(rules(record, rng=RNG), "rules_told") == 1.0
    with pytest.raises(Refused, match="leaves_K: got .* allowed ascending"):
        rules(replace(record, leaves_K=np.array([2, 1])), rng=RNG)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    anatomy = Anatomy.of(induction(dtype=torch.float32).model)
    record = effects_of(anatomy, letters(8), CircuitsProtocol(edges=True))
    write_record(tmp_path / "x.arrow", record, kind="effects", facts={})
    again = read_record(tmp_path / "x.arrow")
    assert isinstance(again, Effects) and again.labels() == record.labels()
    for name in record.arrays:
        np.testing.assert_array_equal(getattr(again, name), getattr(record, name))
    assert record.alone_FH is not None and record.between_MMS is not None
    # all edges kept are the clean run
    np.testing.assert_allclose(record.alone_FH[-1], record.clean_S[record.held_out], rtol=1e-5)
    assert record.random_DKR is not None and record.random_DKR.shape[0::2] == (10, 4)
    assert record.random_alone_GFQ is not None and len(record.random_alone_GFQ) == 10
    assert record.num_edges == 110
    assert value(circuit_areas(again, rng=RNG), "cpr") > 0.9
    joined_MM = record.between_MMS.any(axis=2)
    assert joined_MM[0, 1:].all() and not np.tril(joined_MM).any()
