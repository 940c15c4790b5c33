"""scripts/compare_runs: folders are equal but for when, and by which code, they were made."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.store import Store
from tests.conclude.measured_rows import measurement

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "compare_runs"
ROWS = [
    measurement(key=key, layer=layer, value=value, run_id="one", wall_s=1.0, code_version="a")
    for key, layer, value in (("k", 0, 1.5), ("k", 1, None), ("m", 0, float("nan")))
]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run of measurements in one file, and a table beside it."""
    store = Store(folder)
    table = tables.encode(rows, tables.MEASUREMENTS)
    store.write_table("measurements/all-x.parquet", table)
    store.write_table("predictions.parquet", SCHEMAS["predictions"].empty_table())
    return folder


def compared(one: Path, other: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(one), str(other)], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "one", ROWS)


def test_runs_made_at_other_times_in_other_files_are_equal(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    later = {"run_id": "two", "wall_s": 9.0, "code_version": "b"}
    write(other, [row | later for row in ROWS[:2]])
    single = tables.encode([ROWS[2] | later], tables.MEASUREMENTS)
    Store(other).write_table("measurements/m.parquet", single)
    assert compared(run, other) == (0, "equal: 3 rows\n")


def test_the_last_bit_of_a_number_is_a_difference(run: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [ROWS[0] | {"value": 1.5 + 2.3e-16}, *ROWS[1:]])
    code, said = compared(run, other)
    assert code == 1
    assert "measurements: value in 1 rows, first 0: 1.5 and 1.5000000000000002" in said


def test_rows_and_tables_that_only_one_has(run: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", ROWS[:2])
    (other / "predictions.parquet").unlink()
    code, said = compared(run, other)
    assert code == 1 and "measurements: 3 rows and 2" in said
    assert f"predictions: only in {run}" in said


def test_values_may_be_missing_but_not_differ(run: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", ROWS)
    values = SCHEMAS["values"]
    row = dict.fromkeys(values.names) | {"value": 1.0}
    Store(other).write_table("values.parquet", tables.encode([row], values))
    code, said = compared(run, other)
    assert code == 0 and f"values: only in {other}" in said
    Store(run).write_table("values.parquet", tables.encode([row | {"value": 2.0}], values))
    code, said = compared(run, other)
    assert code == 1 and "values: value in 1 rows, first 0: 2.0 and 1.0" in said


def test_a_folder_that_is_no_run(run: Path, tmp_path: Path) -> None:
    code, said = compared(run, tmp_path / "nothing")
    assert code == 2 and said.startswith("error: ") and "got no tables" in said
