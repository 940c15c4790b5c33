"""Seals: no changed byte of a finished file is read as if nothing had happened."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.records import Activations, Record
from scaleinv_ray.store import Store, read_records, seal, write_records
from scaleinv_ray.store.litter import is_litter
from scaleinv_ray.store.seal import DamagedError
from scaleinv_ray.store.states import StateFiles

Flipped = Callable[[bytes], object]
TABLES = {
    "measurements": tables.MEASUREMENTS,
    "curves": tables.CURVES,
    "diagrams": tables.DIAGRAMS,
    "plan": tables.PLAN,
    "verdicts": SCHEMAS["verdicts"],
    "emergence": SCHEMAS["emergence"],
}
QUICK, SLOW = 250, 4000


def table_of(schema: pa.Schema, rows: int = 40) -> pa.Table:
    """A table of random values with nulls, of any schema of ours."""
    rng = np.random.default_rng(3)
    values: dict[pa.DataType, Callable[[], object]] = {
        pa.string(): lambda: "".join(rng.choice(list("abcdef"), 9)),
        pa.int64(): lambda: int(rng.integers(1000)),
        pa.float64(): lambda: float(rng.normal()),
        pa.bool_(): lambda: bool(rng.integers(2)),
    }

    def value(kind: pa.DataType) -> object:
        if pa.types.is_map(kind):
            return [("warn", "n_tail 3 < 50")]
        if pa.types.is_list(kind):
            return [values[kind.value_type]() for _ in range(5)]
        return values[kind]() if rng.integers(8) else None

    columns = [pa.array([value(f.type) for _ in range(rows)], f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def flips(data: bytes, count: int) -> Iterator[bytes]:
    """Copies of a file with a single bit changed; the last 600 bytes, the footer, more densely."""
    rng = np.random.default_rng(len(data))
    near = rng.integers(8 * max(0, len(data) - 600), 8 * len(data), count // 2)
    for bit in [*near, *rng.integers(0, 8 * len(data), count - count // 2)]:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def silent(path: Path, read: Callable[[], object], count: int) -> int:
    """Flips of a file that are read as something else, or end without its name."""
    data = path.read_bytes()
    wrong = 0
    for changed in flips(data, count):
        path.write_bytes(changed)
        try:
            wrong += not read()
        except DamagedError as error:
            wrong += str(path) not in str(error)
    path.write_bytes(data)
    assert read(), "it can be read"
    return wrong


def flip_table(folder: Path, name: str, count: int) -> int:
    store, table = Store(folder), table_of(TABLES[name])
    store.write_table(f"{name}.parquet", table.replace_schema_metadata({"of": "a run"}))
    again = store.read_table(f"{name}.parquet")

    def read() -> bool:
        got = store.read_table(f"{name}.parquet", schema=table.schema)
        return got.equals(table) and got.schema.metadata == again.schema.metadata

    return silent(folder / f"{name}.parquet", read, count)


@pytest.mark.parametrize("name", TABLES)
def test_no_flipped_bit_changes_a_table_in_silence(name: str, tmp_path: Path) -> None:
    assert flip_table(tmp_path, name, QUICK) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_nor_do_very_many(name: str, tmp_path: Path) -> None:
    assert flip_table(tmp_path, name, SLOW) == 0


def cloud(layer: int, dtype: str = "float32") -> Activations:
    x_TD = np.random.default_rng(layer).normal(size=(50, 8)).astype(np.float32)
    return Activations(
        x_TD=x_TD, sequence_T=np.arange(50, dtype=np.int32),
        position_T=np.full(50, 64, dtype=np.int32), sampling="cloud", site="resid_post",
        layer=layer, num_layers=2, removes_mean=True, dtype=dtype,
    )  # fmt: skip


def equal(got: list[Record], wanted: list[Activations]) -> bool:
    return all(
        a.labels() == b.labels()
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in b.arrays)
        for a, b in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize("count", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_no_flipped_bit_changes_a_capture_in_silence(count: int, tmp_path: Path) -> None:
    path, written = tmp_path / "c.arrow", [cloud(0), cloud(1)]
    write_records(path, written, kind="cloud", facts={"protocol": "p"})
    assert silent(path, lambda: equal(read_records(path), written), count) == 0


def test_no_flipped_bit_changes_hidden_states_in_silence(tmp_path: Path) -> None:
    x_BTD = np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float32)
    with StateFiles(tmp_path).write(0) as write:
        write(x_BTD[:4])
        write(x_BTD[4:])

    def read() -> bool:  # by one that goes on where another was killed
        states = StateFiles(tmp_path)
        known = states.complete(0)
        return np.array_equal(states.read(0, 0, 6), x_BTD) and known

    assert silent(StateFiles(tmp_path).path(0), read, QUICK) == 0
    (tmp_path / "level-0000.arrow").write_bytes(b"")
    assert StateFiles(tmp_path).latest() is None


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_lost_blocks_and_lost_ends_are_seen(kind: str, tmp_path: Path) -> None:
    path, store, table = tmp_path / f"x.{kind}", Store(tmp_path), table_of(tables.DIAGRAMS, 5)
    if kind == "parquet":
        store.write_table("x.parquet", table)
    else:
        write_records(path, [cloud(0)], kind="cloud", facts={})
    data = path.read_bytes()

    def read() -> bool:
        if kind == "parquet":
            return store.read_table("x.parquet").equals(table)
        return equal(read_records(path), [cloud(0)])

    assert read()
    for start in range(0, len(data), 40):
        path.write_bytes(data[:start])
        with pytest.raises(DamagedError, match="empty, truncated or no|Cannot mmap an empty"):
            read()
        for size in (80, 200, 512):  # from within the data over the seal into the footer
            gap = bytes(min(size, len(data) - start))
            if data[start : start + size] == gap:
                continue
            path.write_bytes(data[:start] + gap + data[start + len(gap) :])
            with pytest.raises(DamagedError, match=path.name):
                read()


def test_readers_of_the_formats_find_the_same(tmp_path: Path) -> None:
    table = table_of(tables.MEASUREMENTS)
    Store(tmp_path).write_table("t.parquet", table)
    assert pq.read_table(tmp_path / "t.parquet", page_checksum_verification=True).equals(table)
    write_records(tmp_path / "c.arrow", [cloud(0)], kind="cloud", facts={})
    with pa.memory_map(str(tmp_path / "c.arrow")) as source:
        read = pa.ipc.open_file(source).read_all()
    read.validate(full=True)
    assert read.num_rows == 50


def test_pieces_of_any_size_give_the_seal_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(tables.CURVES), sink)
    data = sink.getvalue().to_pybytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    monkeypatch.setattr(seal, "_BLOCK", 1000)
    rng = np.random.default_rng(0)
    for most in (1, 999, 1000, 1001, 10_000):
        out = io.BytesIO()
        stream = seal.SealingStream(out)
        start = 0
        while start < len(data) - footer:
            stop = min(start + int(rng.integers(1, most + 1)), len(data) - footer)
            stream.write(data[start:stop])
            start = stop
        stream.hold()
        stream.write(data[-footer:])
        stream.close()
        stream.close()
        assert out.getvalue() == seal.sealed(data), most
        assert seal.check(out.getvalue())
    assert len(seal.sealed(data)) == len(data) + seal.SIZE and seal.SIZE % 8 == 0


def test_files_of_older_versions_have_no_seal_and_are_read(tmp_path: Path) -> None:
    table = table_of(SCHEMAS["verdicts"])
    pq.write_table(table, tmp_path / "old.parquet")
    got = Store(tmp_path).read_sealed("old.parquet", schema=SCHEMAS["verdicts"])
    assert got.table.equals(table) and not got.sealed
    Store(tmp_path).write_table("new.parquet", table)
    assert Store(tmp_path).read_sealed("new.parquet").digest != got.digest


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 100, b"\xff" * 20 + b"PAR1"])
def test_what_is_no_such_file_is_not_sealed(data: bytes) -> None:
    with pytest.raises(ValueError, match="without a footer"):
        seal.sealed(data)
    stream = seal.SealingStream(io.BytesIO())
    stream.hold()
    stream.write(data)
    with pytest.raises(ValueError, match="without a footer"):
        stream.close()


def test_a_table_of_another_tool_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    store = Store(tmp_path)
    assert store.read_table("foreign.parquet").num_rows == 1
    with pytest.raises(DamagedError, match=r"foreign\.parquet: a table with other columns"):
        store.read_table("foreign.parquet", schema=tables.PLAN)
    wrong = pa.table({n: ["x"] for n in tables.PLAN.names})
    pq.write_table(wrong, tmp_path / "types.parquet")
    with pytest.raises(DamagedError, match=r"types\.parquet: .*(parse|cast|convert)"):
        store.read_table("types.parquet", schema=tables.PLAN)
    with (
        pa.OSFile(str(tmp_path / "f.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, wrong.schema) as w,
    ):
        w.write_table(wrong)
    with pytest.raises(DamagedError, match=r"f\.arrow: .*no 'kind' in the schema"):
        read_records(tmp_path / "f.arrow")


def test_what_is_set_aside_keeps_its_bytes_and_is_seen_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):  # of the same name twice
        store.write_bytes("measurements/k.parquet", b"half")
        new = store.set_aside("measurements/k.parquet")
        assert new.endswith("-k.parquet") and store.read_bytes(new) == b"half"
    store.write_bytes("plan.parquet", b"x")
    store.set_aside("plan.parquet")
    (tmp_path / "curves" / "k.parquet").mkdir(parents=True)
    store.set_aside("curves/k.parquet")
    assert store.names("measurements") == [] and store.names("") == []
    assert store.listing("curves") == ([], [])


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._k.parquet", ".nfs000001", "_SUCCESS", "_part-1-k.parquet", ".k.parquet.crc",
     "k.parquet.crc", "Thumbs.db", "desktop.ini", "k.parquet~", "k.parquet.tmp", ".k.parquet.swp"],
)  # fmt: skip
def test_litter_is_passed_over_by_name(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("log/1.jsonl", b"")
    store.write_bytes(f"log/{name}", b"x")
    (tmp_path / "log" / f"_{name}").mkdir()
    assert is_litter(name) and not is_litter("1.jsonl")
    assert store.listing("log") == (["1.jsonl"], [])
