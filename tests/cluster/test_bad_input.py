"""Bad input is one clear line before any work starts, and nothing is written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from scaleinv_ray.cli import app
from tests.cluster.conftest import run_config

pytestmark = pytest.mark.ray


def _unknown_key(config: dict[str, Any], _: Path) -> None:
    config["protocoll"] = config.pop("protocol")


def _unknown_invariant(config: dict[str, Any], _: Path) -> None:
    config["invariants"] = ["topology.persistance"]


def _unknown_probe(config: dict[str, Any], _: Path) -> None:
    config["probes"] = ["pros"]


def _unknown_parameter(config: dict[str, Any], _: Path) -> None:
    config["invariants"] = {"topology.persistence": {"num_pionts": 30}}


def _too_many_points(config: dict[str, Any], _: Path) -> None:
    config["invariants"] = {"topology.persistence": {"num_points": 97}}


def _too_few_tokens(config: dict[str, Any], _: Path) -> None:
    config["protocol"]["sequences"] = 40
    config["invariants"] = ["representation.covariance_decay"]


def _more_text_than_there_is(config: dict[str, Any], _: Path) -> None:
    config["protocol"]["sequences"] = 100_000


def _longer_than_positions(config: dict[str, Any], _: Path) -> None:
    config["protocol"]["length"] = 65


def _same_identity(config: dict[str, Any], models: Path) -> None:
    config["models"].append({"path": str(models / "d32-s0"), "steps": [6]})


def _truncated(_: dict[str, Any], models: Path) -> None:
    file = models / "d32-s0" / "step-000006" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _missing_shard(_: dict[str, Any], models: Path) -> None:
    folder = models / "d32-s0" / "step-000006"
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"x.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_weights(_: dict[str, Any], models: Path) -> None:
    (models / "d32-s0" / "step-000006" / "model.safetensors").unlink()


def _pickle(_: dict[str, Any], models: Path) -> None:
    folder = models / "d32-s0" / "step-000006"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unknown_key, r"protocoll.*'?protocol'?"),
        (_unknown_invariant, r"topology\.persistance.*topology\.persistence"),
        (_unknown_probe, r"pros.*prose"),
        (_unknown_parameter, r"num_pionts.*num_points"),
        (
            _too_many_points,
            r"num_points: got 97, allowed 1\.\.96 \(protocol.sequences\), auto, or more .*corpus:",
        ),
        (
            _too_few_tokens,
            r"sequences x length: got 1920 tokens, 50 tokens_per_dim of model "
            r"d48-s0 of width 48 need 2400; allowed: fewer of these, or more sequences .*corpus:",
        ),
        (_more_text_than_there_is, r"tokens"),
        (_longer_than_positions, r"protocol\.length: got 65, allowed 1\.\.64"),
        (_same_identity, r"are both model 'd32-s0', step 6, seed 0"),
        (_truncated, r"model\.safetensors.*(truncated|bytes)"),
        (_missing_shard, r"model-00001-of-00002\.safetensors"),
        (_no_weights, r"safetensors"),
        (_pickle, r"pytorch_model\.bin.*pickle|pickle.*pytorch_model\.bin"),
    ],
    ids=lambda x: x.__name__.strip("_") if callable(x) else None,
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_bad_input_is_one_line_and_nothing_is_written(
    command: str, spoil: Any, message: str, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(ladder, models)
    config = run_config(text_folder, models, tmp_path / "out")
    spoil(config, models)
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, [command, str(file)])
    assert isinstance(result.exception, ValueError), result.output
    assert re.search(message, str(result.exception), re.S), str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"gpus_per_model": 1}, "cluster.gpus_per_model: got 1, no node has more than 0 GPUs"),
        ({"actors": 1000}, "cluster.actors: got 1000, nodes have room for 2"),
        ({"memory": "900TB"}, "cluster.memory: got 900000000000000, no node with a CPU has more"),
    ],
)
def test_a_run_that_the_cluster_cannot_serve_claims_nothing(
    cluster: dict[str, Any], said: str, text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    from scaleinv_ray.runs.analysis import run

    config = run_config(text_folder, ladder, tmp_path / "out") | {"cluster": cluster}
    with pytest.raises(ValueError, match=said):
        run(config)
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left in ([], ["run.lock"]), "no config.yaml that a corrected one would be refused by"


def test_plan_prints_what_is_missing_and_computes_nothing(
    text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump(run_config(text_folder, ladder, tmp_path / "out")))
    result = CliRunner().invoke(app, ["plan", str(file)])
    assert result.exit_code == 0, result.output
    for word in ("units: 40", "16 trained", "8 shuffled_tokens", "jacobians", "missing", "MB"):
        assert word in result.output, result.output
    assert not (tmp_path / "out").exists()


def test_main_turns_a_mistake_into_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scaleinv_ray.cli import main

    file = tmp_path / "bad.yaml"
    file.write_text("name: x\nmodells: []\n")
    monkeypatch.setattr("sys.argv", ["scaleinv", "plan", str(file)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err
