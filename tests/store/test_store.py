"""The store: atomic tables, captures as memory-mapped Arrow IPC."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scaleinv_ray import tables
from scaleinv_ray.records import Activations, Jacobians, Moments, WeightMatrix
from scaleinv_ray.store import Store, read_record, read_records, write_record, write_records
from scaleinv_ray.store import captures as captures_module

RNG = np.random.default_rng(0)


def cloud(layer: int, *, dtype: str = "float32") -> Activations:
    return Activations(
        x_TD=RNG.normal(size=(7, 5)).astype(np.float32),
        sequence_T=np.arange(7, dtype=np.int32),
        position_T=np.full(7, 64, dtype=np.int32),
        sampling="cloud",
        site="resid_post",
        layer=layer,
        num_layers=2,
        removes_mean=True,
        dtype=dtype,
    )


def test_records_come_back_equal_with_their_labels(tmp_path: Path) -> None:
    written = [cloud(0), cloud(1)]
    size = write_records(tmp_path / "c.arrow", written, kind="cloud", facts={"protocol": "p"})
    assert size == (tmp_path / "c.arrow").stat().st_size
    for before, after in zip(written, read_records(tmp_path / "c.arrow"), strict=True):
        assert before.labels() == after.labels()
        for name in before.arrays:
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
            assert getattr(before, name).dtype == getattr(after, name).dtype


def test_arrays_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    write_record(tmp_path / "c.arrow", cloud(0), kind="cloud", facts={})
    before = pa.total_allocated_bytes()
    record = read_record(tmp_path / "c.arrow")
    assert pa.total_allocated_bytes() == before
    assert not record.x_TD.flags.owndata and not record.x_TD.flags.writeable


def test_columns_are_standard_tensors_with_a_row_a_token(tmp_path: Path) -> None:
    write_records(tmp_path / "c.arrow", [cloud(0)], kind="cloud", facts={"protocol": "abc"})
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "c.arrow"))).read_all()
    assert table.num_rows == 7
    field = table.schema.field("0.x_TD")
    assert field.type.extension_name == "arrow.fixed_shape_tensor"
    assert field.type.shape == [5]
    assert table.schema.metadata[b"protocol"] == b"abc"


def test_arrays_of_unequal_length_are_cells(tmp_path: Path) -> None:
    record = Jacobians(
        j_TDD=RNG.normal(size=(3, 4, 4)), u_VD=RNG.normal(size=(9, 4)), parallel_residual=True
    )
    write_record(tmp_path / "j.arrow", record, kind="jacobians", facts={})
    back = read_record(tmp_path / "j.arrow")
    np.testing.assert_array_equal(back.j_TDD, record.j_TDD)
    np.testing.assert_array_equal(back.u_VD, record.u_VD)
    assert back.h_TD is None and back.parallel_residual


def test_exact_bfloat16_takes_two_bytes_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    record = cloud(0, dtype="bfloat16")
    bits = record.x_TD.view(np.uint32)
    bits &= np.uint32(0xFFFF0000)
    write_record(tmp_path / "b.arrow", record, kind="cloud", facts={})
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "b.arrow"))).read_all()
    assert table.schema.field("0.x_TD").type.value_type == pa.uint16()
    assert table.schema.field("0.x_TD").metadata[b"dtype"] == b"bfloat16"
    np.testing.assert_array_equal(read_record(tmp_path / "b.arrow").x_TD, record.x_TD)


def test_values_that_are_no_bfloat16_are_kept_in_float32(tmp_path: Path) -> None:
    record = cloud(0, dtype="bfloat16")
    write_record(tmp_path / "b.arrow", record, kind="cloud", facts={})
    np.testing.assert_array_equal(read_record(tmp_path / "b.arrow").x_TD, record.x_TD)


def test_weights_and_moments_of_several_shapes(tmp_path: Path) -> None:
    weights = [WeightMatrix(w_OI=RNG.normal(size=s), role="mlp_in") for s in [(3, 4), (8, 2)]]
    write_records(tmp_path / "w.arrow", weights, kind="weights", facts={})
    assert [r.w_OI.shape for r in read_records(tmp_path / "w.arrow")] == [(3, 4), (8, 2)]
    moments = Moments(
        count_B=np.array([3, 4]), mean_BD=np.ones((2, 3)), second_BDD=np.ones((2, 3, 3))
    )
    write_record(tmp_path / "m.arrow", moments, kind="moments", facts={})
    assert read_record(tmp_path / "m.arrow").count_B.tolist() == [3, 4]


@pytest.mark.parametrize("damage", ["truncated", "absent", "text"])
def test_a_damaged_capture_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.arrow"
    write_record(path, cloud(0), kind="cloud", facts={})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("no arrow")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"c\.arrow.*not a complete Arrow IPC file"):
        read_records(path)


def test_a_wrong_class_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed one or more Moments"):
        write_records(tmp_path / "x.arrow", [cloud(0)], kind="moments", facts={})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_no_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(captures_module.os, "fsync", full)
    store = Store(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        store.write_bytes("measurements/a.parquet", b"x")
    assert store.names("measurements") == []
    assert list((tmp_path / "measurements").iterdir()) == []


def test_tables_round_trip_and_parts_are_invisible(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = pa.table({"key": ["a", "b"], "value": [1.0, 2.0]})
    store.write_table("measurements/a.parquet", table)
    (tmp_path / "measurements" / "_part-1-b.parquet").write_bytes(b"half")
    assert store.names("measurements") == ["a.parquet"]
    assert store.read_table("measurements/a.parquet").equals(table)
    assert store.names("absent") == []
    store.delete("measurements/a.parquet")
    store.delete("measurements/a.parquet")
    assert not store.exists("measurements/a.parquet")


def test_texts_that_rows_share_are_held_once_and_written_as_texts(tmp_path: Path) -> None:
    rows = [
        dict.fromkeys(tables.PLAN.names) | {"key": f"k{i}", "model": "m" if i % 2 else None}
        for i in range(9)
    ]
    plain = tables.encode(rows, tables.PLAN)
    store = Store(tmp_path)
    store.write_table("plain.parquet", plain)
    shared = store.read_table("plain.parquet", schema=tables.PLAN, shared=True)
    assert shared["model"].combine_chunks().dictionary.to_pylist() == ["m"]
    assert shared.cast(tables.PLAN) == plain
    store.write_table("shared.parquet", shared)
    assert store.read_bytes("shared.parquet") == store.read_bytes("plain.parquet")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_names_stay_inside_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="relative paths inside"):
        Store(tmp_path).path(name)


def test_metadata_is_json(tmp_path: Path) -> None:
    write_record(tmp_path / "c.arrow", cloud(1), kind="cloud", facts={})
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "c.arrow"))).read_all()
    (labels,) = json.loads(table.schema.metadata[b"records"])
    assert labels["layer"] == 1 and labels["site"] == "resid_post"
