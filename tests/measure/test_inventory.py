"""What a run folder holds: whole tables count, damaged and foreign ones are named and do not."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.concluding import compact, read_folder
from scaleinv_ray.conclude.tokenized import tokenized
from scaleinv_ray.measure.inventory import take_inventory, tidied, whole_ranges
from scaleinv_ray.measure.measuring import write_measurement
from scaleinv_ray.plan.jobs import FAILED
from scaleinv_ray.store import Store
from tests.conclude.test_concluding import curve_of, rows_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two measurements, the first with a curve."""
    made = Store(tmp_path)
    write_measurement(made, "a", rows_of("a"), [curve_of("a")], [])
    write_measurement(made, "b", rows_of("b"), [], [])
    return made


def spoil(store: Store, name: str, how: str) -> Path:
    path = Path(store.path(name))
    data = path.read_bytes()
    middle = len(data) // 2
    damage = {
        "empty": b"",
        "truncated": data[:middle],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "text": b"<html>404</html>",
    }
    path.write_bytes(damage[how])
    return path


def test_all_is_well(store: Store) -> None:
    held = take_inventory(store)
    assert held.done == {"a", "b"} and not held.failed and held.notes() == []
    assert take_inventory(Store(Path(store.uri) / "none")).done == set()


@pytest.mark.parametrize("how", ["empty", "truncated", "flipped", "text"])
@pytest.mark.parametrize("gathered", [False, True])
def test_a_damaged_measurement_is_named_not_done_and_set_aside(
    how: str, gathered: bool, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    if gathered:
        compact(store)
    name = "measurements/" + ("b.parquet" if not gathered else store.names("measurements")[0])
    path = spoil(store, name, how)
    left = set() if gathered else {"a"}
    assert take_inventory(store).done == left
    (line,) = take_inventory(store).notes()
    assert line.startswith(f"{name}: ")
    with pytest.raises(ValueError, match=path.name):
        read_folder(store, "measurements")
    compact(store)  # leaves it where it is
    assert path.exists() and take_inventory(store).done == left
    assert tidied(store) == left and not path.exists()
    assert f"note: {name}: " in capsys.readouterr().err
    assert [p.name for p in path.parent.glob(f"_damaged-*-{path.name}")], "its bytes are kept"
    assert take_inventory(store).notes() == []
    write_measurement(store, "b", rows_of("b"), [], [])
    compact(store)
    assert take_inventory(store).done == left | {"b"}


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("folder", ["curves", "diagrams"])
def test_what_has_lost_its_curves_or_diagrams_is_not_done(
    folder: str, gathered: bool, store: Store
) -> None:
    diagram = {k: v for k, v in curve_of("c").items() if k in tables.DIAGRAMS.names}
    diagram |= {"diagram": "h", "dimension": [1], "birth": [0.0], "death": [1.0]}
    write_measurement(store, "c", rows_of("c"), [], [diagram])
    if gathered:
        compact(store)
    key, other = ("a", "c") if folder == "curves" else ("c", "a")
    for name in store.names(folder):
        spoil(store, f"{folder}/{name}", "truncated")
    assert take_inventory(store).done == {"b", other}
    shutil.rmtree(store.path(folder))
    held = take_inventory(store)
    assert held.done == {"b", other}
    assert held.notes() == ["curves, diagrams: those of 1 measurements are gone"]
    write_measurement(store, "c", rows_of("c"), [], [diagram])
    write_measurement(store, "a", rows_of("a"), [curve_of("a")], [])
    for _ in range(2):  # and what is gathered again says so too
        assert take_inventory(store).done == {"a", "b", "c"}
        compact(store)
    shutil.rmtree(store.path(folder))
    assert take_inventory(store).done == {"b", other} and key not in take_inventory(store).done


def test_what_is_tried_again_in_vain_is_failed(store: Store) -> None:
    shutil.rmtree(store.path("curves"))
    write_measurement(store, "a", rows_of("a", ok=False), [], [])
    held = take_inventory(store)
    assert held.done == {"b"} and held.failed == {"a": f"a{FAILED}"}
    spoil(store, f"measurements/a{FAILED}", "flipped")
    assert not take_inventory(store).failed


HIDDEN = (".DS_Store", "._all-1.parquet", ".nfs00001", "_SUCCESS", ".a.parquet.crc", "Thumbs.db",
          "desktop.ini", "a.parquet~", "x.tmp", "_damaged-1-a.parquet")  # fmt: skip


@pytest.mark.parametrize("folder", ["measurements", "curves", "diagrams", "captures", "parts", "."])
def test_foreign_files_are_passed_over_or_named_and_never_done(folder: str, store: Store) -> None:
    write_measurement(store, "d", rows_of("d"), [], [])
    before = {f: read_folder(store, f) for f in ("measurements", "curves")}
    at = Path(store.uri) / folder
    at.mkdir(exist_ok=True)
    for name in HIDDEN:
        (at / name).write_bytes(b"PAR1")
    assert take_inventory(store).notes() == []
    (at / "notes.txt").write_text("mine")
    (at / "folder").mkdir()
    held = take_inventory(store)
    assert held.done == {"a", "b", "d"}
    said = "\n".join(held.notes())
    for name in ("notes.txt", "folder"):
        assert (f"{folder}/{name}" in said) == (folder not in {".", "parts"}), said
    tables_too = {"foreign.parquet": pa.table({"a": [1]}), "e.parquet": before["measurements"]}
    for name, table in tables_too.items():
        pq.write_table(table, at / name)
    (at / "f.parquet").mkdir()
    held = take_inventory(store)
    assert held.done == {"a", "b", "d"}
    said = "\n".join(held.notes())
    for name in ("foreign.parquet", "e.parquet"):
        assert (f"{folder}/{name}".removeprefix("./") in said) == (folder != "parts"), said
    tidied(store)
    compact(store)
    assert take_inventory(store).done == {"a", "b", "d"}
    assert read_folder(store, "measurements").equals(before["measurements"])
    assert read_folder(store, "curves").equals(before["curves"])


def test_a_copy_under_another_name_is_none_of_its_own(store: Store) -> None:
    folder = Path(store.path("measurements"))
    for name in ("a (1).parquet", "a copy.parquet", "c.parquet"):
        shutil.copy(folder / "a.parquet", folder / name)
    held = take_inventory(store)
    assert held.done == {"a", "b"}
    assert held.damaged["measurements/c.parquet"] == "got rows of a, allowed: those of c"
    assert len(held.damaged) == 3
    tidied(store)
    assert read_folder(store, "measurements")["key"].to_pylist() == ["a", "a", "b", "b"]


def test_rows_of_an_older_version_count_without_seal_and_without_saying_what_they_have(
    store: Store,
) -> None:
    for key in ("a", "b"):
        path = store.path(f"measurements/{key}.parquet")
        pq.write_table(tables.encode(rows_of(key), tables.MEASUREMENTS), path)
    assert take_inventory(store).done == {"a", "b"}
    compact(store)
    shutil.rmtree(store.path("curves"))
    assert take_inventory(store).done == {"a", "b"}


def test_many_foreign_files_are_one_line(store: Store) -> None:
    for i in range(500):
        (Path(store.path("measurements")) / f"{i:03d}.csv").touch()
    (line,) = take_inventory(store).notes()
    assert "measurements/000.csv" in line and "and 495 more" in line and len(line) < 300


def test_ranges_that_are_damaged_or_alone_are_made_again(store: Store) -> None:
    for i in range(4):
        stem = f"c-{i:05d}-of-00004"
        write_measurement(store, stem, rows_of("c"), [curve_of("c")], [])
    assert take_inventory(store).done == {"a", "b", "c"}
    Path(store.path("curves/c-00001-of-00004.parquet")).unlink()
    spoil(store, "measurements/c-00002-of-00004.parquet", "flipped")
    spoil(store, "curves/c-00003-of-00004.parquet", "truncated")
    assert whole_ranges(store) == {"c-00000-of-00004"}
    held = take_inventory(store)
    assert held.done == {"a", "b"} and not held.failed
    assert len(held.damaged) == 2


def test_ranges_count_when_all_are_there_good_or_failed(store: Store) -> None:
    def keys() -> set[str]:
        return set(read_folder(store, "measurements")["key"].to_pylist())

    one, two = (f"c-{i:05d}-of-00002" for i in range(2))
    write_measurement(store, two, rows_of("c"), [curve_of("c")], [])
    compact(store)
    assert keys() == take_inventory(store).done == {"a", "b"}, "a range alone is no measurement"
    write_measurement(store, one, rows_of("c", ok=False), [], [])
    held = compact(store)
    assert keys() == {"a", "b", "c"} and held.done == {"a", "b"}
    assert held.failed == {"c": f"{one}{FAILED}"}
    assert "c" not in read_folder(store, "curves")["key"].to_pylist(), "nor of what has failed"
    write_measurement(store, "c", rows_of("c", ok=False), [], [])  # as an older version did
    write_measurement(store, one, rows_of("c"), [], [])
    assert compact(store).done == {"a", "b", "c"}
    assert set(read_folder(store, "measurements")["status"].to_pylist()) == {"ok"}
    assert not [n for n in store.names("measurements") if n.startswith("c-")], "gathered"
    write_measurement(store, two, rows_of("c"), [curve_of("c")], [])  # left by a kill
    before = read_folder(store, "measurements")
    compact(store)
    assert read_folder(store, "measurements").equals(before)
    assert len(store.names("measurements")) == 2, "what was gathered, and failed rows of c"


def test_a_file_that_vanishes_while_it_is_looked_at_is_looked_for_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, vanishing = store.read_sealed, ["measurements/a.parquet"]

    def compacted_meanwhile(name: str, *args: object, **given: object) -> object:
        if name in vanishing:
            vanishing.clear()
            compact(Store(store.uri))
        return read(name, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "read_sealed", compacted_meanwhile)
    assert take_inventory(store).done == {"a", "b"}


def test_a_conclusion_goes_on_without_the_tokenizers_and_says_so(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    row = dict.fromkeys(tables.PLAN.names)
    rows = [row | {"key": k, "tokenizer": f"tokenizer of {k}"} for k in ("a", "b")]
    store.write_table("plan.parquet", tables.encode(rows, tables.PLAN))
    covered = [
        {"tokenizer": f"tokenizer of {k}", "probe": "p", "bytes_per_token": 3.0, "stderr": 0.1}
        for k in ("a", "b")
    ]
    store.write_table("tokens.parquet", tables.encode(covered, tables.TOKENS))
    assert len(tokenized(store).bytes_of) == 2
    spoil(store, "tokens.parquet", "flipped")
    assert tokenized(store).of_key.keys() == {"a", "b"} and not tokenized(store).bytes_of
    assert "tokens.parquet: other bytes than were written; losses of" in capsys.readouterr().err
    spoil(store, "plan.parquet", "truncated")
    assert not tokenized(store).of_key
    assert "plan.parquet: " in capsys.readouterr().err
