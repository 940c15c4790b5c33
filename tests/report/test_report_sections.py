"""The sections of the page in Chromium: depth, curves, bars, tracks, rows, one model, across."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.contract import REGISTRY
from scaleinv_ray.report import render
from tests.report.in_browser import drawn, figure, in_view, opened
from tests.report.pages import FIGURES, write_report
from tests.report.synthetic_across import EMERGENCE_ROWS, JUMP
from tests.report.synthetic_tables import LAYERS, SEEDS, SIZES, STEPS, synthetic

pytestmark = pytest.mark.browser
DATA = "(node) => node.querySelector('.plot').data.map(({name, x, y}) => ({name, x, y}))"


@pytest.fixture
def page(figures: Any) -> Any:
    return figures


def section(page: Any, name: str) -> Any:
    page.bring_to_front()
    found = page.locator(f"#{name}")
    found.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
    found.locator(".waiting").wait_for(state="detached")
    return found


def family(page: Any, name: str, quantity: str) -> Any:
    found = in_view(page, name)
    found.locator("select[data-key=quantity]").select_option(label=quantity)
    return found


def rows_of(download: Any) -> list[dict[str, str]]:
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_depth_has_a_line_a_size_and_dashed_nulls(page: Any) -> None:
    depth = drawn(figure(family(page, "geometry", "dimension · twonn"), "Value over depth"))
    traces = depth.evaluate(DATA)
    lines = [t for t in traces if t["x"] == [(i + 1) / LAYERS for i in range(LAYERS)]]
    assert len(lines) == 2 * len(SIZES)
    trained, untrained = lines[0], lines[len(SIZES)]
    assert trained["name"] == untrained["name"] == "120k"
    # layers rise from 0.9 to 1.1 of the mean; the null is at 0.72 of the trained value
    assert trained["y"][-1] / trained["y"][0] == pytest.approx(1.1 / 0.9, rel=1e-4)
    assert untrained["y"][0] / trained["y"][0] == pytest.approx(0.72, rel=0.1)
    depth.get_by_label("Null beside").select_option("")
    assert len(depth.evaluate(DATA)) == 2 * len(SIZES)  # bands and lines


def test_curves_collapse_onto_the_exponents_found(page: Any) -> None:
    curves = drawn(figure(in_view(page, "topology"), "Curves over sizes"))
    curves.get_by_label("Curve", exact=True).select_option(label="betti · betti_curve_1")
    assert "S = 3.50 as measured, 1.10 with" in curves.locator("figcaption").inner_text()
    before = {t["name"]: t for t in curves.evaluate(DATA)}
    curves.get_by_label("collapsed").check()
    after = {t["name"]: t for t in curves.evaluate(DATA)}

    def apart(traces: dict[str, Any], axis: str) -> float:
        return max(traces["1.8M"][axis]) / max(traces["120k"][axis])

    ratio = SIZES[128] / SIZES[32]
    assert apart(after, "x") / apart(before, "x") == pytest.approx(ratio**-0.05, rel=1e-6)
    assert apart(after, "y") / apart(before, "y") == pytest.approx(ratio**-0.2, rel=1e-6)
    curves.get_by_label("Curve", exact=True).select_option(label="betti · betti_curve_0")
    assert "No collapse was sought" in curves.locator("figcaption").inner_text()
    assert not curves.get_by_label("collapsed").is_visible()


def test_barcodes_stand_smallest_beside_largest_and_trained_above_untrained(page: Any) -> None:
    bars = drawn(figure(in_view(page, "topology"), "Barcodes"))
    titles = "(node) => node.querySelector('.plot').layout.annotations.map((a) => a.text)"
    sizes = ["120k", "1.8M"]
    expected = [f"{v}, {n}" for v in ("trained", "random init") for n in sizes]
    assert bars.evaluate(titles) == expected
    traces = bars.evaluate(DATA)
    assert [t["name"] for t in traces] == ["H0", "H1"] * 4
    assert [len(t["x"]) // 3 for t in traces] == [31, 6] * 4
    bars.get_by_label("Beside").select_option(label="trained only")
    assert bars.evaluate(titles) == expected[:2]
    bars.get_by_label("relative to the largest death").check()
    finite = [x for x in bars.evaluate(DATA)[0]["x"] if x is not None]
    assert sorted(finite)[-2:] == [pytest.approx(1.0), pytest.approx(1.04)]


def test_tracks_have_transitions_with_intervals_and_each_seed(page: Any) -> None:
    track = figure(
        family(page, "topology", "persistence · total_persistence_0"), "Value over training"
    )
    drawn(track)
    (breaks,) = (t for t in track.evaluate(DATA) if t["name"] == "break of slope")
    assert breaks["x"] == [JUMP + 1] * len(SIZES) * len(SEEDS)
    assert "12 of 12 runs have a transition" in track.locator("figcaption").inner_text()
    before = len(track.evaluate(DATA))
    track.get_by_label("each seed").check()
    assert len(track.evaluate(DATA)) == before + len(SIZES) * len(SEEDS)
    family(page, "topology", "betti · betti_peak_1")
    assert "0 of 12 runs have a transition" in track.locator("figcaption").inner_text()


def test_a_number_leads_to_its_rows(page: Any) -> None:
    weights = family(page, "weights", "power_law · alpha")
    scale = drawn(figure(weights, "Value against parameters"))
    scale.locator("summary").click()
    scale.get_by_role("button", name="show the measurements of trained, 120k").click()
    dialog = page.locator("dialog[open]")
    dialog.locator(".row-facts").wait_for()
    table = dialog.get_by_role("region", name="Measurements")
    assert table.locator("tbody tr").count() == LAYERS * len(SEEDS)
    fact = "(node, name) => node.querySelector(`[data-name=${name}]`).textContent"
    assert dialog.evaluate(fact, "key") == f"32-0-{STEPS[-1]}-trained"
    assert dialog.evaluate(fact, "code_version") == "0"
    assert dialog.evaluate(fact, "weights_digest") == "00"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert dialog.evaluate(fact, "layer") == "1"
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download CSV").click()
    saved = rows_of(download)
    assert {r["quantity"] for r in saved} == {"alpha"}
    assert {(r["step"], r["variant"]) for r in saved} == {("300", "trained")}
    mean = sum(float(r["value"]) for r in saved) / len(saved)
    shown = scale.locator(".numbers tbody tr").first.locator("td").nth(2).inner_text()
    assert mean == pytest.approx(float(shown), rel=0.01)
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_a_card_gives_its_measurements_as_csv(page: Any) -> None:
    weights = family(page, "weights", "power_law · alpha")
    with page.expect_download() as download:
        weights.get_by_role("button", name="CSV of its measurements").click()
    saved = rows_of(download)
    units = len(SIZES) * len(SEEDS) * (len(STEPS) + 3)
    assert len(saved) == units * LAYERS
    assert {r["quantity"] for r in saved} == {"alpha"}


@pytest.mark.parametrize("kind", [pytest.param("PNG", marks=pytest.mark.slow), "SVG"])
def test_figures_are_saved(page: Any, kind: str) -> None:
    scale = drawn(figure(in_view(page, "weights"), "Value against parameters"))
    with page.expect_download() as download:
        scale.get_by_role("button", name=f"parameters as {kind}").click()
    head = Path(download.value.path()).read_bytes()[:8]
    assert head.startswith(b"\x89PNG" if kind == "PNG" else b"<svg")
    assert download.value.suggested_filename.endswith(f".{kind.lower()}")
    plotly_own = scale.locator(".modebar-btn[data-title^='Download plot']")
    assert plotly_own.count() == 2  # png and svg


def test_arrows_go_from_row_to_row_and_enter_opens(page: Any) -> None:
    page.locator("#search").fill("persistence")
    rows = page.locator("#verdict-table tbody tr")
    assert rows.count() == 2
    rows.first.focus()
    page.keyboard.press("End")
    assert rows.nth(1).evaluate("(node) => node === document.activeElement")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    quantity = rows.nth(1).locator("a").inner_text()
    page.keyboard.press("Enter")
    select = page.locator("#family-topology select[data-key=quantity]")
    assert select.input_value().endswith(quantity)
    assert page.evaluate("location.hash") == "#family-topology"
    page.keyboard.press("Escape")
    page.locator("#csv").focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator("#search").fill("")


def test_one_model_stands_against_the_others(page: Any) -> None:
    model = section(page, "model")
    assert "outside the 90 % interval" in model.inner_text()
    model.get_by_label("Model", exact=True).select_option(label="d64, seed 1 (460k)")
    drawn(figure(model, "Farthest from the series"))
    assert model.locator("tbody tr").count() > 10
    model.get_by_label("Family", exact=True).select_option("weights")
    assert set(model.locator("tbody tr td:first-child").all_inner_texts()) == {"weights"}
    model.locator("tbody tr").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    dialog.locator(".row-facts").wait_for()
    assert dialog.locator("tbody tr").count() == LAYERS
    page.keyboard.press("Escape")


def test_pairs_stand_between_floor_and_ceiling(page: Any) -> None:
    pairs = section(page, "pairs")
    overlap = drawn(figure(pairs, "Agreement against the ratio of sizes"))
    traces = {t["name"].split(":")[0]: t for t in overlap.evaluate(DATA)}
    assert set(traces) == {"trained", "ceiling", "floor"}
    assert min(traces["trained"]["x"]) >= 1
    assert set(traces["ceiling"]["y"]) == {0.9}
    before = traces["trained"]["y"]
    pairs.get_by_label("Quantity").select_option(label="paired_overlap · procrustes")
    after = overlap.evaluate(DATA)[0]["y"]
    assert after == [pytest.approx(v - 0.1) for v in before]


def test_classes_list_their_members(page: Any) -> None:
    classes = section(page, "classes")
    assert classes.locator(".badge").inner_text().split() == ["✕", "different"]
    first = classes.locator(".classes li").first.locator(".member")
    assert first.all_inner_texts() == ["96", "128"]


def test_collapses_and_transitions_are_tables(page: Any) -> None:
    collapses = section(page, "collapses")
    assert collapses.locator("tbody tr").count() == 2
    transitions = section(page, "transitions")
    said = transitions.inner_text()
    assert "12 transitions in 24 runs" in said
    assert "of 24 curves asked at most 1.2 would have a transition on average" in said
    assert "12 of the 12 here have q at most 0.05" in said
    assert "12 of these are in every seed of their size as well" in said
    assert "3 of 3" in transitions.locator("tbody tr").first.inner_text()
    transitions.locator("tbody tr").first.click()
    quantity = page.locator("#family-topology select[data-key=quantity]")
    page.wait_for_function("location.hash || true")
    assert quantity.input_value().endswith("total_persistence_0")


def test_the_axes_of_a_curve_say_what_stands_on_them(browser: Any, tmp_path: Path) -> None:
    given = synthetic()
    rows = given["curves"].to_pylist()
    own = [
        row | {"invariant": "topology.persistence", "curve": curve}
        for row in rows
        if row["curve"] == "betti_curve_1"
        for curve in ("betti_1", "of_old")
    ]
    given["curves"] = tables.encode(own, tables.CURVES)
    out = tmp_path / "report.html"
    made = render(given, title="axes", facts={}, figures=FIGURES, invariants=REGISTRY)
    out.write_bytes(made)
    with opened(browser, out) as (page, _):
        card = figure(in_view(page, "topology"), "Curves over sizes")
        titles = drawn(card).locator(".xtitle, .ytitle")
        choice = card.locator("select").first
        said = {}
        for name in ("betti_1", "of_old"):
            choice.select_option(label=f"persistence · {name}")
            said[name] = " ".join(titles.all_text_contents()).replace("\xa0", " ")
    assert said["betti_1"] == "scale at which points are joined Number of loops"
    assert said["of_old"] == "x of old"


def test_absent_tables_are_said_to_be_absent(browser: Any, tmp_path: Path) -> None:
    out = write_report({}, title="Empty", facts={}, out=tmp_path / "report.html")
    with opened(browser, out) as (page, _):
        assert page.locator("#count").inner_text() == "This run has no verdicts."
        assert "no measurements" in page.locator("#families").inner_text()
        for name in ("pairs", "classes", "collapses", "transitions"):
            assert "This run has no table of" in section(page, name).inner_text()
        capabilities = section(page, "capabilities").inner_text()
        assert "no table of capabilities" in capabilities
        assert "no table of emergence" in capabilities
        assert "No quantity was judged" in section(page, "model").inner_text()


def test_capabilities_are_curves_over_tokens_with_a_band_a_size(page: Any) -> None:
    capabilities = section(page, "capabilities")
    curves = drawn(figure(capabilities, "Capability over training tokens"))
    capabilities.get_by_label("Capability", exact=True).select_option(label="induction · acc")
    traces = curves.evaluate(DATA)
    lines = [t for t in traces if len(t["x"]) == len(STEPS)]
    assert [t["name"] for t in lines] == ["120k", "460k", "1.02M", "1.8M"]
    # seeds are at 0.5, 1 and 1.5 of the mean: a standard deviation of half of it
    top, bottom = traces[0]["y"][len(STEPS) - 1], traces[0]["y"][len(STEPS)]
    assert (top, bottom) == (pytest.approx(1.5 * lines[0]["y"][-1]), pytest.approx(top / 3))
    assert lines[0]["x"][1:] == [step * 2048 for step in STEPS[1:]]
    assert 0 < lines[0]["x"][0] < lines[0]["x"][1]
    (chance,) = (t for t in traces if t["name"] == "by chance")
    assert chance["y"] == [0.25, 0.25]


def test_one_run_has_the_error_of_its_evaluation(page: Any) -> None:
    capabilities = section(page, "capabilities")
    curves = drawn(figure(capabilities, "Capability over training tokens"))
    capabilities.get_by_label("Capability", exact=True).select_option(label="piqa · acc")
    band, line = curves.evaluate(DATA)
    assert line["name"] == "lab/d40" and line["y"] == [0.5, 0.6]
    assert band["y"] == pytest.approx([0.51, 0.61, 0.59, 0.49])
    assert "1 of 3 values have no number of tokens" in curves.locator("figcaption").inner_text()


def test_emergence_shows_what_was_tested_and_counts_the_rest(page: Any) -> None:
    capabilities = section(page, "capabilities")
    rows = capabilities.locator("tbody tr")
    outcomes = capabilities.locator("tbody .badge").all_inner_texts()
    assert [text.split()[1:] for text in outcomes] == [
        ["predicts"], ["associated"], ["not", "established"],
    ]  # fmt: skip
    first = rows.first.inner_text()
    assert "0.900" in first and "[0.700, 1.10]" in first  # lead
    assert "22k" in first and "[18k, 26.9k]" in first  # e^10, and e^(10 -+ 0.2)
    said = capabilities.inner_text()
    assert f"Of {EMERGENCE_ROWS} pairs of a quantity and a capability, 3 could be tested" in said
    assert "predicts 1, only associated 1, not established (p above 0.05) 1" in said
    assert "of 3 pairs asked at most 0.12 would be associated on average" in said
    assert "1 of the 3 here have q at most 0.05" in said
    assert "3 had to be left undetermined, most often (2): “2 runs, needs 5”" in said
    capabilities.get_by_label("Outcome").select_option("refused")
    assert rows.count() == 3
    with page.expect_download() as download:
        capabilities.get_by_role("button", name="Download CSV").last.click()
    assert {r["outcome"] for r in rows_of(download)} == {"refused"}
    capabilities.get_by_label("Outcome").select_option("tested")


@pytest.mark.slow
def test_colours_follow_the_theme_everywhere(page: Any) -> None:
    overlap = drawn(figure(section(page, "pairs"), "Agreement against the ratio of sizes"))
    paper = "(node) => node.querySelector('.plot').layout.paper_bgcolor"
    light = overlap.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    page.locator("html[data-theme=dark]").wait_for()
    assert overlap.evaluate(paper) != light
    page.emulate_media(color_scheme="light")


class Trial(TypedDict):
    """What became of a trial."""

    model: str
    bits: Annotated[float | None, "information in it"]
    tries: Annotated[int, "how often it was tried"]
    found: Annotated[bool, "whether anything was found"]
    names: Annotated[list[str], "what was found"]
    reason: str | None
    place: Annotated[str, "where it was made"]


def test_a_table_without_a_figure_is_shown_as_it_is(browser: Any, tmp_path: Path) -> None:
    rows = [
        {
            "model": "m" * (4000 if i == 7 else 3), "bits": None if i == 3 else (i * 37 % 240) / 7,
            "tries": 10_000 + i, "found": i % 2 == 0, "names": [f"n{k}" for k in range(i % 9)],
            "reason": "as <i>planned</i>" if i else None, "place": "a <b>lab</b>",
        }
        for i in range(240)
    ]  # fmt: skip
    given = {"trials": tables.encode(rows, tables.schema_of(Trial))}
    out = tmp_path / "report.html"
    write_report(given, title="t", facts={}, out=out, figures=FIGURES | {"trials": None})
    with opened(browser, out) as (page, _):
        page.get_by_role("navigation").get_by_role("link", name="Trials").click()
        shown = section(page, "rows-trials")
        assert "What became of a trial." in shown.inner_text()
        body = shown.locator("tbody")
        assert body.locator("tr").count() == 100
        first = body.locator("tr").first.locator("td").all_inner_texts()
        assert first == ["mmm", "0", "10,000", "yes", "–", ""]
        assert "In all rows: place a <b>lab</b>" in shown.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        bits = shown.get_by_role("button", name="bits")
        assert bits.get_attribute("title") == "information in it"
        bits.click()
        values = body.locator("tr td:nth-child(2)").all_inner_texts()
        assert [float(v) for v in values] == sorted(float(v) for v in values)
        shown.get_by_role("button", name="Show 140 more").click()
        assert body.locator("tr").count() == 240
        assert body.locator("tr").last.locator("td").nth(1).inner_text() == "–"
        cut = body.locator("[title^=mmmm]")
        assert len(cut.inner_text()) <= 60 and len(cut.get_attribute("title")) == 4000
        shown.get_by_text("What the columns say").click()
        assert "how often it was tried" in shown.locator("dl").inner_text()
        with page.expect_download() as download:
            shown.get_by_role("button", name="Download CSV").click()
        assert len(rows_of(download)) == 240


def test_evaluations_of_no_checkpoint_are_listed_by_reason(browser: Any, tmp_path: Path) -> None:
    row = {
        "file": "r.json", "model": None, "step": 1, "tokens": None, "task": "piqa",
        "metric": "acc", "value": 0.5, "reason": "the series has no model of this name",
    }  # fmt: skip
    lost = [row | {"value": None, "reason": "the value is <i>nan</i>"}]
    lost += [row | {"model": f"lab/m{i}"} for i in range(10)]
    given = {"unjoined": tables.encode(lost, SCHEMAS["unjoined"])}
    out = write_report(given, title="t", facts={}, out=tmp_path / "report.html")
    with opened(browser, out) as (page, _):
        found = section(page, "capabilities")
        assert "11 published values are joined with no checkpoint" in found.inner_text()
        cells = [line.locator("td").all_inner_texts() for line in found.locator("tbody tr").all()]
    names = ", ".join(f"lab/m{i}" for i in range(8))
    assert cells == [
        ["the series has no model of this name", f"{names} and 2 more", "piqa", "r.json", "10"],
        ["the value is <i>nan</i>", "–", "piqa", "r.json", "1"],
    ]
