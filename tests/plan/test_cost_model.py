"""The arithmetic of the cost model; its constants are checked by scripts/bench/cost_model.py."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scaleinv_ray.checkpoints import Checkpoint
from scaleinv_ray.cli import app
from scaleinv_ray.config import load_run_config
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.cost_model import (
    LARGE_BYTES,
    Calibration,
    Device,
    Law,
    calibration,
    cost_lines,
    law_seconds,
    matrices,
    matrix_work,
    parse,
    pass_seconds,
    price,
    weight_seconds,
)
from scaleinv_ray.kinds import KINDS
from scaleinv_ray.plan import Measurement, Plan, Reading, Unit
from scaleinv_ray.plan.costs import capture_bytes, model_bytes
from scaleinv_ray.plan.description import describe, loadings
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol, Spectroscopy
from scaleinv_ray.records import Protocol, Variant
from tests.plan.test_plan import net

TAIL, DECAY, CLOUD = (
    "weights.weight_tail",
    "representation.covariance_decay",
    "topology.persistence",
)
RESOLVENT, OVERLAP, DRIFT = (
    "holomorphy.resolvent_counts", "geometry.neighbour_overlap", "conserved.drift",
)  # fmt: skip
PROTOCOL = Protocol(sequences=100, length=72, position=64, jacobian_positions=3)
PYTHIA_70M = {"n_params": 70_426_624, "n_layers": 6, "d_model": 512, "vocab_size": 50304}


def _checkpoint(**changes: Any) -> Checkpoint:
    known: dict[str, Any] = {
        "model": "m", "seed": 0, "step": 0, "architecture": "gpt_neox", "d_mlp": None,
        "max_positions": None, "dtype": "float16", "weights_digest": "w", "config_digest": "c",
    }  # fmt: skip
    return Checkpoint(**(known | PYTHIA_70M | changes))


def _table(**laws: Law) -> Calibration:
    device = Device("cpu", flops=1e9, values=1e6, backward=1e8, call_s=0.5, load=1e9, measured=True)
    slow = device._replace(name="slow", flops=1e8)
    constants = {
        "build_s": 1.0, "build_layer_s": 0.5, "file_s": 0.25, "write_bytes_s": 1e7,
        "task_s": 0.01, "start_s": 4.0,
    }  # fmt: skip
    return Calibration("here", laws, {"cpu": device, "slow": slow}, constants)


def _measured(
    invariant: str, checkpoint: Checkpoint, variant: Variant = "trained", probe: str | None = "p",
    *more: Checkpoint,
) -> Measurement:  # fmt: skip
    spec, unit = REGISTRY[invariant], Unit("s", checkpoint, variant)
    at = f"{unit.content} {probe} {spec.kind} {variant == 'shuffled_tokens'}"
    others = tuple(Reading(Unit("s", c, variant), f"{c.weights_digest} {spec.kind}") for c in more)
    params = json.dumps(dict(spec.parameters))
    return Measurement(at + invariant, at, unit, probe, spec.kind, invariant, params, others)


def _plan(*measurements: Measurement) -> Plan:
    return Plan("s", PROTOCOL, tuple({m.unit for m in measurements}), measurements, {}, ())


def test_the_matrices_of_pythia_add_up_to_its_parameters() -> None:
    c = _checkpoint()
    found = matrices(c)
    assert found == {(512, 512): 24, (2048, 512): 12, (50304, 512): 2}
    entries = sum(rows * columns * count for (rows, columns), count in found.items())
    assert entries == pytest.approx(c.n_params, rel=2e-3), "what is left are norms and biases"
    gated = _checkpoint(
        n_params=6_738_415_616, n_layers=32, d_model=4096, d_mlp=11008, vocab_size=32000
    )
    assert matrices(gated) == {(4096, 4096): 128, (11008, 4096): 96, (32000, 4096): 2}
    tied = _checkpoint(n_params=124_439_808, n_layers=12, d_model=768, vocab_size=50257)
    assert matrices(tied)[50257, 768] == 1


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("moments", 8), ("jacobians", 8), ("cloud", 2), ("stream", 1), ("token_losses", 1)],
)
def test_work_grows_with_width_as_the_algorithm(kind: str, factor: float) -> None:
    narrow, wide = (KINDS[kind].work(w, 6, PROTOCOL) for w in (64, 128))
    assert wide == factor * narrow > 0


def test_work_of_a_matrix_is_that_of_its_transpose() -> None:
    assert matrix_work((30, 70)) == matrix_work((70, 30)) == 2 * 70 * 900 + 4 * 27000
    assert matrix_work((4, 3, 5)) == matrix_work((4, 15))


def test_seconds_follow_the_law() -> None:
    law = Law(0.1, 0.5, {"num_points": (100, 2.0), "num_null": (10, 1.0)})
    assert law_seconds(law, 2.0, {}) == pytest.approx(1.1)
    assert law_seconds(law, 2.0, {"num_points": 200, "num_null": 5}) == pytest.approx(1.1 * 4 / 2)


def test_tasks_are_records_times_their_law() -> None:
    c = _checkpoint()
    table = _table(**{DECAY: Law(0.5, 1e-9, {}, 10.0), CLOUD: Law(0.25, 0.0, {}, 100.0)})
    made = [_measured(DECAY, c), _measured(CLOUD, c)]
    found = price(_plan(*made), made, constants=table)
    decay, cloud = found.lines
    assert decay.seconds == pytest.approx(0.01 + 6 * (0.5 + 1e-9 * 512**3))
    assert cloud.seconds == pytest.approx(0.01 + 7 * 0.25)
    assert (decay.stored, cloud.stored) == (60, 700)
    assert found.task_seconds == decay.seconds + cloud.seconds
    assert found.stored_bytes == 760 and found.unpriced == ()


def test_diagrams_have_as_many_points_as_were_asked_for() -> None:
    c = _checkpoint()
    points = REGISTRY[CLOUD].parameters["num_points"]
    law = Law(0.25, 0.0, {"num_points": (points / 4, 2.0)}, 100.0)
    made = [_measured(CLOUD, c)]
    found = price(_plan(*made), made, constants=_table(**{CLOUD: law}))
    assert found.stored_bytes == 4 * 700
    assert found.task_seconds == pytest.approx(0.01 + 16 * 7 * 0.25)


def test_weights_count_their_matrices_and_are_read_once_for_each_invariant() -> None:
    c = _checkpoint()
    table = _table(**{TAIL: Law(0.0, 1e-9, {})})
    made = [_measured(TAIL, c, "trained", None)]
    found = price(_plan(*made), made, constants=table)
    works = [24 * matrix_work((512, 512)), 12 * matrix_work((2048, 512))]
    works += [2 * matrix_work((50304, 512))]
    assert found.task_seconds == pytest.approx(0.01 + 1e-9 * sum(works))
    assert found.lines[0].longest == found.task_seconds, "small enough for one task"
    assert found.checkpoint_bytes == 2 * c.n_params and found.device_seconds == 0
    assert found.captures == () and found.passes == 0


def test_large_weights_take_no_longer_than_their_longest_matrix() -> None:
    c = _checkpoint(dtype="float32")
    assert model_bytes(c) > LARGE_BYTES > model_bytes(_checkpoint())
    table = _table(**{TAIL: Law(0.0, 1e-9, {})})
    made = [_measured(TAIL, c, "trained", None)]
    found = price(_plan(*made), made, constants=table)
    assert found.lines[0].longest == pytest.approx(1e-9 * matrix_work((50304, 512)))
    assert found.wall_seconds(10**6) == pytest.approx(4 + found.lines[0].longest)
    # random weights are drawn in the order of construction, so of the whole model at once
    made = [*made, _measured(TAIL, c, "random_init", None)]
    found = price(_plan(*made), made, constants=table)
    assert found.lines[0].longest == pytest.approx(found.task_seconds / 2)


def test_a_capture_is_paid_once_however_many_read_it() -> None:
    c = _checkpoint()
    table = _table(**{CLOUD: Law(0.25, 0.0, {}), OVERLAP: Law(0.25, 0.0, {})})
    first = _measured(CLOUD, c)
    second = first._replace(key="again", invariant="topology.merge_tree", params="{}")
    found = price(_plan(first, second), [first, second], constants=table)
    one = capture_bytes(c, "cloud", PROTOCOL)
    assert [(of.kind, of.files, of.num_bytes) for of in found.captures] == [("cloud", 1, one)]
    assert found.passes == 1 and found.read_bytes == 2 * one
    assert found.flops == 2 * c.n_params * 7200
    assert found.unpriced == ("topology.merge_tree",), "it has no constants here"


def test_null_and_probe_are_passes_of_their_own_and_loads_are_shared() -> None:
    c = _checkpoint()
    table = _table(**{CLOUD: Law(0.25, 0.0, {})})
    made = [
        _measured(CLOUD, c), _measured(CLOUD, c, "trained", "q"),
        _measured(CLOUD, c, "shuffled_tokens"), _measured(CLOUD, c, "shuffled_weights"),
    ]  # fmt: skip
    found = price(_plan(*made), made, constants=table)
    assert found.passes == 4
    load = 1.0 + 6 * 0.5 + 2 * c.n_params / 1e9
    each = pass_seconds(c, {"cloud"}, PROTOCOL, device=table.devices["cpu"], table=table)
    assert found.device_seconds == pytest.approx(2 * load + 4 * each)
    assert found.checkpoint_bytes == 2 * 2 * c.n_params


def test_seconds_of_a_pass() -> None:
    c, table = _checkpoint(), _table()
    cpu, slow = table.devices["cpu"], table.devices["slow"]
    tokens, size = 7200, capture_bytes(c, "cloud", PROTOCOL)
    forward, values = 2 * c.n_params * tokens, tokens * 6 * 512

    def seconds(device: Device, *kinds: str) -> float:
        return pass_seconds(c, kinds, PROTOCOL, device=device, table=table)

    assert seconds(cpu, "cloud") == pytest.approx(forward / 1e9 + values / 1e6 + size / 1e7 + 0.25)
    assert seconds(slow, "cloud") - seconds(cpu, "cloud") == pytest.approx(9e-9 * forward)
    jacobians = capture_bytes(c, "jacobians", PROTOCOL) / 1e7 + 0.25
    jacobians += 6 * 3 * (0.5 + 48 * 512**3 / 1e8)
    assert seconds(cpu, "jacobians") == pytest.approx(jacobians), "no pass over all tokens"
    assert seconds(cpu, "cloud", "jacobians") == pytest.approx(seconds(cpu, "cloud") + jacobians)


def test_trajectories_read_every_step() -> None:
    steps = [_checkpoint(step=k, weights_digest=f"w{k}") for k in range(3)]
    table = _table(**{DRIFT: Law(0.0, 1e-9, {})})
    made = [_measured(DRIFT, steps[-1], "trained", None, *steps[:-1])]
    found = price(_plan(*made), made, constants=table)
    once = sum(n * matrix_work(shape) for shape, n in matrices(steps[0]).items())
    assert found.task_seconds == pytest.approx(0.01 + 3e-9 * once)
    assert found.checkpoint_bytes == 3 * 2 * steps[0].n_params
    assert found.lines[0].longest == found.task_seconds, "it is made in one piece"


def test_wall_time_is_that_of_what_is_slowest() -> None:
    c = _checkpoint()
    made = [_measured(CLOUD, c)]
    found = price(_plan(*made), made, constants=_table(**{CLOUD: Law(10.0, 0.0, {})}))
    tasks, captures = found.task_seconds, found.device_seconds
    assert found.wall_seconds(1) == pytest.approx(4 + tasks + captures)
    assert found.wall_seconds(10**6) == pytest.approx(4 + tasks), "one task cannot be divided"
    assert found.wall_seconds(1, 1) == pytest.approx(4 + max(tasks, captures))


def test_a_plan_names_the_captures_of_both_of_a_pair_and_none_made_elsewhere(
    tmp_path: Path,
) -> None:
    pair = [
        _checkpoint(weights_digest=f"w{i}", n_params=n) for i, n in enumerate((10**7, 2 * 10**7))
    ]
    made = [_measured(OVERLAP, pair[0], "trained", "p", pair[1])]
    plan = _plan(*made)
    (cost,) = price(plan, made, constants=_table()).captures
    assert cost.files == 2
    text = describe(plan, set())
    assert re.search(rf"^cloud +2 +{cost.num_bytes / 1e6:.1f}MB  {OVERLAP} ", text, re.M), text
    assert "forward passes: 2, " in text
    elsewhere = _checkpoint(captures=(("cloud", "p", tmp_path / "c.arrow"),))
    text = describe(_plan(_measured(CLOUD, elsewhere)), set())
    assert re.search(rf"^cloud +0 +0.0MB  {CLOUD} ", text, re.M), text
    assert "forward passes: 0, " in text


def test_captures_made_elsewhere_cost_no_device(tmp_path: Any) -> None:
    c = _checkpoint(captures=(("cloud", "p", tmp_path / "c.arrow"),))
    made = [_measured(CLOUD, c)]
    found = price(_plan(*made), made, constants=_table(**{CLOUD: Law(1.0, 0.0, {})}))
    assert found.device_seconds == found.checkpoint_bytes == found.capture_bytes == 0
    assert found.task_seconds > 1


def test_an_unknown_device_is_refused() -> None:
    made = [_measured(CLOUD, _checkpoint())]
    with pytest.raises(ValueError, match=r"device: got 'tpu', allowed \['cpu', 'slow'\]"):
        price(_plan(*made), made, device="tpu", constants=_table())


def test_the_packaged_table_prices_the_invariants_of_the_demo() -> None:
    from importlib.resources import files

    import yaml

    table = calibration()
    demo = yaml.safe_load((files("scaleinv_ray") / "demo" / "series.yaml").read_text())
    assert set(demo["invariants"]) <= set(table.laws)
    assert set(table.laws) <= set(REGISTRY)
    assert all(law.floor + law.slope > 0 for law in table.laws.values())
    assert table.devices["cpu"].measured and not table.devices["a100"].measured
    assert "cores" in table.machine
    assert weight_seconds(TAIL, "{}", (2048, 512)) > weight_seconds(TAIL, "{}", (64, 64)) > 0
    assert weight_seconds("of.nobody", "{}", (100, 100)) > 0, "parts of any invariant have an order"


def test_a_table_is_read_as_it_stands() -> None:
    law = {"floor": 1.0, "slope": 2.0, "stored": 3, "params": {"num_null": [10, 0.5]}}
    of = {
        "flops": 1.0,
        "values": 2.0,
        "backward": 3.0,
        "call_s": 4.0,
        "load": 5.0,
        "measured": True,
    }
    read = parse({
        "machine": "m",
        "constants": {},
        "devices": {"cpu": of},
        "invariants": {"i": law},
    })
    assert read.laws["i"] == Law(1.0, 2.0, {"num_null": (10, 0.5)}, 3)
    assert read.devices["cpu"] == Device("cpu", 1.0, 2.0, 3.0, 4.0, 5.0, True)


def test_what_is_printed_names_every_sum() -> None:
    made = [_measured(CLOUD, _checkpoint()), _measured(RESOLVENT, _checkpoint())]
    found = price(_plan(*made), made, constants=_table(**{CLOUD: Law(360.0, 0.0, {})}))
    text = cost_lines(found, workers=4)
    assert "measuring: 0.7 core-hours" in text
    assert "on 4 cores" in text and "device-hours (1 passes" in text
    assert text.index(CLOUD) < text.index(RESOLVENT), "the dearest first"
    least = f"on 4 cores: at least {found.wall_seconds(4) / 60:.1f} min"
    assert f"{least} (a lower bound: without {RESOLVENT})" in text
    beside = f"on 4 cores and 2 x cpu: at least {found.wall_seconds(4, 2) / 60:.1f} min"
    assert beside in cost_lines(found, workers=4, devices=2)


HESSIAN, CHAINS = "curvature.hessian_density", "degeneracy.learning_coefficient"


def test_chains_and_curvature_are_priced_as_the_lower_bound_that_they_are() -> None:
    c = _checkpoint()
    made = [_measured(HESSIAN, c), _measured(CHAINS, c)]
    table = _table(**{HESSIAN: Law(1.0, 0.0, {}), CHAINS: Law(1.0, 0.0, {})})
    asked = Spectroscopy(
        CurvatureProtocol(sequences=8, num_steps=10, num_probes=2, blocks=("model", "layer")),
        SamplingProtocol(sequences=16, batch=4, chains=3, draws=20, burn_in=5, nbetas=(1.0, 2.0),
                         localisers=(1.0,), observed=("code", "induction")),
    )  # fmt: skip
    device = table.devices["cpu"]

    def gradients(count: float, sequences: int) -> float:
        each = 6 * c.n_params * sequences * PROTOCOL.length / device.flops
        return count * (each + c.n_layers * device.call_s)

    plan = _plan(*made)
    rest = price(plan, made, constants=table).device_seconds
    found = price(replace(plan, spectroscopy=asked), made, constants=table)
    products = 2 * (1 + c.n_layers) * 2 * 10
    expected = gradients(products, 8) + gradients(2 * 3 * 20 * (1 + 3 / 3), 4)
    written = found.capture_bytes / table.constants["write_bytes_s"]
    assert found.device_seconds == pytest.approx(rest + expected, abs=written + 1e-9)
    assert expected > 100 * written
    text = cost_lines(found)
    (total,) = [line for line in text.splitlines() if line.startswith("wall time")]
    assert "cores: at least" in total
    assert total.endswith("(a lower bound: of chains, hessian the gradients alone)")
    assert "capturing: at least" in text


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({}, r"cores: "),
        ({"gpus_per_model": 1}, r"cores and 3 x a100: "),
        ({"gpus_per_model": 2, "actors": 5}, r"cores and 5 x a100: "),
    ],
)
def test_a_plan_counts_the_actors_that_have_gpus(
    cluster: dict[str, int], said: str, tmp_path: Path
) -> None:
    config = {
        "name": "made", "models": [net(tmp_path, 4, 0)], "invariants": [TAIL], "cluster": cluster,
        "out": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "series.yaml").write_text(json.dumps(config))
    printed = CliRunner().invoke(app, ["plan", str(tmp_path / "series.yaml"), "--nodes", "3"])
    assert printed.exit_code == 0, printed.output
    assert re.search(rf"wall time on \d+ {said}", printed.output)


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({}, r"this machine's CPU:\n.*: 138 GB, streamed \(179 GB needed, .* of memory\)"),
        ({"load": "resident"}, r"this machine's CPU:\n.*: 138 GB, resident \(cluster\.load\)"),
        (
            {"gpus_per_model": 2},
            r"GPUs of one node \(2 x 80\.0 GB\):\n.*, streamed \(179 GB needed, 160 GB of GPU mem",
        ),
        (
            {"gpus_per_model": 3},
            r"GPUs of one node \(3 x 80\.0 GB\):\n.*, resident \(.*, 240 GB of",
        ),
    ],
)
def test_a_plan_says_how_models_are_loaded(cluster: dict[str, Any], said: str) -> None:
    made = _plan(_measured(CLOUD, _checkpoint(n_params=69_000_000_000, dtype="float16")))
    config = load_run_config({"name": "s", "models": [{"path": "m"}], "cluster": cluster})
    assert re.search(f"^loading on {said}", loadings(made, config))
