"""A layer that one size refuses: verdict, table of values and page say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.concluding import conclude, concluded
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.config import load_run_config
from scaleinv_ray.store import Store
from tests.conclude.measured_rows import measurement
from tests.report.pages import unpacked

CONFIG = load_run_config({"name": "s", "models": [{"ladder": "x"}], "out": "y"})
WHAT = {
    "family": "representation", "invariant": "representation.participation",
    "quantity": "participation_ratio", "law": "power_law",
}  # fmt: skip
REFUSED = {"value": None, "stderr": None, "status": "refused", "error": "too few tokens"}
SIZES = (1000, 2000, 4000, 8000)


def rows() -> list[dict[str, Any]]:
    """Four sizes, three seeds, two layers: 6 on the mean, 1 in the layer that 4000 refuses."""
    return [
        measurement(**WHAT | {
            "key": f"{n}-{seed}", "unit": f"n{n}-{seed}", "model": f"n{n}", "n_params": n,
            "n_layers": 2, "architecture": "a", "seed": seed, "layer": layer, "flags": {},
            "depth": (layer + 1) / 2, "value": 1.0 + 10 * layer + seed / 100, "stderr": 0.1,
            "error_kind": "none", "capture": "cloud", "code_version": "c",
        } | (REFUSED if (n, layer) == (4000, 0) else {}))
        for n in SIZES
        for seed in range(3)
        for layer in range(2)
    ]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.write_table("measurements/all-x.parquet", tables.encode(rows(), tables.MEASUREMENTS))
    keys = sorted({row["key"] for row in rows()})
    plan = [dict.fromkeys(tables.PLAN.names) | {"key": key} for key in keys]
    store.write_table("plan.parquet", tables.encode(plan, tables.PLAN))
    conclude(store, CONFIG)
    return store


def test_a_refused_layer_has_no_point_where_it_has_no_verdict(store: Store) -> None:
    verdicts = tables.decode(store.read_table("verdicts.parquet"))
    [verdict] = [row for row in verdicts if row["depth_bin"] == "all"]
    assert (verdict["n_models"], verdict["n_refused"]) == (3, 3)
    page = store.read_bytes("report.html").decode()
    [points] = re.findall(r'id="points">([^<]*)<', page)
    data = unpacked(points)
    by_bin = {of["bin"]: of for of in data["slices"]}
    drawn = {n: mean for n, _, mean, *_ in by_bin["all"]["points"]["trained"]}
    assert drawn == {1000: 6.01, 2000: 6.01, 8000: 6.01}
    assert by_bin["all"]["left_out"] == [["trained", 4000, 100, "too few tokens", 3]]
    # the other layer is whole in its third
    assert {n for n, *_ in by_bin["late"]["points"]["trained"]} == set(SIZES)
    [profile] = data["profiles"]
    assert {(n, depth) for n, _, depth, *_ in profile["points"]["trained"]} == {
        (n, depth) for n in SIZES for depth in (0.5, 1.0)
    } - {(4000, 0.5)}


def test_a_folder_without_values_has_them_made_anew(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concluded(store, CONFIG) is not None
    before = store.read_table("values.parquet", schema=SCHEMAS["values"])
    assert before.num_rows == 2 * len(SIZES) * 3 + len(SIZES) * 3
    store.delete("values.parquet")
    assert concluded(store, CONFIG) is None
    assert "values.parquet: not there, made anew" in "".join(capsys.readouterr())
    conclude(store, CONFIG)
    assert store.read_table("values.parquet").equals(before)
    assert concluded(store, CONFIG) is not None
