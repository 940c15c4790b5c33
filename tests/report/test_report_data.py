"""What the page is given: packing, depth profiles, barcodes, rows, one model against the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.report import page
from scaleinv_ray.report.figures import single_rows as rows
from scaleinv_ray.report.figures.against import against_series, deleted
from scaleinv_ray.report.figures.bars import NUM_BARS, barcodes
from scaleinv_ray.report.figures.depth import depth_profiles
from scaleinv_ray.report.figures.over_scale import MOST_RUNS, over_seeds, with_drawn_runs
from scaleinv_ray.report.figures.single_rows import row_details
from scaleinv_ray.report.pack import among, column, distinct_rows, packed
from scaleinv_ray.report.summary import judged
from tests.report.pages import FIGURES, unpacked
from tests.report.synthetic_tables import (
    LAYERS,
    SIZES,
    measurement,
    place,
    synthetic,
    unit,
    values_of,
    verdict,
)


def value_at(packed_column: Any, i: int) -> Any:
    if isinstance(packed_column, list):
        return packed_column[i]
    return packed_column["d"][packed_column["i"][i]]


def measurements(*given_rows: dict[str, Any]) -> pa.Table:
    return tables.encode(given_rows, tables.MEASUREMENTS)


@given(st.lists(st.sampled_from([None, 1, 2.5, "a", "b", True]), max_size=30))
def test_a_column_keeps_its_values(values: list[Any]) -> None:
    kept = column(values)
    # True == 1 in Python, so that one may stand for the other
    assert [value_at(kept, i) for i in range(len(values))] == values


def test_distinct_rows_can_be_put_together_again() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({
        "a": rng.integers(3, size=200),
        "b": pa.array([None if v == 0 else f"b{v}" for v in rng.integers(4, size=200)]),
        "c": rng.choice([0.5, 1.5], size=200),
    })
    found, places = distinct_rows(table)
    assert found.num_rows == len({tuple(row.values()) for row in table.to_pylist()})
    assert found.take(pa.array(places)).to_pylist() == table.to_pylist()


@pytest.mark.parametrize("num_columns", [2, 80])
def test_rows_are_found_among_others(num_columns: int) -> None:
    rng = np.random.default_rng(1)
    names = [f"c{i}" for i in range(num_columns)]
    kinds = [[None, 0.5, 1.0], ["a", "b", None], list(range(500))]

    def drawn(rows: int, more: int) -> pa.Table:
        last = pa.array(rng.integers(5 + more, size=rows))
        columns = [[kinds[i % 3][-1]] * rows for i in range(num_columns - 1)]
        return pa.table(dict(zip(names, [*map(pa.array, columns), last], strict=True)))

    table, others = drawn(200, 5), drawn(50, 0).append_column("more", pa.array([1] * 50))
    wanted = {tuple(row[n] for n in names) for row in others.to_pylist()}
    expected = [tuple(row.values()) in wanted for row in table.to_pylist()]
    assert among(table, others, names).to_pylist() == expected
    assert 0 < sum(expected) < 200
    shared = table.cast(tables.shared(table.schema))
    assert among(shared, others, names).to_pylist() == expected


def test_the_same_data_give_the_same_text() -> None:
    data = {"x": [1.5, None, "<&>"]}
    assert packed(data) == packed(data)
    assert unpacked(packed(data)) == data


def test_a_model_left_out_is_predicted_by_a_fit_to_the_others() -> None:
    rng = np.random.default_rng(0)
    x_M = rng.normal(size=9)
    y_M = 2 - 0.5 * x_M + 0.1 * rng.normal(size=9)
    design_MC = np.stack([np.ones(9), x_M], axis=1)
    found = deleted(design_MC, y_M)
    assert found is not None
    for i in range(9):
        others = np.arange(9) != i
        line = stats.linregress(x_M[others], y_M[others])
        predicted = line.intercept + line.slope * x_M[i]
        rest = y_M[others] - line.intercept - line.slope * x_M[others]
        mean = x_M[others].mean()
        h = 1 + 1 / 8 + (x_M[i] - mean) ** 2 / ((x_M[others] - mean) ** 2).sum()
        stderr = np.sqrt((rest**2).sum() / 6 * h)
        assert found.predicted_M[i] == pytest.approx(predicted, rel=1e-9)
        assert found.z_M[i] == pytest.approx((y_M[i] - predicted) / stderr, rel=1e-9)
        assert found.half_M[i] == pytest.approx(special.stdtrit(6, 0.95) * stderr, rel=1e-9)


def test_intervals_hold_nine_of_ten_models() -> None:
    rng = np.random.default_rng(1)
    design_MC = np.stack([np.ones(8), np.repeat(np.log([1.0, 2, 4, 8]), 2)], axis=1)
    held = []
    for _ in range(500):
        y_M = design_MC @ [1.0, 0.3] + rng.normal(size=8)
        found = deleted(design_MC, y_M)
        assert found is not None
        held.append(abs(y_M[3] - found.predicted_M[3]) <= found.half_M[3])
    assert np.mean(held) == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / 500))


def test_too_few_models_and_perfect_fits_have_no_z() -> None:
    assert deleted(np.ones((2, 1)), np.array([1.0, 2.0])) is None
    assert deleted(np.ones((5, 2)), np.arange(5.0)) is None  # a series of one size
    found = deleted(np.ones((4, 1)), np.full(4, 3.0))
    assert found is not None
    assert np.isnan(found.z_M).all()
    assert found.predicted_M.tolist() == pytest.approx([3.0] * 4)


def models(power: float, outlier: float = 1.0) -> pa.Table:
    """Four sizes, two seeds, N^power with 1 % between seeds; one model is multiplied."""
    out = []
    for width, n_params in SIZES.items():
        for seed in (0, 1):
            factor = outlier if (width, seed) == (96, 1) else 1.0
            value = n_params**power * (1.01 if seed else 0.99) * factor
            out.append(
                measurement(model=f"d{width}-s{seed}", n_params=n_params, seed=seed, value=value)
            )
    return measurements(*out)


def against(table: pa.Table, **changes: Any) -> list[dict[str, Any]]:
    verdicts = tables.encode([verdict(**changes)], SCHEMAS["verdicts"])
    found = against_series(over_seeds(values_of(table)), judged(verdicts))
    names = found["columns"]
    return [{n: value_at(c, i) for n, c in names.items()} for i in range(found["rows"])]


def test_the_model_that_is_off_has_the_largest_z() -> None:
    found = against(models(0.5, outlier=1.3), verdict="scales", form="power")
    assert len(found) == 8
    worst = max(found, key=lambda row: abs(row["z"]))
    assert worst["model"] == "d96-s1"
    assert worst["value"] > worst["high"] > worst["predicted"] > worst["low"] > 0
    assert worst["predicted"] == pytest.approx(SIZES[96] ** 0.5, rel=0.02)
    assert (worst["form"], worst["scale"], worst["others"]) == ("power", "ln", 7)


def test_conserved_quantities_and_units_have_their_own_fits() -> None:
    (kept,) = {row["form"] for row in against(models(0.0), verdict="conserved", form="power")}
    assert kept == "constant"
    raw = against(models(0.1), verdict="scales", form="log", unit=0.5)
    assert {(row["form"], row["scale"]) for row in raw} == {("log", "linear")}
    assert against(models(0.1), comparison="equal_loss", step=None) == []
    assert against(models(0.1), step=10) == []


def test_finished_models_stand_at_their_last_checkpoint() -> None:
    common = against(models(0.5, outlier=1.3), verdict="scales", form="power")
    rows = [row | {"step": 10 * row["n_params"]} for row in models(0.5, outlier=1.3).to_pylist()]
    earlier = [row | {"step": 7, "value": 1e6} for row in rows if row["n_params"] == SIZES[32]]
    table = measurements(*earlier, *rows)
    own = against(table, verdict="scales", form="power", comparison="final", step=None)
    numbers = [{k: v for k, v in row.items() if k != "step"} for row in own]
    assert numbers == [{k: v for k, v in row.items() if k != "step"} for row in common]
    assert {row["step"] for row in own} == {row["step"] for row in rows}


def test_profiles_are_means_over_seeds_at_each_depth() -> None:
    layers = [
        measurement(seed=seed, layer=layer, depth=(layer + 1) / 2, value=10.0 * layer + seed)
        for seed in (0, 2)
        for layer in (0, 1)
    ]
    null = [{**row, "variant": "random_init", "value": 5.0} for row in layers]
    table = measurements(*layers, *null)
    (found,) = depth_profiles(table, values_of(table))
    assert found["points"]["trained"] == [
        [SIZES[32], 300, 0.5, 1.0, pytest.approx(2**0.5, rel=1e-3), 2],
        [SIZES[32], 300, 1.0, 11.0, pytest.approx(2**0.5, rel=1e-3), 2],
    ]
    assert [point[3] for point in found["points"]["random_init"]] == [5.0, 5.0]
    alone = measurements(layers[0])
    assert depth_profiles(alone, values_of(alone)) == []  # one depth is no profile


def diagram(**changes: Any) -> dict[str, Any]:
    row = {
        **unit(32, 0, 300, "trained"),
        **place("topology", "persistence", 0),
        "params": "{}",
        "diagram": "rips",
        "dimension": [0, 0, 1],
        "birth": [0.0, 0.0, 0.4],
        "death": [0.3, float("inf"), 0.6],
    }
    return {**row, **changes}


def codes(*given_rows: dict[str, Any]) -> list[dict[str, Any]]:
    return barcodes(tables.encode(given_rows, tables.DIAGRAMS))


def test_barcodes_are_of_the_smallest_and_the_largest_size() -> None:
    sized = [diagram(model=str(n), n_params=n) for n in (100, 200, 300)]
    null = diagram(model="100", n_params=100, variant="random_init", step=0)
    earlier = diagram(model="100", n_params=100, step=10, death=[9.0, 9.0, 9.0])
    (found,) = codes(*sized, null, earlier)
    shown = [(p["variant"], p["n_params"]) for p in found["panels"]]
    assert shown == [("random_init", 100), ("trained", 100), ("trained", 300)]
    assert found["when"] == "step 300"
    zero, one = found["panels"][1]["bars"]
    assert (zero["birth"], zero["death"]) == ([0.0, 0.0], [0.3, None])
    assert (one["birth"], one["death"], one["total"]) == ([0.4], [0.6], 1)


def test_a_third_of_the_depth_shows_its_deepest_layer_of_the_first_seed() -> None:
    rows_ = [
        diagram(layer=layer, depth=(layer + 1) / 4, seed=seed)
        for layer in range(4)
        for seed in (1, 0)
    ]
    (found,) = codes(*rows_)
    assert [(p["bin"], p["layer"]) for p in found["panels"]] == [
        ("early", 0), ("late", 3), ("middle", 1),
    ]  # fmt: skip


def test_of_many_bars_the_longest_are_kept() -> None:
    length = np.random.default_rng(0).permutation(np.arange(1.0, 301.0))
    zeros = [0] * 300
    (found,) = codes(diagram(dimension=zeros, birth=[0.0] * 300, death=length.tolist()))
    (bars,) = found["panels"][0]["bars"]
    assert bars["total"] == 300
    assert bars["death"] == list(np.arange(301.0 - NUM_BARS, 301.0))


def test_every_row_is_there_with_its_key_and_provenance() -> None:
    given_rows = [
        measurement(key=f"k{i}", layer=i % LAYERS, flags={"n_tail": str(i % 3)}, seed=i // LAYERS)
        for i in range(3 * LAYERS)
    ]
    details = row_details(measurements(*given_rows))
    own, units, places = (details[n]["columns"] for n in ("rows", "units", "places"))
    assert details["total"] == details["rows"]["rows"] == len(given_rows)
    assert (details["units"]["rows"], details["places"]["rows"]) == (3, LAYERS)
    for i, row in enumerate(given_rows):
        assert value_at(own["key"], i) == row["key"]
        assert value_at(units["seed"], own["unit_at"][i]) == row["seed"]
        assert value_at(units["code_version"], own["unit_at"][i]) == row["code_version"]
        assert value_at(places["layer"], own["place_at"][i]) == row["layer"]
        assert value_at(places["sites"], own["place_at"][i]) == [row["site"]]
        assert value_at(places["bins"], own["place_at"][i])[0] == "all"
        assert value_at(own["flags"], i) == f'{{"n_tail": "{i % 3}"}}'


def test_too_many_rows_are_left_in_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 1)
    details = row_details(measurements(measurement(), measurement(seed=1)))
    assert (details["total"], details["rows"]["rows"]) == (2, 0)


def test_texts_shared_in_memory_give_the_same_page() -> None:
    given = synthetic()
    shared = {
        name: table.cast(tables.shared(table.schema)) if name in page.SCHEMAS else table
        for name, table in given.items()
    }
    assert pa.types.is_dictionary(shared["measurements"]["model"].type)
    told = [page.render(of, title="Synthetic", facts={}, figures=FIGURES) for of in (given, shared)]
    assert told[0] == told[1]


def test_of_very_many_runs_the_first_seeds_of_each_size_are_drawn() -> None:
    many = [
        [f"m{n}-s{seed}", seed, n, step, n + seed / 7, True]
        for n in (10, 20, 30)
        for seed in range(MOST_RUNS // 2)
        for step in (5, 0)
    ]
    few, alone = many[:8], [["m", 0, 10, None, 1.0, None], ["n", 0, 10, 3, 1.0, True]]
    slices, named = with_drawn_runs([{"runs": many}, {"runs": few}, {"runs": alone}])
    drawn = [named[i] for i in slices[0]["runs"]["of"]]
    assert len(drawn) == MOST_RUNS and slices[0]["runs"]["left_out"] == MOST_RUNS // 2
    assert {seed for _, seed, n in drawn if n == 30} == set(range(MOST_RUNS // 3))
    assert slices[0]["runs"]["steps"][0] == [0, 5]
    assert slices[0]["runs"]["values"][1] == [pytest.approx(10 + 1 / 7, rel=1e-4)] * 2
    assert [named[i][1] for i in slices[1]["runs"]["of"]] == [0, 1, 2, 3]
    assert slices[2]["runs"] == {"of": [], "steps": [], "values": [], "left_out": 0}
