"""Configs: what is read, and what is said of a mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray.config import ConfigError, RunConfig, load_run_config, load_train_config
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.records import VARIANTS, Protocol

ROOT = Path(__file__).parents[1]
SERIES = ROOT / "jobs" / "series"
DEMO = ROOT / "scaleinv_ray" / "demo"
RUN: dict[str, Any] = {
    "name": "x",
    "models": [{"path": "m/d8-s0"}],
    "invariants": ["topology.persistence"],
}
TRAIN: dict[str, Any] = {"name": "x", "widths": [32, 64], "depth": 2, "steps": 300}


# ------------------------------------------------------------------ a run


@pytest.mark.parametrize(
    ("file", "name"), [(DEMO / "series.yaml", "demo"), (SERIES / "pythia.yaml", "pythia")]
)
def test_shipped_run_configs_are_valid_and_survive_being_written(file: Path, name: str) -> None:
    config = load_run_config(file)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_none=True))
    assert load_run_config(yaml.safe_load(text)) == config
    assert Path(config.out) == (file.parent if name == "demo" else ROOT) / "runs" / name


def test_defaults() -> None:
    config = load_run_config(RUN)
    assert config.variants == VARIANTS
    assert (config.probes, config.corpus, config.out) == (("prose",), "python-stdlib", "runs/x")
    assert (config.null_steps, config.captures, config.trust_remote_code) == ("last", "keep", ())
    assert config.protocol.record() == Protocol()


def test_protocol_options_are_the_fields_of_the_protocol() -> None:
    chosen = {"sequences": 64, "length": 32, "position": 20, "stream_units": 16}
    assert load_run_config(RUN | {"protocol": chosen}).protocol.record() == Protocol(**chosen)


def test_sources_of_every_kind() -> None:
    sources = [
        {"hub": "lab/m", "revision": "step{step}", "steps": [512, 0], "seed": 3},
        {"path": "m/d8-s0", "steps": "last", "name": "mine", "init": "m/d8-init"},
        {"ladder": "models", "steps": [0, 10]},
    ]
    hub, path, ladder = load_run_config(RUN | {"models": sources}).models
    assert (hub.hub, hub.steps, hub.seed, hub.model) == ("lab/m", (0, 512), 3, "m")
    assert (path.path, path.steps, path.model) == ("m/d8-s0", "last", "mine")
    assert (ladder.ladder, ladder.steps) == ("models", (0, 10))


def test_all_invariants_are_all_registered_ones_with_their_parameters() -> None:
    chosen = load_run_config(RUN | {"invariants": "all"}).chosen_invariants()
    assert chosen == {name: dict(spec.parameters) for name, spec in REGISTRY.items()}


def test_given_parameters_replace_planned_ones() -> None:
    given = {"topology.persistence": {"num_points": 50}, "geometry.neighbour_dimension": None}
    chosen = load_run_config(RUN | {"invariants": given}).chosen_invariants()
    assert list(chosen) == list(given)
    planned = REGISTRY["topology.persistence"].parameters
    assert chosen["topology.persistence"] == dict(planned) | {"num_points": 50}


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [("30min", 1800), ("1.5 h", 5400), ("45s", 45), ("2d", 172800), (90, 90)],
)
def test_times_are_read(deadline: object, seconds: float) -> None:
    assert load_run_config(RUN | {"cluster": {"deadline": deadline}}).cluster.deadline == seconds


@pytest.mark.parametrize(("memory", "size"), [("4GB", 4 * 10**9), ("2GiB", 2**31), (1000, 1000)])
def test_sizes_are_read(memory: object, size: int) -> None:
    assert load_run_config(RUN | {"cluster": {"memory": memory}}).cluster.memory == size


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_run_config(RUN).name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modles": []}, r"^unknown key 'modles' \(did you mean 'models'\?\), allowed: name"),
        ({"models": []}, r"^models: got \[\], allowed: .*at least 1 item"),
        ({"models": [{"path": "m", "stpes": 1}]}, r"^models\[0\]: unknown key 'stpes'.*'steps'"),
        ({"models": [{"pth": "m"}]}, r"^models\[0\]: got .*one of hub, path, ladder"),
        ({"models": ["m"]}, r"^models\[0\]: got 'm', allowed: a mapping"),
        ({"models": [{"path": "m", "steps": "first"}]},
         r"^models\[0\].steps: got 'first', allowed: 'all', 'last' or a list of integers >= 0"),
        ({"models": [{"ladder": "m", "steps": [1, 1]}]}, r"^models\[0\].steps: got 1 more"),
        ({"models": [{"ladder": "m", "steps": [True]}]}, r"^models\[0\].steps: got \[True\]"),
        ({"models": [{"path": "m", "seed": "0"}]}, r"^models\[0\].seed: got '0', .*valid integer"),
        ({"models": [{"hub": "m"}]}, r"^models\[0\].hub: got 'm', allowed: organisation/name"),
        ({"models": [{"hub": "a/m", "revision": "step{step}"}]}, "needs a list of steps"),
        ({"models": [{"hub": "a/m", "steps": [1, 2]}]}, "needs one step"),
        ({"name": "a/b"}, "^name: got 'a/b', allowed: letters, digits"),
        ({"name": 3}, "^name: got 3, allowed: a valid string"),
        ({"variants": ["shuffled_tokens"]}, "^variants: got .*'trained' must be among them"),
        ({"variants": ["trained", "random"]}, r"variant 'random' \(did you mean 'random_init'\?\)"),
        ({"variants": ["trained", "trained"]}, "^variants: got trained more than once"),
        ({"probes": ["porse"]}, r"^probes: unknown probe 'porse' \(did you mean 'prose'\?\)"),
        ({"probes": []}, r"^probes: got \[\]"),
        ({"protocol": {"position": 128}}, r"^protocol.position: got 128, allowed 0..127"),
        ({"protocol": {"sequenecs": 1}}, r"^protocol: unknown key 'sequenecs'.*'sequences'"),
        ({"protocol": {"sequences": 512.5}}, r"^protocol.sequences: got 512.5, .*integer"),
        ({"protocol": 7}, "^protocol: got 7, allowed: a mapping"),
        ({"invariants": ["persistence"]}, r"\(did you mean 'topology.persistence'\?\)"),
        ({"invariants": "most"}, "^invariants: got 'most', allowed: 'all'"),
        ({"invariants": {}}, "^invariants: got {}"),
        ({"invariants": {"topology.persistence": {"num_point": 1}}},
         r"parameter of topology.persistence 'num_point' \(did you mean 'num_points'\?\)"),
        ({"invariants": {"topology.persistence": {"num_points": "many"}}},
         r"^invariants: topology.persistence.num_points: got 'many', allowed: a valid integer"),
        ({"invariants": {"topology.persistence": 3}}, "persistence: got 3, allowed: a mapping"),
        ({"conservation": {"margin": 0}}, "^conservation.margin: got 0, allowed: greater than 0"),
        ({"conservation": {"margin": True}}, "^conservation.margin: got True, allowed: a number"),
        ({"conservation": {"held_out": "all"}}, "^conservation.held_out: got 'all', .*'largest'"),
        ({"conservation": {"comparisons": ["epochs"]}}, r"\[0\]: got 'epochs', .*'tokens'"),
        ({"cluster": {"deadline": "soon"}}, "^cluster.deadline: got 'soon', .*in s, min, h, d"),
        ({"cluster": {"memory": "4 buckets"}}, "^cluster.memory: got '4 buckets'.*GB"),
        ({"cluster": {"deadline": 0}}, "^cluster.deadline: got 0, allowed: greater than 0"),
        ({"cluster": {"gpus_per_model": -1}}, "^cluster.gpus_per_model: got -1"),
        ({"captures": "some"}, "^captures: got 'some', allowed: 'keep' or 'discard'"),
        ({"null_steps": [-1]}, r"^null_steps: got \[-1\]"),
        ({"batch_size": 0}, "^batch_size: got 0"),
        ({"trust_remote_code": ["d8-s1"]},
         r"^trust_remote_code: unknown model 'd8-s1' \(did you mean 'd8-s0'\?\)"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_field_value_and_what_is_allowed(change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_run_config(RUN | change)


def test_a_missing_field_is_said() -> None:
    with pytest.raises(ConfigError, match="^models: required, got nothing$"):
        load_run_config({"name": "x"})


def test_several_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(RUN | {"batch_size": 0, "captures": "some"})
    assert [line.split(":")[0].strip() for line in str(caught.value).split("\n")] == [
        "captures", "batch_size",
    ]  # fmt: skip


def test_trusted_models_are_named_as_in_the_series() -> None:
    models = [{"hub": "lab/m"}, {"path": "runs/d8-s0/step-000010"}]
    config = load_run_config(RUN | {"models": models, "trust_remote_code": ["m", "d8-s0"]})
    assert config.trust_remote_code == ("m", "d8-s0")


# ------------------------------------------------------------------ YAML


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "x.yaml").write_text(text)
    return tmp_path / "x.yaml"


def test_a_number_without_dot_is_a_number(tmp_path: Path) -> None:
    text = "{name: x, widths: [32], depth: 2, steps: 10, optimizer: {lr: 1e-3}}"
    assert load_train_config(written(tmp_path, text)).optimizer.lr == 1e-3
    raw = yaml.safe_load("{lr: 1e-3}")
    assert raw == {"lr": "1e-3"}, "the trap that is guarded against"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"x\.yaml: got NoneType, allowed: a mapping"),
        ("- a", r"x\.yaml: got list, allowed: a mapping"),
        ("a: [", r"x\.yaml: not YAML: "),
        ("name: a\nname: b", r"x\.yaml: not YAML: key 'name' stands more than once"),
        ("name: !!python/object/apply:os.getcwd []", r"x\.yaml: not YAML: could not determine"),
        ("name: x", r"x\.yaml: models: required"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_run_config(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_run_config(tmp_path / "none.yaml")


# ------------------------------------------------------------------ a ladder


@pytest.mark.parametrize("file", [SERIES / "ladder.yaml", DEMO / "ladder.yaml"])
def test_shipped_ladder_configs_are_valid(file: Path) -> None:
    config = load_train_config(file)
    assert set(config.depths) == set(config.widths)
    assert load_train_config(config.model_dump(mode="json")) == config


def test_the_demo_analyses_what_the_demo_trains() -> None:
    (source,) = load_run_config(DEMO / "series.yaml").models
    assert source.ladder == load_train_config(DEMO / "ladder.yaml").out


def test_defaults_of_a_ladder() -> None:
    config = load_train_config(TRAIN)
    assert (config.out, config.seeds, config.checkpoints) == ("runs/x/models", (0,), None)
    assert config.depths == {32: 2, 64: 2}


@pytest.mark.parametrize("depths", [[2, 3], {32: 2, 64: 3}])
def test_depths_by_width(depths: object) -> None:
    config = load_train_config(
        {k: v for k, v in TRAIN.items() if k != "depth"} | {"depths": depths}
    )
    assert config.depths == {32: 2, 64: 3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": [1]}, r"unknown key 'width' \(did you mean 'widths'\?\)"),
        ({"widths": [64, 32]}, r"^widths: got \[64, 32\], allowed: rising"),
        ({"widths": [32, 32]}, "^widths: got 32 more than once"),
        ({"widths": []}, r"^widths: got \[\]"),
        ({"depth": None}, "^depths: got depth None, depths None, needs one of them"),
        ({"depths": [3, 3]}, "^depths: got them besides depth 2"),
        ({"depths": [2]}, "^depths: got 1 of them, allowed: 2"),
        ({"depth": None, "depths": {32: 2}}, r"^depths: got .*\[32\].*\(32, 64\)"),
        ({"head_dim": 24}, r"^head_dim: got 24, allowed: divisors of widths \[32, 64\]"),
        ({"head_dim": 1}, "^head_dim: got 1, allowed: a multiple of 2"),
        ({"architecture": "gptneox"}, "^architecture: got 'gptneox', allowed: 'gpt_neox', 'gpt2'"),
        ({"seeds": [-1]}, r"^seeds\[0\]: got -1"),
        ({"checkpoints": [0, 10]}, "^checkpoints: got 10 as the last, allowed: 300"),
        ({"checkpoints": "all"}, "^checkpoints: got 'all', allowed: a list of integers >= 0"),
        ({"optimizer": {"name": "adam"}}, "^optimizer.name: got 'adam', allowed: 'adamw' or 'sgd'"),
        ({"optimizer": {"learning_rate": 1}}, "^optimizer: unknown key 'learning_rate'"),
        ({"optimizer": {"lr": float("nan")}}, "^optimizer.lr: got nan, allowed: .*"),
        ({"optimizer": {"warmup": 301}}, "^optimizer.warmup: got 301, allowed: 0..300"),
        ({"dtype": "float16"}, "^dtype: got 'float16', allowed: 'float32' or 'bfloat16'"),
        ({"steps": 0}, "^steps: got 0"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_ladder_is_said(change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_train_config(TRAIN | change)


def test_a_checked_config_is_what_it_says() -> None:
    assert isinstance(load_run_config(RUN), RunConfig)
