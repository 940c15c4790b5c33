"""Damage to a finished run: it is named, and the run or its report are afterwards as they were."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.cli import main
from scaleinv_ray.conclude.concluding import read_folder
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.runs.analysis import Run, run
from scaleinv_ray.store import Store, read_records
from tests.cluster.driving.test_faults import events, small_config
from tests.cluster.synthetic_work import capture_file, execute, good

pytestmark = pytest.mark.ray
Damage = Callable[[Path], object]
DIFFERENT = ["run_id", "wall_s"]


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)


@pytest.fixture
def copy(analysed: tuple[dict[str, Any], Run], tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """A finished run in a folder of its own: its config and the folder."""
    config, first = analysed
    shutil.copytree(first.store.uri, tmp_path / "out")
    return dict(config, out=str(tmp_path / "out")), tmp_path / "out"


def derived(out: Path) -> dict[str, Any]:
    """The tables that follow from measurements, as Arrow tables."""
    names = [p.name for p in out.glob("*.parquet") if p.name != "plan.parquet"]
    return {name: Store(out).read_table(name) for name in names}


def lose_some(out: Path) -> None:
    for name in ("values", "predictions"):
        (out / f"{name}.parquet").unlink()
    flip(out / "plan.parquet")
    (out / "measurements" / "x.parquet").touch()


def flip_some(out: Path) -> None:
    flip(out / "transitions.parquet")
    flip(out / "report.html")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_some, ["values.parquet, predictions.parquet: not there, made",
                     "plan.parquet: other bytes", "measurements/x.parquet: 0 bytes, empty"]),
        (flip_some, ["transitions.parquet, report.html: other bytes than were written, made"]),
        (lambda out: (out / "verdicts.parquet").write_bytes(b""), ["verdicts.parquet: 0 bytes, e"]),
        (lambda out: flip(out / "verdicts.parquet", 0.99), ["verdicts.parquet: other bytes"]),
    ],
)  # fmt: skip
def test_what_was_concluded_is_made_anew_where_it_is_gone_or_damaged(
    damage: Damage,
    said: list[str],
    copy: tuple[dict[str, Any], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, out = copy
    wanted, plan = derived(out), Store(out).read_table("plan.parquet", ["key", "invariant"])
    damage(out)
    again = run(config)
    err = capsys.readouterr().err
    assert again.computed == 0 and all(line in err for line in said), err
    assert derived(out) == wanted and (out / "report.html").stat().st_size > 1e5
    assert Store(out).read_table("plan.parquet", ["key", "invariant"]).equals(plan)
    run(config)
    assert "note:" not in capsys.readouterr().err


def test_an_exchanged_measurement_is_judged_again(copy: tuple[dict[str, Any], Path]) -> None:
    config, out = copy
    (file,) = (out / "measurements").glob("all-*")
    name = f"measurements/{file.name}"
    store = Store(out)
    table = store.read_table(name)
    values = [None if v is None else 2 * v for v in table["value"].to_pylist()]
    at = table.schema.get_field_index("value")
    store.write_table(name, table.set_column(at, table.field(at), [values]))  # the same name
    before = derived(out)["capabilities.parquet"], (out / "report.html").read_bytes()
    assert run(config).computed == 0
    after = derived(out)["capabilities.parquet"], (out / "report.html").read_bytes()
    assert before[1] != after[1]


def report(out: Path, monkeypatch: pytest.MonkeyPatch, *, code: int = 0) -> None:
    monkeypatch.setattr("sys.argv", ["scaleinv", "report", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code


def test_a_report_goes_on_with_what_is_whole_and_says_so(
    copy: tuple[dict[str, Any], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out = copy
    wanted = derived(out)
    keys = Store(out).read_table("plan.parquet", ["key"])
    (out / "measurements" / "half.parquet").write_bytes(b"PAR1half")
    (out / "plan.parquet").write_bytes(b"PAR1")
    report(out, monkeypatch)
    err = capsys.readouterr().err
    assert "note: measurements/half.parquet: 8 bytes, empty, truncated or no" in err
    assert "plan.parquet: 4 bytes" in err and "made anew" in err
    assert derived(out) == wanted and Store(out).read_table("plan.parquet", ["key"]).equals(keys)
    assert (out / "measurements" / "half.parquet").exists(), "it measures nothing, renames nothing"
    assert "measurements/half.parquet" in (out / "report.html").read_text()
    for folder in ("curves", "diagrams"):
        shutil.rmtree(out / folder)
    report(out, monkeypatch)
    assert "curves, diagrams: those of" in capsys.readouterr().err
    assert derived(out)["verdicts.parquet"].equals(wanted["verdicts.parquet"])


def test_a_report_without_plan_and_models_judges_all_there_is(
    copy: tuple[dict[str, Any], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import scaleinv_ray.plan

    def gone(_: object) -> None:
        raise ValueError("models[0]: no such folder")

    _, out = copy
    wanted = derived(out)
    flip(out / "plan.parquet")
    monkeypatch.setattr(scaleinv_ray.plan, "make_plan", gone)
    report(out, monkeypatch)
    err = capsys.readouterr().err
    assert "not made anew (models[0]: no such folder), all measurements of the folder" in err
    assert derived(out) == wanted


@pytest.mark.parametrize("at", [0.05, 0.5, 0.97])
def test_a_changed_config_of_a_run_folder_is_no_other_config(
    at: float, copy: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config, out = copy
    text = (out / "config.yaml").read_text()
    flip(out / "config.yaml", at)
    report(out, monkeypatch, code=2)
    said = rf"error: {out}/config.yaml: other bytes than were written; allowed: as the run"
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="other bytes than were written"):
        run(config)
    (out / "config.yaml").write_text(text[: text.rindex("#")])  # what is meant
    assert run(config).computed == 0
    assert "# sha256 of what stands above: " in (out / "config.yaml").read_text()


def test_a_damaged_capture_is_made_again_within_the_run(
    text_folder: Path, ladder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    config = small_config(text_folder, ladder, out, captures="keep")
    config["models"] = [{"path": str(ladder / "d16-s0" / "step-000006")}]
    config["invariants"] = {"holomorphy.resolvent_counts": {}, "weights.weight_tail": {}}
    first = run(config)
    (capture,) = (out / "captures").glob("*.arrow")
    records = read_records(capture)
    wanted = first.measurements.drop_columns(DIFFERENT)
    flip(capture)
    shutil.rmtree(out / "measurements")
    again = run(config)
    assert (again.computed, again.failed) == (first.computed, 0)
    assert again.measurements.drop_columns(DIFFERENT).equals(wanted)
    (said,) = (e for e in events(out) if e["event"] == "unfetched")
    assert f"{capture.name}: not a complete Arrow IPC file: other bytes" in said["error"]
    assert f"{capture.name}: not a complete" in capfd.readouterr().err
    for new, old in zip(read_records(capture), records, strict=True):
        np.testing.assert_array_equal(getattr(new, new.arrays[0]), getattr(old, old.arrays[0]))


def test_a_damaged_capture_that_was_made_elsewhere_is_a_failed_row(
    ray_session: None, tmp_path: Path
) -> None:
    path = capture_file(tmp_path)
    flip(Path(path))
    store = Store(tmp_path / "out")
    execute(store, good(5, path))
    assert take_inventory(store).done == set() and Path(path).exists()
    rows = tables.decode(read_folder(store, "measurements"))
    assert len({r["key"] for r in rows}) == 5 == len(list(store.names("measurements")))
    assert all(n.endswith(FAILED) for n in store.names("measurements"))
    assert all(f"{path}: not a complete Arrow IPC file: other bytes" in r["error"] for r in rows)
