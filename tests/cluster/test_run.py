"""The whole on a tiny ladder: nothing fails, nothing is computed twice, the tables are equal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleinv_ray import tables
from scaleinv_ray.conclude.concluding import read_folder
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.measure.inventory import take_inventory
from scaleinv_ray.runs.analysis import Run, run
from scaleinv_ray.store import Store
from tests.cluster.conftest import SEEDS, WIDTHS

pytestmark = pytest.mark.ray
MAY_DIFFER = {"run_id", "wall_s"}


def rows_of(store: Store, folder: str = "measurements") -> list[dict[str, Any]]:
    rows = tables.decode(read_folder(store, folder))
    return [{k: v for k, v in row.items() if k not in MAY_DIFFER} for row in rows]


def test_every_unit_is_measured_and_no_row_failed(analysed: tuple[Any, Run]) -> None:
    _, result = analysed
    rows = tables.decode(result.measurements)
    assert Counter(r["status"] for r in rows)["failed"] == 0
    assert {r["family"] for r in rows} == {
        "weights", "representation", "renormalization", "topology", "geometry", "holomorphy",
    }  # fmt: skip
    assert {r["d_model"] for r in rows} == set(WIDTHS)
    assert {r["seed"] for r in rows} == set(SEEDS)
    trained = {(r["model"], r["seed"], r["step"]) for r in rows if r["variant"] == "trained"}
    assert len(trained) == len(WIDTHS) * len(SEEDS) * 2
    for null in ("random_init", "shuffled_weights", "shuffled_tokens"):
        steps = {r["step"] for r in rows if r["variant"] == null}
        assert steps == {6}, "nulls are planned at the judged step"
    assert {r["family"] for r in rows if r["variant"] == "shuffled_tokens"} == {
        "representation", "renormalization", "topology", "geometry", "holomorphy",
    }  # fmt: skip


def test_every_number_is_finite_with_an_error_or_a_reason(analysed: tuple[Any, Run]) -> None:
    _, result = analysed
    for row in tables.decode(result.measurements):
        if row["status"] == "ok":
            assert row["value"] is not None and row["error"] is None
            assert (row["stderr"] is None) == (row["error_kind"] == "none")
        else:
            assert row["value"] is None and row["error"]


def test_random_init_is_the_runs_own_step_zero(analysed: tuple[Any, Run], ladder: Path) -> None:
    from safetensors.numpy import load_file

    from scaleinv_ray.invariants.weights import weight_tail
    from scaleinv_ray.records import WeightMatrix

    _, result = analysed
    weights = load_file(ladder / "d32-s1" / "step-000000" / "model.safetensors")
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    import numpy as np

    spec_row = next(
        r
        for r in tables.decode(result.measurements)
        if (r["model"], r["variant"], r["quantity"]) == ("d32-s1", "random_init", "stable_rank")
        and r["layer"] == 1
        and r["role"] == "mlp_in"
    )
    record = WeightMatrix(w_OI=weights[name])
    expected = weight_tail(record, rng=np.random.default_rng(0)).values["stable_rank"]
    assert spec_row["value"] == pytest.approx(expected.value, rel=1e-12)


def test_the_tables_and_the_report_are_there(analysed: tuple[Any, Run]) -> None:
    config, result = analysed
    out = Path(config["out"])
    for name in ("config.yaml", "plan.parquet", "verdicts.parquet", "report.html", "log.jsonl"):
        assert (out / name).stat().st_size > 0
    assert result.verdicts.schema == SCHEMAS["verdicts"]
    assert result.verdicts.num_rows > 20
    assert not list((out / "captures").glob("*.arrow")), "captures: discard"
    events = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert events[0] == "started" and events[-1] == "ended"
    assert events.count("measured") == result.computed


@pytest.mark.browser
def test_the_report_opens_without_errors(analysed: tuple[Any, Run], chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    config, result = analysed
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((Path(config["out"]) / "report.html").as_uri())
        assert page.locator("#verdict-table tbody tr").count() > 10
        page.locator("#family-topology").scroll_into_view_if_needed()
        page.locator("#family-topology .main-svg").first.wait_for()
        browser.close()
    assert errors == []


def test_a_second_run_computes_nothing(analysed: tuple[Any, Run]) -> None:
    config, first = analysed
    second = run(config)
    assert first.computed > 0 and second.computed == 0
    assert second.verdicts.equals(first.verdicts)


def test_what_is_lost_is_computed_again_and_nothing_else(
    analysed: tuple[Any, Run], tmp_path: Path
) -> None:
    config, first = analysed
    other = dict(config, out=str(tmp_path / "out"))
    store = Store(other["out"])
    wanted = sorted(take_inventory(first.store).done)
    lost = set(wanted[::7])
    for folder in ("measurements", "curves", "diagrams"):
        table = read_folder(first.store, folder)
        keep = [k not in lost for k in table["key"].to_pylist()]
        store.write_table(f"{folder}/all-kept.parquet", table.filter(keep))
    again = run(other)
    assert again.computed == len(lost)
    for folder in ("measurements", "curves", "diagrams"):
        assert rows_of(store, folder) == rows_of(first.store, folder)


def test_adding_an_invariant_adds_only_its_measurements(
    analysed: tuple[Any, Run], tmp_path: Path
) -> None:
    config, first = analysed
    few = dict(config, out=str(tmp_path / "out"), variants=["trained"])
    names = ("geometry.neighbour_dimension", "topology.persistence")
    few["invariants"] = {names[0]: config["invariants"][names[0]]}
    one = run(few)
    alone = one.measurements.num_rows
    few["invariants"] = {n: config["invariants"][n] for n in names}
    two = run(few)
    both = two.measurements.num_rows
    few["invariants"] = {names[0]: few["invariants"][names[0]]}
    assert run(few).measurements.num_rows == alone < both
    assert one.computed == two.computed == len(WIDTHS) * len(SEEDS) * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "holds series 'tiny', got 'other'"),
        ({"protocol": {"sequences": 96, "length": 48, "position": 41}}, "holds protocol"),
    ],
)
def test_the_folder_of_another_series_or_protocol_is_refused(
    analysed: tuple[Any, Run], change: dict[str, Any], message: str
) -> None:
    config, first = analysed
    before = sorted(p.name for p in Path(config["out"]).iterdir())
    protocol = {**config["protocol"], **change.get("protocol", {})}
    with pytest.raises(ValueError, match=message):
        run({**config, **change, "protocol": protocol})
    assert sorted(p.name for p in Path(config["out"]).iterdir()) == before


def test_a_killed_run_started_again_ends_in_the_same_tables(
    analysed: tuple[Any, Run], tmp_path: Path
) -> None:
    config, first = analysed
    out = tmp_path / "out"
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(dict(config, out=str(out))))
    command = [sys.executable, "-m", "scaleinv_ray.cli", "run", str(file)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    store = Store(out)
    deadline = time.monotonic() + 600
    while len(store.names("measurements")) < first.computed // 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = take_inventory(store).done
    assert 0 < len(done) < first.computed
    again = run(dict(config, out=str(out)))
    assert again.computed <= first.computed - len(done)
    for folder in ("measurements", "curves", "diagrams"):
        assert rows_of(store, folder) == rows_of(first.store, folder)
