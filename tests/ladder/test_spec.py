import math
from dataclasses import replace

import pytest

from scaleinv_ray.ladder.spec import OptimizerSpec, TrainSpec, log_spaced, run_config, rungs


def spec(**changes: object) -> TrainSpec:
    return TrainSpec(**({"name": "x", "widths": (16, 32), "depth": 2} | changes))  # type: ignore


def test_the_design_example_is_read() -> None:
    ladder = TrainSpec.from_mapping({
        "name": "ladder", "architecture": "gpt_neox", "widths": [32, 64, 96, 128], "depth": 4,
        "head_dim": 16, "seeds": [0, 1, 2], "corpus": "python-stdlib", "batch": 16, "length": 128,
        "steps": 300, "checkpoints": [0, 10, 30, 100, 300], "dtype": "float32",
        "optimizer": {"name": "adamw", "lr": 1e-3, "schedule": "linear", "base_width": 64},
        "out": "runs/ladder/models",
    })  # fmt: skip
    assert len(rungs(ladder)) == 12
    assert len({rung.name for rung in rungs(ladder)}) == 12
    assert ladder.optimizer.base_width == 64
    assert hash(ladder) == hash(replace(ladder))


@pytest.mark.parametrize("depths", [(2, 3), {16: 2, 32: 3}])
def test_depths_by_width(depths: object) -> None:
    ladder = spec(depth=None, depths=depths)
    assert [(r.width, r.depth) for r in rungs(ladder)] == [(16, 2), (32, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt_neo"}, "architecture: got 'gpt_neo'.*nearest is 'gpt_neox'"),
        ({"dtype": "float16"}, "dtype: got 'float16'"),
        ({"widths": (24,)}, "widths: got 24, allowed multiples of head_dim"),
        ({"widths": (32, 16)}, "widths: got .* allowed rising"),
        ({"widths": ()}, "widths: got"),
        ({"seeds": (0, 0)}, "seeds: got .* each value once"),
        ({"seeds": (-1,)}, "seeds: got -1, allowed integers >= 0"),
        ({"depth": None}, "depth, depths: got None and None"),
        ({"depths": (2, 2)}, "depth, depths: got 2 and"),
        ({"depth": None, "depths": (2,)}, "depths: got \\(2,\\), allowed 2"),
        ({"depth": None, "depths": {16: 2}}, r"depths: got widths \[16\]"),
        ({"depth": 0}, "depth: got 0"),
        ({"head_dim": 3}, "head_dim: got 3, allowed even"),
        ({"steps": 0}, "steps: got 0"),
        ({"batch": True}, "batch: got True"),
        ({"length": 1}, "length: got 1"),
        ({"repeated": 1.5}, "repeated: got 1.5, allowed 0..1"),
        ({"steps": 10, "checkpoints": (0, 5)}, "checkpoints: got 5 as the last"),
        ({"steps": 10, "checkpoints": (0, 10, 5)}, "checkpoints: got .* rising"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adam"}, "optimizer.name: got 'adam'.*nearest is 'adamw'"),
        ({"schedule": "step"}, "optimizer.schedule: got 'step'"),
        ({"lr": 0.0}, "optimizer.lr: got 0.0, allowed > 0"),
        ({"lr": "1e-3"}, "optimizer.lr: got '1e-3'"),
        ({"lr": math.nan}, "optimizer.lr: got nan"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay: got -1.0"),
        ({"warmup": -1}, "optimizer.warmup: got -1"),
        ({"base_width": 0}, "optimizer.base_width: got 0"),
    ],
)
def test_optimizer_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerSpec(**changes)  # type: ignore


def test_unknown_and_missing_keys_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="ladder: got 'width'.*nearest is 'widths'"):
        TrainSpec.from_mapping({"name": "x", "width": [16]})
    with pytest.raises(ValueError, match="optimizer: got 'learning_rate'"):
        TrainSpec.from_mapping({"name": "x", "widths": [16], "optimizer": {"learning_rate": 1}})
    with pytest.raises(ValueError, match="ladder: got no 'widths'"):
        TrainSpec.from_mapping({"name": "x"})


@pytest.mark.parametrize("steps", [1, 2, 3, 300, 143_000])
def test_log_spaced_rises_from_zero_to_the_end(steps: int) -> None:
    saved = log_spaced(steps)
    assert (saved[0], saved[-1]) == (0, steps)
    assert list(saved) == sorted(set(saved))
    assert len(saved) <= 8


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedule_rises_over_the_warmup_and_falls_to_nothing(schedule: str) -> None:
    optimizer = OptimizerSpec(lr=2.0, schedule=schedule, warmup=4)
    rates = [optimizer.rate(step, 1004) for step in range(1004)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[504] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_config_of_a_run_ignores_what_does_not_change_its_numbers() -> None:
    ladder = spec()
    rung = rungs(ladder)[0]
    grown = spec(widths=(16, 32, 64), seeds=(0, 1), checkpoints=(0, 300), out="elsewhere", name="y")
    assert run_config(ladder, rung, "d") == run_config(grown, rung, "d")
    for change in ({"steps": 10}, {"batch": 2}, {"optimizer": OptimizerSpec(lr=2e-3)}):
        assert run_config(ladder, rung, "d") != run_config(spec(**change), rung, "d")
    assert run_config(ladder, rung, "d") != run_config(ladder, rung, "e")


def test_a_run_without_repeated_rows_keeps_its_description() -> None:
    rung = rungs(spec())[0]
    assert "repeated" not in run_config(spec(), rung, "digest")
    assert run_config(spec(repeated=0.25), rung, "digest")["repeated"] == 0.25


def test_a_run_drawn_as_ever_keeps_its_description() -> None:
    rung = rungs(spec())[0]
    assert "init_scale" not in run_config(spec(), rung, "digest")
    assert run_config(spec(init_scale=0.5), rung, "digest")["init_scale"] == 0.5
    with pytest.raises(ValueError, match="init_scale: got 0, allowed > 0"):
        spec(init_scale=0)
