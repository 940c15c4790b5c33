"""What the command line says to a newcomer: of folders, `~`, older tables, what a model lacks."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from scaleinv_ray import tables
from scaleinv_ray.cli import app, main
from scaleinv_ray.config import load_run_config
from scaleinv_ray.inputs.paths import without_keys
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.plan import make_plan
from scaleinv_ray.store import Store

RUN = "name: x\nmodels: [{path: m}]\n"


def model(folder: Path, *, tokenizer: bool = True) -> Path:
    small = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=257, n_positions=16)
    GPT2LMHeadModel(small).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder


def told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line that a command ends with."""
    monkeypatch.setattr("sys.argv", ["scaleinv", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: "), said
    assert said.count("\n") == 1 and len(said) < 300, said
    return said


def test_a_run_folder_in_the_place_of_a_config_is_shown_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(RUN)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for given in (str(tmp_path), f"~/{tmp_path.name}"):
        for command in ("run", "plan"):
            said = told([command, given], monkeypatch, capsys)
            assert said.startswith(f"error: config: got '{tmp_path}', a folder; allowed: a YAML")
            assert said.endswith(f"(for a run folder: scaleinv report {tmp_path})\n")


def test_home_is_known_wherever_a_path_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text(RUN)
    (tmp_path / "f").mkdir()
    home = str(tmp_path)
    for arguments, said in (
        (["report", "~/f"], f"got '{home}/f' without config.yaml"),
        (["status", "~/f"], f"got '{home}/f' without plan.parquet"),
        (["plan", "~/c.yaml"], f"path: got '{home}/m', no such folder"),
        (["plan", "~/c.yaml", "--out", "~/c.yaml"], f"out: got '{home}/c.yaml', c.yaml is a file"),
        (["plan", "~/c.yaml", "--plugin", "~/p.py"], f"got '{home}/p.py', no such file"),
        (["convert", "~/g", "~/h"], f"folder: got '{home}/g', no such folder"),
        (["inspect", "~/f"], f"{home}/f"),
        (["inspect", "~/f", "--tokens", "~/t.npy"], f"got '{home}/t.npy': No such file"),
        (["inspect", "~/f", "--plugin", "~/p.py"], f"plugin: got '{home}/p.py', no such file"),
        (["inspect", "~/f", "--against", "~/f"], f"got '{home}/f' without config.yaml"),
        (["inspect", "~/f", "--against", "~/f/t.parquet"], f"{home}/f/t.parquet"),
    ):
        assert said in (line := told(arguments, monkeypatch, capsys)), line


def test_a_relative_path_says_where_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.yaml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    said = told(["plan", "below/c.yaml"], monkeypatch, capsys)
    start = "relative paths start at the folder of the config"
    assert f"path: got '{tmp_path}/below/m', no such folder; {start}\n" in said


def test_an_older_config_of_a_run_folder_is_named_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(f"{RUN}null_stepz: last\n")
    said = told(["report", str(tmp_path)], monkeypatch, capsys)
    assert f"error: {tmp_path}/config.yaml: unknown key 'null_stepz' (did you mean" in said


def test_a_table_of_another_version_says_what_differs_and_what_to_do(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    full = tables.PLAN.empty_table()
    for table, said in (
        (full.drop_columns(["tokenizer"]), "lacks tokenizer"),
        (full.append_column("more", pa.array([], pa.string())), "has more besides"),
        (full.select([*reversed(full.schema.names)]), "columns in another order"),
    ):
        store.write_table("plan.parquet", table)
        wanted = rf"a table of another version \({said}\); scaleinv run makes it anew"
        with pytest.raises(ValueError, match=wanted) as stop:
            store.read_table("plan.parquet", schema=tables.PLAN)
        text = str(stop.value)
        assert text.startswith(f"{tmp_path}/plan.parquet: ") and len(text) < 300
        assert "\n" not in text


def test_a_model_without_a_tokenizer_is_shown_what_goes_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text(f"{RUN}invariants: [behaviour.capabilities]\n")
    model(tmp_path / "m", tokenizer=False)
    said = told(["plan", str(tmp_path / "c.yaml")], monkeypatch, capsys)
    assert f"model m: got no tokenizer.json in {tmp_path}"[:60] in said
    assert (
        "allowed without: probes of token ids ({name: .., tokens: ids.npy}), or invariants of"
        in said
    )
    ran = CliRunner().invoke(app, ["inspect", str(tmp_path / "m"), "--budget", "0.5", "--json"])
    left = json.loads(ran.stdout)["left_out"]["behaviour.capabilities"]
    assert left == "no tokenizer.json, needed by the probes (or token ids of your own: --tokens)"


def test_what_is_too_large_is_told_with_every_way_out(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model(tmp_path / "m")
    for change, said in (
        ("protocol: {sequences: 100000}\ninvariants: [behaviour.capabilities]",
         r"sequences: got \d+ tokens of held-out prose, 100000 sequences of 16 tokens need "
         r"1600000; allowed up to \d+ \(protocol.sequences\), a smaller protocol.length, "
         r"or more text \(corpus: \[folder\], or the probe's own file\)$"),
        ("protocol: {sequences: 64}\ninvariants: {topology.persistence: {num_points: 65}}",
         r"invariants.topology.persistence.num_points: got 65, allowed 1..64 \(protocol"
         r".sequences\), auto, or more sequences \(of more text: corpus: \[folder\]\)$"),
        ("protocol: {sequences: 16, tokens_per_dim: 99}\n"
         "invariants: [representation.participation]",
         r"protocol.sequences x length: got 256 tokens, 99 tokens_per_dim of model m of width 8 "
         r"need 792; allowed: fewer of these, or more sequences \(of more text: corpus: "),
        ("protocol: {length: 17}\ninvariants: [behaviour.capabilities]",
         r"protocol.length: got 17, allowed 1..16 \(positions of model m\)$"),
    ):  # fmt: skip
        (tmp_path / "c.yaml").write_text(f"{RUN}corpus: ['{text_folder}']\n{change}\n")
        line = told(["plan", str(tmp_path / "c.yaml")], monkeypatch, capsys)
        assert re.search(said, line.strip()), line


def test_a_plan_says_what_comes_of_it_and_which_plugin_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "m", tokenizer=False)
    config = tmp_path / "c.yaml"
    config.write_text(f"{RUN}invariants: [weights.weight_tail]\n")
    ran = CliRunner().invoke(app, ["plan", str(config)])
    assert "verdicts: all will be undetermined: 1 sizes, needs 4; " in ran.stdout
    assert "one seed at 1 of 1 sizes, needs 2" in ran.stdout
    assert "; a model alone is looked at with `scaleinv inspect`\n" in ran.stdout
    (tmp_path / "mine.py").write_text("1 / 0\n")
    config.write_text(f"{RUN}plugins: [mine.py]\n")
    line = told(["plan", str(config)], monkeypatch, capsys).replace(str(tmp_path), "FOLDER")
    place = "error: FOLDER/c.yaml: plugins[0]: got 'FOLDER/mine.py', "
    assert line == f"{place}ZeroDivisionError: division by zero (line 1)\n"


def test_auto_is_what_nobody_set(tmp_path: Path) -> None:
    model(tmp_path / "m")
    base = {"name": "x", "models": [{"path": str(tmp_path / "m")}], "variants": ["trained"]}
    named = {"behaviour.capabilities": {}, "topology.merge_tree": {}}
    plans = [
        make_plan(load_run_config(base | given, folder=tmp_path))
        for given in (
            {"invariants": named},
            {
                "protocol": "auto",
                "invariants": named | {"topology.merge_tree": {"num_points": "auto"}},
            },
            {"protocol": {"sequences": "auto", "length": "auto"}, "invariants": named},
        )
    ]
    assert plans[0].fitted and len({plan.fitted for plan in plans}) == 1
    keys = [[m.key for m in plan.measurements] for plan in plans]
    assert keys[0] == keys[1] == keys[2]
    for given, said in (
        ({"protocol": {"length": "most"}}, "protocol.length: got 'most', allowed: a valid integer"),
        ({"protocol": "all"}, "protocol: got 'all', allowed: a mapping"),
        ({"invariants": {"topology.merge_tree": {"num_points": "most"}}}, "num_points: got 'most'"),
    ):
        with pytest.raises(ValueError, match=said):
            load_run_config(base | given)


def test_a_shell_completes_commands() -> None:
    asked = {
        "_SCALEINV_COMPLETE": "complete_bash", "COMP_WORDS": "scaleinv new-", "COMP_CWORD": "1",
    }  # fmt: skip
    completed = CliRunner().invoke(app, [], prog_name="scaleinv", env=asked)
    assert completed.output.strip() == "new-invariant"


def test_keys_of_a_store_are_shown_nowhere() -> None:
    uri = "s3://key:secret@bucket/runs/a?endpoint_override=127.0.0.1%3A9&region=x"
    assert without_keys(uri) == "s3://bucket/runs/a"
    store = Store(uri)
    assert (store.uri, store.shown) == (uri, "s3://bucket/runs/a")
    with pytest.raises(ValueError, match="inside s3://bucket/runs/a$"):
        store.path("../b")
