"""The controls with known outcome end as they should: their exit status says so."""

import subprocess
import sys
from pathlib import Path

import pytest

CONTROLS = Path(__file__).parents[1] / "scripts" / "controls"


def _run(name: str, *options: str, cwd: Path) -> str:
    command = [sys.executable, str(CONTROLS / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AS EXPECTED" not in done.stdout
    return done.stdout


@pytest.mark.ray
@pytest.mark.parametrize(
    "name",
    [
        "balancedness",
        "lattices",
        pytest.param("attention_heads", marks=pytest.mark.slow),
        pytest.param("sharpness", marks=pytest.mark.slow),
    ],
)
def test_quick_controls(name: str, tmp_path: Path) -> None:
    assert "expected" in _run(name, "--quick", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["balancedness", "attention_heads", "sharpness", "lattices"])
def test_controls(name: str, tmp_path: Path) -> None:
    assert "expected" in _run(name, cwd=tmp_path)


def test_a_figure_out_of_range_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(CONTROLS))
    import _records

    monkeypatch.setattr(sys, "argv", ["control", "--quick"])
    checks = [_records.Check("good", 1.0, 0.9, 1.1), _records.Check("bad", 2.0, 0.9, 1.1)]
    with pytest.raises(SystemExit) as ended:
        _records.main("planted", lambda folder, quick: checks)
    assert ended.value.code
    assert capsys.readouterr().out.count("NOT AS EXPECTED") == 1
