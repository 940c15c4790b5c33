"""Neural spectroscopy on the page: its numbers, and the section in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleinv_ray import tables
from scaleinv_ray.report import write_report
from scaleinv_ray.report.spectroscopy import (
    DECADES,
    FLOOR,
    MAX_STEPS,
    coefficients,
    ridges,
    tracks,
)
from tests.report.in_browser import drawn, figure, opened
from tests.report.synthetic_spectroscopy import coefficients as coefficient_rows
from tests.report.synthetic_spectroscopy import curves, matches, stages
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
    (run,) = [c for c in coefficients(coefficient_rows()) if c["model"] == "d64"]
    first, second, *_, last = run["points"]
    assert (first["value"], first["verdict"]) == (None, "reject")
    assert "not a local minimum" in first["reasons"]
    assert second["verdict"] == "warn" and "ess" in second["reasons"]
    assert last["value"] == pytest.approx(10 + np.log(301), rel=1e-4)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    given = {
        "curves": curves(), "measurements": coefficient_rows(), "stages": stages(),
        "matches": matches(),
    }  # fmt: skip
    return write_report(given, title="spectroscopy", facts={}, out=tmp_path / "report.html")


@pytest.mark.browser
def test_the_section_draws_ridge_bands_and_coefficients(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _heard):
        section = page.locator("#spectroscopy")
        section.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
        section.locator(".waiting").wait_for(state="detached")
        ridge = drawn(figure(section, "Density of states over checkpoints"))
        lines = ridge.evaluate("(node) => node.querySelector('.plot').data.map((t) => t.name)")
        named = [name for name in lines if name]
        assert named == [f"step {s}" for s in reversed(STEPS)]
        bands = drawn(figure(section, "Bands over training"))
        data = bands.evaluate("(node) => node.querySelector('.plot').data.map((t) => [t.x, t.y])")
        assert data[0][0] == [31, 101, 301]
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


@pytest.mark.browser
def test_a_run_without_spectroscopy_says_so(browser: Any, tmp_path: Path) -> None:
    path = write_report({}, title="none", facts={}, out=tmp_path / "report.html")
    with opened(browser, path) as (page, _heard):
        section = page.locator("#spectroscopy")
        section.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
        section.locator(".waiting").wait_for(state="detached")
        assert "no densities of states" in section.inner_text()


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
        section = page.locator("#spectroscopy")
        section.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
        section.locator(".waiting").wait_for(state="detached")
        llc = drawn(figure(section, "Learning coefficient over training"))
        seen = llc.evaluate("(node) => node.querySelector('.plot').data.map((t) => [t.name, t.y])")
        assert ["reject", [3.0] * len(STEPS)] in seen
        assert "lambda_hat_t" in llc.locator("figcaption").inner_text()
