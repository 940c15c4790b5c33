"""Compaction: every key once, whatever was killed in between; failures stay to be tried again."""

import re
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pyarrow as pa
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude import conclusions
from scaleinv_ray.conclude.concluding import compact, conclude, read_folder
from scaleinv_ray.conclude.conclusions import CONCLUSIONS, Conclusion
from scaleinv_ray.conclude.evidence import Evidence
from scaleinv_ray.config import load_run_config
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.measure.measuring import failed_rows, write_measurement
from scaleinv_ray.plan.jobs import MeasureJob
from scaleinv_ray.report.skeleton import PAGE, SPECTRA
from scaleinv_ray.store import Store
from tests.report.pages import unpacked

LABELS: dict[str, Any] = {
    "run_id": "r", "unit": "u", "unit_b": None, "series": "s", "model": "m", "architecture": "a",
    "n_params": 1, "n_layers": 1, "d_model": 1, "seed": 0, "step": 1, "train_tokens": None,
    "eval_loss": None, "variant": "trained", "probe": "prose", "probe_tokens": 1, "protocol": "p",
    "weights_digest": "w", "code_version": "c",
}  # fmt: skip


def rows_of(key: str, *, ok: bool = True) -> list[dict[str, Any]]:
    """The rows of one measurement, made by hand out of those of a failure."""
    job = MeasureJob(key, "geometry.neighbour_dimension", "{}", 0, "x.arrow", LABELS)
    rows = failed_rows(job, "OSError: gone")
    if ok:
        done = {"status": "ok", "error": None, "value": 1.0, "error_kind": "none", "n": 1}
        rows = [row | done for row in rows]
    return rows


def curve_of(key: str) -> dict[str, Any]:
    base = {k: v for k, v in rows_of(key)[0].items() if k in tables.CURVES.names}
    return base | {"curve": "gride_profile", "x": [1.0], "y": [2.0], "y_stderr": None}


def keys_in(store: Store, folder: str) -> list[str]:
    return read_folder(store, folder)["key"].to_pylist()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for key in ("a", "b"):
        write_measurement(store, key, rows_of(key), [curve_of(key)], [])
    compact(store)
    return store


def test_a_compaction_that_is_killed_leaves_every_key_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_measurement(store, "c", rows_of("c"), [curve_of("c")], [])

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # killed at the first removal, and again
        with monkeypatch.context() as patch:
            patch.setattr(store, "delete", killed)
            with pytest.raises(KeyboardInterrupt):
                compact(store)
        assert keys_in(store, "measurements") == ["a", "a", "b", "b", "c", "c"]
        assert keys_in(store, "curves") == ["a", "b", "c"]
    compact(store)
    for folder in ("measurements", "curves"):
        assert len(store.names(folder)) == 1
    assert keys_in(store, "measurements") == ["a", "a", "b", "b", "c", "c"]
    assert take_inventory(store).done == {"a", "b", "c"}


def test_a_failure_is_read_and_not_done_and_gives_way_to_a_success(store: Store) -> None:
    mixed = [rows_of("d")[0], rows_of("d", ok=False)[1]]
    write_measurement(store, "d", mixed, [curve_of("d")], [])
    compact(store)
    status = read_folder(store, "measurements")["status"].to_pylist()
    assert sorted(status) == ["failed", "ok", "ok", "ok", "ok", "ok"]
    assert take_inventory(store).done == {"a", "b"} and keys_in(store, "curves") == ["a", "b"]
    write_measurement(store, "d", rows_of("d"), [curve_of("d")], [])
    compact(store)
    assert take_inventory(store).done == {"a", "b", "d"}
    assert keys_in(store, "curves") == ["a", "b", "d"]
    assert set(read_folder(store, "measurements")["status"].to_pylist()) == {"ok"}


def test_compacting_twice_changes_nothing(store: Store) -> None:
    before = store.names("measurements")
    compact(store)
    assert store.names("measurements") == before


def test_order_does_not_depend_on_the_order_of_writing(tmp_path: Path, store: Store) -> None:
    other = Store(tmp_path / "other")
    for key in ("b", "a"):
        write_measurement(other, key, rows_of(key), [curve_of(key)], [])
    for folder in ("measurements", "curves"):
        assert read_folder(other, folder).equals(read_folder(store, folder))


class CountRow(TypedDict):
    """How many numbers <each> quantity has.

    What follows a blank line is not said.
    """

    quantity: str
    finite: Annotated[int, "numbers that are finite"]
    share: Annotated[float | None, "of all of them"]
    models: Annotated[list[str], "where"]


def counts(of: Evidence) -> list[CountRow]:
    return [
        {"quantity": quantity, "finite": 2, "share": None, "models": ["m"]}
        for (quantity,) in of.measured.distinct(["quantity"])[1]
    ]


def test_a_conclusion_is_a_class_of_rows_a_function_and_a_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Conclusion("counts_of_numbers", CountRow, counts)
    monkeypatch.setattr(conclusions, "CONCLUSIONS", (*CONCLUSIONS, new))
    config = load_run_config({"name": "made", "models": [{"ladder": "x"}], "out": "y"})
    conclude(store, config, planned=pa.array(["a", "b"]))
    table = store.read_table("counts_of_numbers.parquet", schema=new.schema)
    assert table.schema.types == [pa.string(), pa.int64(), pa.float64(), new.schema.types[-1]]
    assert tables.says(table.schema) == "How many numbers <each> quantity has."
    assert [tables.meaning(field) for field in table.schema][1] == "numbers that are finite"
    quantities = sorted({row["quantity"] for row in rows_of("a")})
    assert sorted(table["quantity"].to_pylist()) == quantities
    page = store.read_bytes("report.html").decode()
    assert ">Counts of numbers</h2>" in page and "How many numbers &lt;each&gt; quantity" in page
    found = re.search(r'id="table-counts_of_numbers">([^<]*)<', page)
    assert found
    data = unpacked(found[1])
    assert data["rows"] == len(quantities) and list(data["columns"]) == table.column_names
    assert data["meanings"]["share"] == "of all of them"
    # those that a figure draws are given and not shown again
    assert 'id="table-pairs"' in page and 'data-table="pairs"' not in page
    assert {path.stem for path in Path(store.uri).glob("*.parquet")} == {
        *(of.name for of in CONCLUSIONS), new.name,
    }  # fmt: skip


def test_every_conclusion_says_what_it_is_and_has_a_place_in_the_page() -> None:
    names = [of.name for of in CONCLUSIONS]
    assert len(set(names)) == len(names)
    for of in CONCLUSIONS:
        assert tables.says(of.schema).endswith(".") and len(tables.says(of.schema)) < 120
        assert of.figure is None or f'id="{of.figure}"' in PAGE + SPECTRA


def test_a_class_of_rows_has_types_and_meanings_of_its_own() -> None:
    class Shapeless(TypedDict):
        value: dict[str, int]

    class Silent(TypedDict):
        loudness: float

    with pytest.raises(ValueError, match=r"Shapeless\.value: got dict\[str, int\], allowed text"):
        tables.schema_of(Shapeless)
    with pytest.raises(ValueError, match=r"Silent\.loudness: got no meaning, allowed Annotated"):
        tables.schema_of(Silent)
