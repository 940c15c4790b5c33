"""The table of values: what is judged, what does not count, and why."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.aggregation.cells import TRAINED, gather
from scaleinv_ray.conclude.aggregation.matched_checkpoints import NO_STEP
from scaleinv_ray.conclude.aggregation.rows import Rows
from scaleinv_ray.conclude.aggregation.value_rows import value_rows
from scaleinv_ray.conclude.aggregation.values import comparisons
from scaleinv_ray.conclude.columns import rows_of, table_of
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.conclude.conservation.verdicts_table import judge_table
from scaleinv_ray.conclude.training.transitions import run_values
from tests.conclude.measured_rows import measurement
from tests.report.synthetic_tables import values_of

Row = dict[str, Any]
PLACE = ("series", "probe", "family", "invariant", "quantity", "site", "depth_bin")
REFUSED = {"value": None, "stderr": None, "status": "refused", "error": "too few tokens"}


def model(
    n: int, seed: int, *, layers: int = 2, without: tuple[int, ...] = (), **told: Any
) -> list[Row]:
    """Rows of a model, a layer each; those of the layers `without` are refused."""
    base = {
        "site": "resid_post", "probe": "prose", "n_params": n, "model": f"n{n}", "seed": seed,
        "n_layers": layers, "step": 100, "architecture": "a", "variant": TRAINED,
    }  # fmt: skip
    return [
        measurement(**base | {
            "layer": layer, "depth": (layer + 1) / layers,
            "value": 1.0 + 10 * layer + n / 1e6 + seed / 100, "stderr": 0.1,
        } | (REFUSED if layer in without else {}) | told)
        for layer in range(layers)
    ]  # fmt: skip


def series(**told: Any) -> list[Row]:
    """Four sizes, three seeds, two layers."""
    found = [model(n, seed, **told) for n in (1000, 2000, 4000, 8000) for seed in range(3)]
    return list(itertools.chain(*found))


def at(rows: Rows, **where: Any) -> list[Row]:
    return [row for row in rows if where.items() <= row.items()]


def test_a_layer_refused_at_one_size_takes_that_size_out_of_verdict_and_values() -> None:
    rows = [r | (REFUSED if (r["n_params"], r["layer"]) == (4000, 0) else {}) for r in series()]
    [verdict] = [row for row in judge_table(rows, quantities={})[0] if row["depth_bin"] == "all"]
    assert (verdict["n_models"], verdict["n_refused"]) == (3, 3)
    found = at(value_rows(rows), depth_bin="all")
    counted = [row for row in found if row["counted"]]
    assert {row["n_params"] for row in counted} == {1000, 2000, 8000}
    assert [
        (r["n_params"], r["seed"], r["value"], r["reason"]) for r in found if r not in counted
    ] == [(4000, seed, None, "too few tokens") for seed in range(3)]
    # the third of the other layer is whole
    assert len([r for r in at(value_rows(rows), depth_bin="late") if r["counted"]]) == 12


def with_everything() -> list[Row]:
    """Runs at several steps and rates, refusals of one and of all models, nulls here and there."""
    rows: list[Row] = []
    for n, rate, seed in itertools.product((1000, 2000, 4000), (1, 2), (0, 1)):
        for step in (0, 50, 100, 200):
            told = {
                "step": step,
                "model": f"n{n}-{rate}",
                "train_tokens": step * rate,
                "eval_loss": 9.0 - 0.02 * step - n / 4000,
            }
            lost = (0,) if step == 0 or (n, rate, seed, step) == (2000, 1, 1, 200) else ()
            rows += model(n, seed, layers=3, without=lost, **told)
        null = {"model": f"n{n}-{rate}", "variant": "random_init", "step": None}
        rows += model(n, seed, layers=3, **null)
        for step in (50, 200):
            null |= {"variant": "shuffled_weights", "step": step}
            rows += model(n, seed, layers=3, without=(1,) if n == 4000 else (), **null)
    return rows + model(9000, 0, layers=3, variant="random_init", step=None)


def test_every_value_that_is_judged_is_a_row() -> None:
    rows = Rows.of(with_everything())
    table = value_rows(rows)
    names = set()
    for group in gather(rows):
        for found in comparisons(group):
            names.add(found.name)
            where = dict(zip(PLACE, group.place, strict=True)) | {"comparison": found.name}
            own = at(table, **where)
            for replicate, value in found.trained.items():
                told = {"variant": TRAINED, "model": replicate.model, "seed": replicate.seed}
                told |= {"n_params": replicate.n_params, "counted": True}
                mine = [row for row in own if told.items() <= row.items()]
                mine = [r for r in mine if found.name != "equal_steps" or r["step"] == found.step]
                assert [(r["value"], r["stderr"]) for r in mine] == [(value.value, value.stderr)]
            for variant, values in found.nulls.items():
                nulls = [row for row in own if row["variant"] == variant and row["counted"]]
                assert {(v.value, v.stderr) for v in values.values()} <= {
                    (row["value"], row["stderr"]) for row in nulls
                }
    assert names == {"equal_steps", "equal_tokens", "equal_loss"}


def test_every_replicate_stands_once_at_every_step_with_a_value_or_a_reason() -> None:
    rows = with_everything()
    table = at(value_rows(rows), comparison="equal_steps", depth_bin="all")
    unit = ("variant", "n_params", "model", "seed", "step")
    times = Counter(tuple(row[name] for name in unit) for row in table)
    assert set(times.values()) == {1}
    assert set(times) == {tuple(row[name] for name in unit) for row in rows}
    for row in table:
        assert row["counted"] == (row["value"] is not None) == (row["reason"] is None)
    [alone] = [row for row in table if row["n_params"] == 9000]
    assert alone["value"] is not None  # no trained model of that size says what is whole


def test_what_counts_over_training_is_what_is_followed() -> None:
    rows = Rows.of(with_everything())
    table = value_rows(rows)
    for group in gather(rows):
        where = dict(zip(PLACE, group.place, strict=True)) | {"comparison": "equal_steps"}
        own = [r for r in at(table, **where, over_training=True) if r["variant"] == TRAINED]
        followed = {
            (run.model, run.n_params, run.seed, step): value
            for run, curve in run_values(group).items()
            for step, value in curve.items()
        }
        found = {(r["model"], r["n_params"], r["seed"], r["step"]): r["value"] for r in own}
        assert found == followed
    # before training the first layer is refused in every model: models agree, runs do not
    [early] = {
        (row["counted"], row["over_training"])
        for row in at(table, comparison="equal_steps", variant=TRAINED, step=0, depth_bin="all")
    }
    assert early == (True, False)


def test_a_quantity_of_nulls_alone_has_values() -> None:
    rows = series(variant="shuffled_tokens", step=None)
    table = at(value_rows(rows), depth_bin="all")
    assert len(table) == 12 and all(row["counted"] for row in table)
    assert {row["step"] for row in table} == {None} and NO_STEP not in {r["step"] for r in table}


@pytest.mark.parametrize("rows", [[], with_everything()], ids=["nothing", "everything"])
def test_the_table_holds_what_the_rows_say(rows: list[Row]) -> None:
    found = value_rows(rows)
    table = table_of(found, SCHEMAS["values"])
    assert table.schema == tables.shared(SCHEMAS["values"])
    assert table.to_pylist() == [{n: row[n] for n in SCHEMAS["values"].names} for row in found]


def test_rows_and_tables_give_the_same_values() -> None:
    rows = with_everything()
    table = tables.encode(rows, tables.MEASUREMENTS)
    assert values_of(table).equals(table_of(value_rows(rows), SCHEMAS["values"]))
    assert list(rows_of(values_of(table), SCHEMAS["values"].names)) == values_of(table).to_pylist()
