"""Compaction: every key once, whatever was killed in between; failures stay to be tried again."""

from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.concluding import compact, completed, read_folder
from scaleinv_ray.measure.measuring import failed_rows, write_measurement
from scaleinv_ray.plan.jobs import MeasureJob
from scaleinv_ray.store import Store

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
    assert completed(store) == {"a", "b", "c"}


def test_a_failure_is_read_and_not_done_and_gives_way_to_a_success(store: Store) -> None:
    mixed = [rows_of("d")[0], rows_of("d", ok=False)[1]]
    write_measurement(store, "d", mixed, [curve_of("d")], [])
    compact(store)
    status = read_folder(store, "measurements")["status"].to_pylist()
    assert sorted(status) == ["failed", "ok", "ok", "ok", "ok", "ok"]
    assert completed(store) == {"a", "b"} and keys_in(store, "curves") == ["a", "b"]
    write_measurement(store, "d", rows_of("d"), [curve_of("d")], [])
    compact(store)
    assert completed(store) == {"a", "b", "d"} and keys_in(store, "curves") == ["a", "b", "d"]
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
