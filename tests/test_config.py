"""Configs: what is read, and what is said of a mistake."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray.config import ConfigError, RunConfig, load_run_config, load_train_config
from scaleinv_ray.config.reader import parse_yaml, write_yaml
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol, Spectroscopy
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
    assert config.protocol == Protocol()


def test_defaults_of_a_protocol_follow_the_numbers_beside_them() -> None:
    short = load_run_config(RUN | {"protocol": {"length": 40, "sequences": 6}}).protocol
    assert (short.position, short.blocks) == (20, 6)
    assert load_run_config(RUN | {"protocol": {"length": 65}}).protocol.position == 64
    with pytest.raises(ValueError, match=r"protocol.position: got 64, allowed 0\.\.39"):
        load_run_config(RUN | {"protocol": {"length": 40, "position": 64}})


def test_protocol_options_are_the_fields_of_the_protocol() -> None:
    chosen = {"sequences": 64, "length": 32, "position": 20, "stream_units": 16}
    assert load_run_config(RUN | {"protocol": chosen}).protocol == Protocol(**chosen)


def test_a_section_is_its_dataclass_and_survives_being_written() -> None:
    given = {"curvature": {"sketch": 0, "blocks": ["layer"]}, "sampling": {"nbetas": [2]}}
    config = load_run_config(RUN | given | {"protocol": Protocol(sequences=600)})
    assert config.protocol == Protocol(sequences=600)
    asked = CurvatureProtocol(sketch=0, blocks=("layer",)), SamplingProtocol(nbetas=(2.0,))
    assert config.spectroscopy() == Spectroscopy(*asked)
    written = config.model_dump(mode="json", exclude_none=True)
    assert "batch" not in written["curvature"] and written["sampling"]["nbetas"] == [2.0]
    assert load_run_config(written) == config


@pytest.mark.parametrize(
    ("protocol", "change", "said"),
    [
        (Protocol, {"sequences": 0}, r"protocol.sequences: got 0, allowed 1\.\.10000000"),
        (Protocol, {"blocks": 0}, "protocol.blocks: got 0, allowed at least 1"),
        (CurvatureProtocol, {"batch": 0}, "curvature.batch: got 0, allowed at least 1"),
        (CurvatureProtocol, {"sketch": 5000}, r"curvature.sketch: got 5000, allowed 0\.\.4096"),
        (SamplingProtocol, {"burn_in": -1}, "sampling.burn_in: got -1, allowed at least 0"),
    ],
)
def test_a_range_holds_in_python_and_in_a_config(
    protocol: type, change: dict[str, int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        protocol(**change)
    section, _, got = said.partition(", ")[0].partition(".")
    with pytest.raises(ConfigError, match=rf"^{section}.{got}, allowed: (greater|less) than"):
        load_run_config(RUN | {section: change})


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


@pytest.mark.parametrize("order", [1, -1])
def test_all_with_exceptions(order: int) -> None:
    given = dict([("all", {}), ("topology.persistence", {"num_points": 100})][::order])
    config = load_run_config(RUN | {"invariants": given})
    planned = {name: dict(spec.parameters) for name, spec in REGISTRY.items()}
    planned["topology.persistence"]["num_points"] = 100
    assert config.chosen_invariants() == planned
    assert list(config.named_invariants) == ["topology.persistence"]
    assert load_run_config(config.model_dump(mode="json", exclude_none=True)) == config
    with pytest.raises(ValueError, match="all: got {'num_points': 5}, allowed: {}"):
        load_run_config(RUN | {"invariants": {"all": {"num_points": 5}}})


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
        ({"margin": 0.1}, r"^unknown key 'margin' \(did you mean conservation.margin\?\)"),
        ({"circuits": {"length": 9}}, r"'length' \(did you mean protocol.length\?\), allowed: pr"),
        ({"circuits": {"components": 9}}, "^circuits: unknown key 'components', allowed: probes"),
        ({"cluster": {"batch_size": 9}}, r"\(did you mean batch_size at the top\?\)"),
        ({"protocol": {"path": 9}}, r"\(did you mean models\[\].path\?\)"),
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
        ({"invariants": ["top_effect"]}, "invariant 'top_effect', a quantity of circuits.strength"),
        ({"invariants": {"circuits.depth": {"sequences": 9}}},
         r"parameter of circuits.depth 'sequences' \(did you mean protocol.sequences or "),
        ({"variants": ["trained", "untrained"]}, "'untrained', allowed: random_init for it"),
        ({"invariants": "most"}, "^invariants: got 'most', allowed: 'all'"),
        ({"invariants": {}}, "^invariants: got {}"),
        ({"invariants": {"topology.persistence": {"num_point": 1}}},
         r"parameter of topology.persistence 'num_point' \(did you mean 'num_points'\?\)"),
        ({"invariants": {"topology.persistence": {"num_points": "many"}}},
         r"^invariants: topology.persistence.num_points: got 'many', allowed: a valid integer"),
        ({"invariants": {"topology.persistence": 3}}, "persistence: got 3, allowed: a mapping"),
        ({"invariants": {"topology.persistence": {"num_points": -60}}},
         r"^invariants: topology.persistence.num_points: got -60, allowed: 4\.\.1000000"),
        ({"invariants": {"topology.persistence": {"max_dimension": 9}}},
         r"persistence.max_dimension: got 9, allowed: 1\.\.2$"),
        ({"invariants": {"topology.persistence": {"max_dimension": 2, "num_points": 5}}},
         r"persistence.num_points: got 5, allowed: 6\.\."),
        ({"invariants": {"topology.spectral_persistence": {"num_points": 1001}}},
         r"num_points: got 1001, allowed: 4\.\.1000$"),
        ({"invariants": {"topology.spectral_persistence": {"num_points": 10}}},
         r"num_neighbours: got 15, allowed: 1\.\.9 \(beside its other parameters\)"),
        ({"invariants": {"topology.significant_betti": {"level": 1}}},
         r"level: got 1, allowed: between 0 and 1"),
        ({"invariants": {"weights.weight_tail": {"num_null": 1}}}, r"num_null: got 1, allowed: 2"),
        ({"invariants": {"weights.weight_tail": {"precision": "float16"}}},
         "precision: got 'float16', allowed: 'float64' or 'float32'"),
        ({"invariants": {"geometry.neighbour_dimension": {"neighbour_order": 3}}},
         r"neighbour_order: got 3, allowed: powers of two, 1\.\.64"),
        ({"invariants": {"geometry.neighbour_dimension": {"num_points": 10}}},
         r"num_points: got 10, allowed: 1290\.\."),
        ({"invariants": {"curvature.ggn_density": {"flat": 0}}}, "flat: got 0, allowed: between 0"),
        ({"conservation": {"margin": 0}}, "^conservation.margin: got 0, allowed: greater than 0"),
        ({"conservation": {"margin": True}}, "^conservation.margin: got True, allowed: a number"),
        ({"conservation": {"held_out": "all"}}, "^conservation.held_out: got 'all', .*'largest'"),
        ({"conservation": {"comparisons": ["epochs"]}}, r"\[0\]: got 'epochs', .*'tokens'"),
        ({"cluster": {"deadline": "soon"}}, "^cluster.deadline: got 'soon', .*in s, min, h, d"),
        ({"cluster": {"memory": "4 buckets"}}, "^cluster.memory: got '4 buckets'.*GB"),
        ({"cluster": {"deadline": 0}}, "^cluster.deadline: got 0, allowed: greater than 0"),
        ({"cluster": {"gpus_per_model": -1}}, "^cluster.gpus_per_model: got -1"),
        ({"cluster": {"load": "chained"}},
         "^cluster.load: got 'chained', allowed: 'auto', 'resident' or 'streamed'$"),
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


def test_without_a_name_nothing_else_is_missing() -> None:
    with pytest.raises(ConfigError, match="^name: required, got nothing$"):
        load_run_config({"models": [{"path": "m"}]})


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("-007", -7), ("0o10", 8), ("0x10", 16), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("y", "y"), ("True", True),
        ("2024-01-01", "2024-01-01"), ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("1e-3", 1e-3), ("1E3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-.inf", -math.inf),
        ("+1", 1), ("1e", "1e"), ("0.1.2", "0.1.2"), ("~", None), ("", None), ("null", None),
        ("'010'", "010"), ("!!str 010", "010"), ("=", "="), ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)  # fmt: skip
def test_yaml_means_what_was_written(text: str, value: object) -> None:
    for document, found in (
        (f"a: {text}", lambda read: read["a"]),
        (f"[{text}]" if text else "[~]", lambda read: read[0]),
        (f"{{b: {{a: {text}}}}}", lambda read: read["b"]["a"]),
    ):
        read = found(parse_yaml(document, "x"))
        assert read == value and type(read) is type(value), document


def test_a_merge_and_an_alias_are_put_in_full() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nlist: [*b, *b]"
    read = parse_yaml(text, "x")
    assert read["more"] == {"x": 1, "y": 3} and read["list"] == [{"x": 1, "y": 2}] * 2


@pytest.mark.parametrize(
    "text",
    ["010", "0o10", "1e5", "12345e7", "yes", "1:30", "2024-01-01", "~", "<<", "null", "\u00e9"],
)
def test_a_text_survives_being_written_for_readers_of_either_version(text: str) -> None:
    written = write_yaml({"revision": text, "n": 10})
    assert parse_yaml(written, "x") == yaml.safe_load(written) == {"revision": text, "n": 10}


PLACES: dict[str, Any] = {
    "name": "x",
    "models": [
        {"path": "m", "init": "../i"}, {"ladder": "~/l"}, {"records": "/abs/r"}, {"hub": "a/b"},
    ],
    "probes": [{"name": "own", "file": "p.jsonl"}],
    "capabilities": [{"file": "e.json"}],
    "corpus": ["texts", "~/more"],
    "out": "s3://bucket/run",
}  # fmt: skip


def test_every_path_starts_at_the_folder_of_the_config_or_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "c.yaml").write_text(json.dumps(PLACES))
    monkeypatch.chdir(tmp_path)
    for file in ("series/c.yaml", folder / "c.yaml"):
        config = load_run_config(file)
        path, ladder, records, hub = config.models
        assert (path.path, path.init) == (f"{folder}/m", f"{tmp_path}/i")
        assert (ladder.ladder, records.records, hub.hub) == ("/home/me/l", "/abs/r", "a/b")
        assert config.probes[0].file == f"{folder}/p.jsonl"
        assert config.capabilities[0].file == f"{folder}/e.json"
        assert config.corpus == (f"{folder}/texts", "/home/me/more")
        assert config.out == "s3://bucket/run", "a URI stays as it is"
    (folder / "l.yaml").write_text(json.dumps(TRAIN | {"corpus": "~/t"}))
    ladder_config = load_train_config(folder / "l.yaml")
    assert (ladder_config.out, ladder_config.corpus) == (f"{folder}/runs/x/models", ("/home/me/t",))


def test_paths_of_a_mapping_start_at_the_working_directory_but_for_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = load_run_config(PLACES)
    assert config.models[0].path == "m" and config.models[1].ladder == "/home/me/l"
    assert load_run_config(PLACES, folder="/f").models[0].path == "/f/m"


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
