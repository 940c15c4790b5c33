"""Neural spectroscopy on the page: its numbers, and the section in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.report.figures.spectroscopy import (
    DECADES,
    FLOOR,
    MAX_RIDGES,
    MAX_STEPS,
    absent,
    coefficients,
    followed,
    ridges,
    spectroscopy,
    tracks,
)
from tests.report.in_browser import drawn, figure, opened, until
from tests.report.pages import write_report
from tests.report.synthetic_across import transition
from tests.report.synthetic_spectroscopy import coefficients as coefficient_rows
from tests.report.synthetic_spectroscopy import curves, matches, operators, stages
from tests.report.synthetic_tables import STEPS


def test_a_ridge_keeps_the_mass_of_the_density_and_the_place_of_an_outlier() -> None:
    found = [r for r in ridges(curves()) if r["model"] == "d32" and r["site"] == "model"]
    assert len(found) == 1
    (ridge,) = found
    assert ridge["steps"] == list(STEPS)
    assert ridge["top"] == pytest.approx(3 + np.log(300), rel=1e-3)
    t = np.array(ridge["t"])
    for step, y in zip(ridge["steps"], ridge["y"], strict=True):
        density = FLOOR * 10 ** np.array(y)
        assert np.trapezoid(density, t) == pytest.approx(1.0, abs=0.03)
        outlier = np.trapezoid(np.where(t > 3.5, density, 0.0), t)
        assert outlier == pytest.approx(1e-3 if step >= 30 else 0.0, abs=2e-4)
    assert t[0] < -DECADES and t[-1] > DECADES


def test_a_long_run_is_thinned_evenly_and_says_so() -> None:
    (row,) = [r for r in curves().to_pylist() if (r["model"], r["site"]) == ("d32", "model")
              and r["curve"] == "density" and r["step"] == 0]  # fmt: skip
    rows = [row | {"step": step} for step in range(2000)]
    (ridge,) = ridges(tables.encode(rows, tables.CURVES))
    assert ridge["num_steps"] == 2000 and len(ridge["y"]) == len(ridge["steps"]) == MAX_STEPS
    assert (ridge["steps"][0], ridge["steps"][-1]) == (0, 1999)
    assert max(np.diff(ridge["steps"])) - min(np.diff(ridge["steps"])) <= 1


def test_an_operator_that_vanishes_has_no_ridge() -> None:
    rows = curves().to_pylist()
    for row in rows:
        row["x"] = [0.0] * len(row["x"])
    assert ridges(tables.encode(rows, tables.CURVES)) == []


def test_tracks_and_coefficients_are_those_of_the_rows() -> None:
    (track,) = [t for t in tracks(curves()) if t["model"] == "d64"]
    assert [b["band"] for b in track["bands"]] == [1, 2]
    assert track["bands"][0]["x"] == [30.0, 100.0, 300.0]
    assert [band["e"] for band in track["bands"]] == [[0.1, 0.2, 0.3], [None] * 5]
    (run,) = [c for c in coefficients(coefficient_rows()) if c["model"] == "d64"]
    first, second, *_, last = run["points"]
    assert (first["value"], first["verdict"]) == (None, "reject")
    assert "not a local minimum" in first["reasons"]
    assert second["verdict"] == "warn" and "ess" in second["reasons"]
    assert last["value"] == pytest.approx(10 + np.log(301), rel=1e-4)


def test_a_quantity_that_accepted_chains_do_not_give_is_not_a_rejection() -> None:
    (row, *_) = [r for r in coefficient_rows().to_pylist(maps_as_pydicts="strict") if r["step"]]
    needs = "lambda_m1: needs 2 values of nbeta"
    row |= {"quantity": "lambda_m1", "value": None, "status": "refused", "error": needs}
    assert row["flags"]["verdict"] == "warn"
    lost = row | {"flags": {}, "status": "failed", "error": "OutOfMemoryError", "step": 30}
    (run,) = coefficients(tables.encode([row, lost], tables.MEASUREMENTS))
    assert [p["verdict"] for p in run["points"]] == ["none", "reject"]
    assert [p["reasons"] for p in run["points"]] == [needs, "OutOfMemoryError"]


def test_what_has_no_curve_says_why_and_at_which_steps() -> None:
    assert absent(operators()) == [] == followed(operators())
    found = absent(operators(refused="nodes_RK: got zeros only"))
    assert {(a["model"], a["family"]) for a in found} == {
        (model, family) for model in ("d32", "d64") for family in ("bands", "curvature")
    }
    (density,) = [a for a in found if (a["model"], a["family"]) == ("d32", "curvature")]
    assert density["reasons"] == [{"text": "nodes_RK: got zeros only", "steps": list(STEPS)}]
    rows = operators().to_pylist(maps_as_pydicts="strict")
    none = [r | {"value": 0.0} for r in rows if r["quantity"] == "num_tracks"]
    (first, _) = absent(tables.encode(none, tables.MEASUREMENTS))
    assert first["reasons"] == [{"text": "no band stands apart from the bulk", "steps": [300]}]


def test_the_checkpoints_that_bands_ask_for_are_told() -> None:
    (first, second) = followed(operators(requests="step 10..30: overlap 0.41, try 17"))
    assert (first["model"], second["model"]) == ("d32", "d64")
    assert first["requests"] == "step 10..30: overlap 0.41, try 17" and first["crossings"] == ""


def test_ridges_that_do_not_travel_are_named() -> None:
    (row,) = [r for r in curves().to_pylist() if (r["model"], r["site"]) == ("d32", "model")
              and r["curve"] == "density" and r["step"] == 0]  # fmt: skip
    rows = [row | {"site": "layer", "layer": layer} for layer in range(MAX_RIDGES + 2)]
    found = spectroscopy(tables.encode(rows, tables.CURVES), tables.MEASUREMENTS.empty_table())
    assert len(found["ridges"]) == MAX_RIDGES
    assert [at["layer"] for at in found["left_out"]] == [MAX_RIDGES, MAX_RIDGES + 1]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    measured = [coefficient_rows(), operators(requests="step 10..30: overlap 0.41, try 17")]
    given = {
        "curves": curves(), "measurements": pa.concat_tables(measured), "stages": stages(),
        "matches": matches(),
    }  # fmt: skip
    return write_report(given, title="spectroscopy", facts={}, out=tmp_path / "report.html")


SPARE = "(node) => node.clientWidth - node.querySelector('.main-svg').clientWidth"
"""Width of a figure that its drawing leaves empty."""


def section_of(page: Any, name: str = "spectroscopy") -> Any:
    section = page.locator(f"#{name}")
    section.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
    section.locator(".waiting").wait_for(state="detached")
    return section


@pytest.mark.browser
def test_the_section_draws_ridge_bands_and_coefficients(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _heard):
        section = section_of(page)
        ridge = drawn(figure(section, "Density of states over checkpoints"))
        lines = ridge.evaluate("(node) => node.querySelector('.plot').data.map((t) => t.name)")
        named = [name for name in lines if name]
        assert named == [f"step {s}" for s in reversed(STEPS)]
        bands = drawn(figure(section, "Bands over training"))
        data = bands.evaluate("(node) => node.querySelector('.plot').data.map((t) => [t.x, t.y])")
        assert data[0][0] == [31, 101, 301]
        bars = "(node) => node.querySelector('.plot').data.map((t) => t.error_y.array)"
        assert bands.evaluate(bars) == [[0.1, 0.2, 0.3], [0] * 5]
        assert "step 10..30: overlap 0.41, try 17" in bands.locator("figcaption").inner_text()
        llc = drawn(figure(section, "Learning coefficient over training"))
        names = llc.evaluate("(node) => node.querySelector('.plot').data.map((t) => t.name)")
        assert "ok" in names and "warn" in names and "reject" not in names
        assert "1 checkpoint has no number" in llc.locator("figcaption").inner_text()
        text = section.inner_text()
        assert "not a local minimum" in text and "no match" in text
        assert "copying_gain: -0.4" in text and "1 of 1; 0.30 by chance" in text
        section.get_by_label("Model", exact=True).select_option(index=1)
        assert "(w1^2 - w2^3)^2" in section.inner_text()
        section.get_by_label("Parameters", exact=True).select_option("layer 0")
        assert figure(section, "Bands over training").is_hidden()
        assert "No bands of these choices: not measured" in section.inner_text()


@pytest.mark.browser
def test_a_run_without_spectroscopy_has_no_such_section(browser: Any, tmp_path: Path) -> None:
    path = write_report({}, title="none", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        assert page.locator("#spectroscopy").count() == 0
        assert "spectroscopy" not in page.locator("#contents").inner_text()


@pytest.mark.browser
def test_a_figure_alone_is_as_wide_as_the_page(browser: Any, tmp_path: Path) -> None:
    rows = [row for row in curves().to_pylist() if row["curve"] == "density"]
    given = {"curves": tables.encode(rows, tables.CURVES)}
    path = write_report(given, title="alone", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        section = section_of(page)
        ridge = drawn(figure(section, "Density of states over checkpoints"))
        until(page, lambda: figure(section, "Bands over training").is_hidden())
        assert ridge.evaluate(SPARE) < 80


@pytest.mark.browser
def test_orders_stand_beside_their_transitions(browser: Any, tmp_path: Path) -> None:
    row = dict.fromkeys(SCHEMAS["orders"].names) | {
        "series": "ladder", "family": "topology", "invariant": "topology.persistence",
        "quantity": "betti_peak_1", "depth_bin": "all", "n_runs": 3, "n_sizes": 3,
        "n_sigmoid": 3, "n_power_law": 0, "bic": 9.0, "outcome": "keeps its width",
        "reason": "no slope established",
    }  # fmt: skip
    given = {
        "orders": tables.encode([row], SCHEMAS["orders"]),
        "transitions": tables.encode([transition()], SCHEMAS["transitions"]),
    }
    path = write_report(given, title="orders", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        section = section_of(page, "transitions")
        section.get_by_text("keeps its width").wait_for()
        assert "does a transition sharpen with size?" in section.inner_text()


@pytest.mark.browser
def test_operators_that_are_refused_everywhere_say_why(browser: Any, tmp_path: Path) -> None:
    given = {"measurements": operators(refused="nodes_RK: got zeros only")}
    path = write_report(given, title="refused", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        text = section_of(page).inner_text()
        assert "nodes_RK: got zeros only (step 0, 10, 30, 100, 300)" in text
        assert "No learning coefficients were measured" in text
        assert "This run has no table of stages" in text
        assert "its config" not in text.split("No learning coefficients")[0]


@pytest.mark.browser
def test_where_no_coefficient_is_accepted_the_conditional_ones_are_drawn(
    browser: Any, tmp_path: Path
) -> None:
    rows = coefficient_rows().to_pylist(maps_as_pydicts="strict")
    refused = [
        row | {"value": None, "stderr": None, "status": "refused", "error": "not equilibrated"}
        for row in rows
    ]
    flags = {"verdict": "reject", "reasons": "not equilibrated"}
    conditional = [
        row | {"quantity": "lambda_hat_t", "value": 3.0, "stderr": 0.1, "flags": flags,
               "status": "ok", "error": None}
        for row in rows
    ]  # fmt: skip
    given = {"measurements": tables.encode(refused + conditional, tables.MEASUREMENTS)}
    path = write_report(given, title="conditional", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        llc = drawn(figure(section_of(page), "Learning coefficient over training"))
        seen = llc.evaluate("(node) => node.querySelector('.plot').data.map((t) => [t.name, t.y])")
        assert ["reject", [3.0] * len(STEPS)] in seen
        caption = llc.locator("figcaption").inner_text()
        assert "lambda_hat_t" in caption and "compare at equal settings alone" in caption
        axis = "(node) => node.querySelector('.plot').layout.yaxis.title.text"
        assert llc.evaluate(axis) == "λ̂(T): conditional, no learning coefficient"
