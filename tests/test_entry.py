"""How a command ends: its exit code and the one line that it says."""

import errno
import json
import os
import pickle
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from scaleinv_ray.cli import main
from scaleinv_ray.entry import STOPPED, enter
from scaleinv_ray.inputs.paths import check_folder
from scaleinv_ray.inputs.reading import read_by, reading, told, writing
from scaleinv_ray.runs.printing import _names, found_in
from scaleinv_ray.store import Store
from tests.report.synthetic_tables import synthetic


def ended(command, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and what was said."""
    with pytest.raises(SystemExit) as stop:
        enter(command)
    return stop.value.code, capsys.readouterr().err


def failing(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaleinv", "run"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a: got 1, allowed: 2"), "error: a: got 1, allowed: 2\n"),
        (KeyError("rope_type"), "error: KeyError: 'rope_type' (--debug shows where)\n"),
        (TypeError("two\n  lines"), "error: TypeError: two; lines (--debug shows where)\n"),
        (RecursionError("maximum depth"), "nested too deeply (--debug shows where)\n"),
        (MemoryError(), "error: MemoryError: not enough memory (--debug shows where)\n"),
        (AssertionError(), "error: AssertionError (--debug shows where)\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/d/f"), "device: '/d/f'\n"),
    ],
)
def test_whatever_comes_this_far_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = ended(failing(error), capsys)
    assert code == 2 and text.endswith(said) and text.count("\n") == 1


def test_a_long_message_keeps_both_ends(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("name: got " + "x" * 10_000 + ", allowed: 100")
    _, text = ended(failing(error), capsys)
    assert len(text) < 300 and text.startswith("error: name: got xxx")
    assert text.endswith("x, allowed: 100\n")


def test_a_stack_of_another_process_is_told_by_its_cause(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class TaskError(Exception):
        cause = ValueError("corpus: got nothing")

    assert ended(failing(TaskError("Traceback ...")), capsys)[1] == "error: corpus: got nothing\n"
    stack = "ray::f()\nTraceback (most recent call last):\n  File x\nRuntimeError: out of memory"
    assert ended(failing(ValueError(stack)), capsys)[1] == "error: RuntimeError: out of memory\n"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_exit_code_of_the_command_stays(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(failing(SystemExit(code)), capsys) == (code, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)

    def command() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except SystemExit as error:  # as Ray does
            raise SystemExit(1) from error

    assert ended(command, capsys) == (code, f"{STOPPED}\n")
    assert signal.getsignal(number) is before


def test_the_innermost_reader_says_what_was_read() -> None:
    with pytest.raises(KeyError) as caught, reading("outer"), reading("/m/config.json"):
        raise KeyError("model_type")
    assert read_by(caught.value) == "/m/config.json"
    assert told(caught.value).startswith("/m/config.json: KeyError: 'model_type'")
    assert read_by(pickle.loads(pickle.dumps(caught.value))) == "/m/config.json"
    named = ValueError("/m/config.json: got no text")
    with pytest.raises(ValueError, match="got no text") as caught_value, reading("/m/config.json"):
        raise named
    assert told(caught_value.value) == "/m/config.json: got no text", "once is enough"


def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/run/x'"), writing("/run/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RuntimeError) as caught, writing("/run/x"):
        raise RuntimeError("I/O error: No space left on device")
    assert told(caught.value).startswith("/run/x: RuntimeError: I/O error: No space")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_names_the_file() -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):  # noqa: SIM117
        with writing("/dev/full"), open("/dev/full", "w") as stream:
            stream.write("x" * 100_000)


def test_a_folder_can_be_where_no_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for good in (tmp_path, tmp_path / "a" / "b", "s3://bucket/file"):
        check_folder("out", good)
    for bad, what in (("file", "file is a file"), ("file/a/b", "file is a file"),
                      ("link/a", "link is a link that leads nowhere")):  # fmt: skip
        with pytest.raises(ValueError, match=f"^out: got .*, {what}; allowed: a folder$"):
            check_folder("out", tmp_path / bad)


def test_the_version_is_said(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaleinv", "--version"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (
        stop.value.code == 0 and capsys.readouterr().out == f"scaleinv {version('scaleinv-ray')}\n"
    )


def test_a_run_ends_in_words_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = synthetic()
    store = Store(tmp_path)
    store.write_table("values.parquet", names["values"])
    found = found_in(store, names["verdicts"])
    assert found.sentences[0].startswith("Of ") and "conserved and learned" in found.sentences[0]
    assert found.rows[0]["beside_null"] == "learned" and "\u00b1" in found.rows[0]["trained"]
    assert found.next_step == f"open {tmp_path}/report.html"
    found.show()
    said = capsys.readouterr().out
    assert f"report: {tmp_path}/report.html\n" in said and found.rows[0]["trained"] in said
    whole = json.loads(found.to_json(failed=0))
    assert whole["findings"] == found.sentences and whole["failed"] == 0
    alone = names["verdicts"].slice(0, 0)
    assert "a verdict needs 4 sizes, got 0" in found_in(store, alone).next_step
    failing = found_in(store, names["verdicts"], failed=3).next_step
    assert failing == f"scaleinv status {tmp_path} says why 3 failed; a run tries them again"
    shown = _names(found.rows)
    assert len({*shown}) == len(shown), "no two rows of the table read the same"
