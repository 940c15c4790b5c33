"""What a user may write by mistake: exit code 2, one line under 300 characters, nothing written."""

import json
import os
import re
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from scaleinv_ray.cli import main
from scaleinv_ray.ladder.tokenizer import byte_tokenizer

RUN = "name: x\nmodels: [{path: m}]\n"
LADDER = "name: x\nwidths: [32]\ndepth: 1\nsteps: 4\n"
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
)


def told(
    command: str, content: str | bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """The line that a command ends with; checks all that is wanted of it beside its words."""
    file = folder / "c.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "m").mkdir(exist_ok=True)
    before = sorted(p.name for p in folder.rglob("*"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr("sys.argv", ["scaleinv", command, str(file)])
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1 and len(said) < 300, said
    assert "Traceback" not in said
    assert sorted(p.name for p in folder.rglob("*")) == before, "something was written"
    return said.replace(str(folder), "FOLDER")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "got NoneType, allowed: a mapping"),
        ("null", "got NoneType, allowed: a mapping"),
        ("[1, 2]", "got list, allowed: a mapping"),
        ("text", "got str, allowed: a mapping"),
        ("a: [", r"not YAML: expected the node content.* \(line 1\)"),
        ("name: x\n\tmodels: y", r"not YAML: found character '\\t'.* \(line 2\)"),
        ("a: b: c", r"mapping values are not allowed here \(line 1\)"),
        ("a: 1\n---\nb: 2", r"another document \(line 2\)"),
        ("name: x\nname: y", r"key 'name' stands more than once \(line 2\)"),
        ("protocol: {length: 1, length: 2}", r"key 'length' stands more than once"),
        ("models: [{path: a, path: b}]", r"key 'path' stands more than once"),
        ("1: a\n0x1: b", r"key 1 stands more than once \(line 2\)"),
        ("? [a]\n: b", r"unhashable key \(line 1\)"),
        ("{{a: 1}: 2}", r"unhashable key \(line 1\)"),
        ("models: &x [*x]", r"a value that holds itself \(line 1\)"),
        ("models: &x {a: {b: *x}}", r"a value that holds itself"),
        ("a: *b", "undefined alias 'b'"),
        ("[" * 30_000, r"nested deeper than 50 levels \(line 1\)"),
        ("{a: " * 30_000, r"nested deeper than 50 levels"),
        (BOMB, r"more than 1000000 values, its aliases put in full"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!int zz", "got 'zz', allowed: an integer"),
        ("a: !!timestamp zz", "could not determine a constructor"),
        ("<<: 3", "for merging"),
        ("name: " + "9" * 5000, "allowed: an integer"),
        ('name: "\\ud83d"', "allowed: Unicode text"),
        (b"\x80\x81", "not YAML, no text"),
        (b"\0" * 100, "not YAML, no text"),
        (b"#" * 4_000_001, "got more than 4.00 MB, allowed: a config"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_config(
    content: str | bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("plan", "train"):
        line = told(command, content, tmp_path, capsys)
        assert line.startswith("error: FOLDER/c.yaml: ") and re.search(said, line), line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # YAML means what was written
        ("batch_size: 1_000", "batch_size: got '1_000', allowed: a valid integer"),
        ("batch_size: 1e3", r"batch_size: got 1000\.0, allowed: a valid integer"),
        ("split_heads: yes", "split_heads: got 'yes', allowed: true or false"),
        ("split_heads: 1", "split_heads: got 1, allowed: true or false"),
        ("captures: off", "captures: got 'off', allowed: 'keep' or 'discard'"),
        ("cluster: {deadline: 1:30}", "cluster.deadline: got '1:30', allowed: seconds"),
        ("cluster: {deadline: 2024-01-01}", "cluster.deadline: got '2024-01-01', allowed"),
        ("null_steps: [1:30]", r"null_steps: got \['1:30'\], allowed: 'all', 'last' or a list"),
        ("conservation: {margin: '0.1'}", "conservation.margin: got '0.1', allowed: a number"),
        # shapes
        ("protocol: [1]", r"protocol: got \[1\], allowed: a mapping"),
        ("probes: prose", "probes: got 'prose', allowed: a list"),
        ("capabilities: x", "capabilities: got 'x', allowed: a list"),
        ("corpus: 5", "corpus: got 5, allowed: 'python-stdlib', or files and folders"),
        ("corpus: [[a]]", "corpus: got .*, allowed: 'python-stdlib', or files and folders"),
        ("invariants: {topology.persistence: []}", r"got \[\], allowed: a mapping of parameters"),
        ("out: ''", "out: got '', allowed: a text, not empty"),
        # bounds
        ("cluster: {actors: 1000000000}", "cluster.actors: got 1000000000, allowed: less than"),
        ("cluster: {memory: 1" + "0" * 30 + "}", "cluster.memory: got 10{30}, allowed: less than"),
        ("cluster: {workers: 10000000000}", "cluster.workers: got 10000000000, allowed"),
        ("cluster: {deadline: .inf}", "cluster.deadline: got inf, allowed: a finite number"),
        ("protocol: {jacobian_positions: 1000000}", "jacobian_positions: got 1000000, allowed"),
        ("protocol: {sequences: 100000000000}", "protocol.sequences: got 100000000000, allowed"),
        ("protocol: {sequences: 9000000, length: 1000}", "sequences x length: got 9000000000"),
        ("curvature: {num_steps: 1000000000}", "curvature.num_steps: got 1000000000, allowed"),
        ("sampling: {draws: 100000000000}", "sampling.draws: got 100000000000, allowed"),
        ("conservation: {predict: [{model: a, n_params: 1" + "0" * 30 + "}]}", "n_params: got 1"),
        ("cluster: {deadline: \u0663\u0660min}", "cluster.deadline: got .*, allowed: seconds"),
        ('cluster: {scratch: "/a\\0b"}', "cluster.scratch: got .*, allowed: an absolute path"),
        ("conservation: {predict: [{model: a, n_params: 5}, {model: a, n_params: 6}]}",
         "conservation.predict: got a more than once, allowed: each once"),
        # names
        ("invariants: [topology.persistance]",
         r"did you mean 'topology.persistence'.*persistence.* and \d+ more$"),
        ("probes: [porse]", r"did you mean 'prose'\?\), allowed: prose, .* and 4 more$"),
        ("trust_remote_code: [zz]", "unknown model 'zz', allowed: m"),
        ("k" * 100 + ": 1", "unknown key 'kkk.*, allowed: .* and 17 more"),
        # places
        ("capabilities: [{file: ~nobody_of_that_name/x}]", "no user of that name"),
        ("corpus: [\"a\\0b\"]", "corpus: got .*, allowed: a path"),
        ("plugins: [none.py]", r"plugins\[0\]: got 'FOLDER/none.py', no such file"),
        ("out: c.yaml", r"out: got 'FOLDER/c.yaml', c.yaml is a file; allowed: a folder"),
        ("out: c.yaml/deeper/run", "out: got 'FOLDER/c.yaml/deeper/run', .* is a file"),
        ("out: " + "a" * 5000, "File name too long"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_a_config_of_a_run_with_a_mistake(
    change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told("plan", RUN + change + "\n", tmp_path, capsys)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("m", "models: got 'm', allowed: a list, as '- path: m'"),
        (
            "[m]",
            r"models\[0\]: got 'm', allowed: a mapping, as '- path: m' or '- hub: organisation/m'$",
        ),
        ("[{hub: gpt2}]", "hub: got 'gpt2', allowed: organisation/name, as openai-community/gpt2"),
        ("{path: m}", "models: got {'path': 'm'}, allowed: a list, a '-' before each model"),
        ("[null]", r"models\[0\]: got None, allowed: a mapping with one of hub, path"),
        ("[[m]]", r"models\[0\]: got \['m'\], allowed: a mapping with one of hub, path"),
        ("[]", r"models: got \[\], allowed: a list of at least 1 item"),
        ("[{path: m, hub: a/b}]", r"models\[0\]: got .*, allowed: a mapping with one of hub"),
        ("[{path: m, steps: [1.5]}]", r"models\[0\].steps: got \[1.5\], allowed: 'all', .*>= 0$"),
        ("[{path: m, steps: 010}]", r"models\[0\].steps: got 10, allowed: 'all', 'last' or a list"),
        ("[{path: m, seed: 1" + "0" * 30 + "}]", r"models\[0\].seed: got 10{30}, allowed"),
        ("[{hub: a/b, revision: 010}]", r"revision: got 10, allowed: a valid string \(a number"),
        ("[{path: 3}]", r"models\[0\].path: got 3, allowed: a valid string"),
        ("[{path: nowhere}]", "path: got 'FOLDER/nowhere', no such folder"),
        ("[{path: c.yaml}]", "path: got 'FOLDER/c.yaml', a file, allowed: a folder"),
        ("[{ladder: nowhere}]", "ladder: got 'FOLDER/nowhere', no such folder"),
        ("[{records: nowhere}]", "records: got 'FOLDER/nowhere', no such folder"),
        ("[{path: " + "a" * 5000 + "}]", "no such folder"),
        ("[{path: m, name: " + "a" * 10_000 + "}]", "of 10000 characters, allowed: 100"),
    ],
    ids=lambda value: value[:40],
)
def test_models_with_a_mistake(
    models: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told("plan", f"name: x\nmodels: {models}\n", tmp_path, capsys).strip()
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seeds: [1180591620717411303424]", r"seeds\[0\]: got 1180591620717411303424, allowed"),
        ("seeds: 3", "seeds: got 3, allowed: a list"),
        ("batch: 1000000000", "batch x length: got 128000000000 tokens, allowed: 16777216"),
        ("length: 100000000000", "batch x length: got"),
        ("optimizer: {lr: 1e400}", "optimizer.lr: got inf, allowed: a finite number"),
        ("optimizer: {lr: -1}", "optimizer.lr: got -1, allowed: greater than 0"),
        ("checkpoints: [1.5, 4]", r"checkpoints: got \[1.5, 4\], allowed: a list of integers"),
        ("checkpoints: [0, 010]", "checkpoints: got 10 as the last, allowed: 4"),
        ("depths: [[1]]", r"depths.*: got \[1\], allowed: a valid integer"),
        ("dtype: off", "dtype: got 'off', allowed: 'float32' or 'bfloat16'"),
        ("out: c.yaml", "out: got 'FOLDER/c.yaml', .* is a file"),
        ("corpus: nowhere", "corpus: got 'FOLDER/nowhere', allowed"),
    ],
    ids=lambda value: value[:40],
)
def test_a_config_of_a_ladder_with_a_mistake(
    change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told("train", LADDER + change + "\n", tmp_path, capsys)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ("[1099511627776]\ndepth: 1", r"widths\[0\]: got 1099511627776, allowed"),
        ("[131072]\ndepth: 100", r"run d131072-s0 of depth 100 needs 3\d\d TB or more, this mach"),
        ("[[1]]\ndepths: [1]", r"widths\[0\]: got \[1\], allowed: a valid integer"),
    ],
)
def test_a_ladder_that_no_machine_holds(
    widths: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told("train", f"name: x\nsteps: 4\nwidths: {widths}\n", tmp_path, capsys)
    assert re.search(said, line), line


def test_a_name_is_refused_not_shortened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, rest in (("plan", "models: [{path: m}]"), ("train", "widths: [32]\ndepth: 1")):
        line = told(command, f"name: {'a' * 10_000}\nsteps: 4\n{rest}\n", tmp_path, capsys)
        assert "of 10000 characters, allowed: 100" in line or "unknown key 'steps'" in line


def test_many_mistakes_are_one_line_with_all_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "captures: off\nbatch_size: 0\nsplit_heads: no\nprotocol: 3\ncluster: {load: off}\n"
    line = told("plan", RUN + wrong, tmp_path, capsys)
    for place in ("protocol", "cluster.load", "captures", "batch_size", "split_heads"):
        assert place in line, line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got NoneType, allowed: a mapping"),
        (b"null", "got NoneType, allowed: a mapping"),
        (b"[1]", "got list, allowed: a mapping"),
        (b"\x80\x81", "not YAML, no text"),
        (b"name: [", r"not YAML: .*\(line 1\)"),
        (b"name: x\nmodels: 3", "models: got 3, allowed: a list"),
    ],
)
def test_a_run_folder_whose_config_is_none(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "config.yaml").write_bytes(content)
    monkeypatch.setattr("sys.argv", ["scaleinv", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1
    assert re.search(f"error: {tmp_path}/config.yaml: {said}", line), line


def test_a_library_that_chokes_is_one_line_with_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.parquet").write_bytes(b"PAR1 of another kind")
    monkeypatch.setattr("sys.argv", ["scaleinv", "status", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    assert str(tmp_path / "plan.parquet") in line


def test_the_traceback_is_shown_with_debug_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({"name": "x"}))
    for argv in (["--debug", "plan", str(file)], ["plan", str(file), "--debug"]):
        monkeypatch.setattr("sys.argv", ["scaleinv", *argv])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr().err
        assert stop.value.code == 2 and "Traceback (most recent call last)" in said
        assert said.strip().splitlines()[-1] == f"error: {file}: models: required, got nothing"


def test_an_unreadable_config_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in (
        ("none.yaml", "No such file"),
        (".", "a folder; allowed: a YAML file (for a run folder: scal"),
    ):
        monkeypatch.setattr("sys.argv", ["scaleinv", "plan", str(tmp_path / name)])
        with pytest.raises(SystemExit) as stop:
            main()
        line = capsys.readouterr().err
        assert stop.value.code == 2 and line.count("\n") == 1 and said in line, line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("probes: [{name: mine, file: pipe}]", "probes: got '.*pipe', allowed: a plain file"),
        ("corpus: pipe", "corpus: got '.*pipe', allowed: a plain file"),
        ("corpus: /dev/zero", "corpus: got '/dev/zero', allowed: a plain file"),
        ("capabilities: [{file: pipe}]", "capabilities: .*pipe: .*not a file"),
        ("capabilities: [{file: pipe.parquet}]", "capabilities: .*pipe.parquet: .*not a file"),
        ("null_steps: [7]", r"null_steps: got 7, the models have \[4\]"),
    ],
    ids=lambda value: value[:40],
)
def test_what_would_be_waited_for_is_refused(
    change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m"
    model.mkdir()
    small = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=257, n_positions=16)
    GPT2LMHeadModel(small).save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    (model / "training.json").write_text('{"step": 4}')
    for name in ("pipe", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    protocol = "{sequences: 32, length: 16, position: 8, blocks: 2}"
    capsys.readouterr()
    config = f"{RUN}protocol: {protocol}\ninvariants: [behaviour.capabilities]\n"
    line = told("plan", config + change, tmp_path, capsys)
    assert re.search(said, line), line
