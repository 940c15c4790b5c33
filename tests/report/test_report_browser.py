"""The page in Chromium: it draws, sorts, filters and asks nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from tests.report.in_browser import column, drawn, figure, in_view, opened, until
from tests.report.pages import write_report
from tests.report.synthetic_across import across
from tests.report.synthetic_tables import (
    NUM_VERDICTS,
    QUANTITIES,
    SIZES,
    measurement,
    synthetic,
    values_of,
    verdict,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def board(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report) as (page, _):
        yield page


@pytest.fixture
def page(board: Any) -> Any:
    """The page as it opens."""
    board.bring_to_front()
    board.goto(board.url.partition("#")[0])  # a reload would keep what was typed
    return board


def changes(found: list[str]) -> list[float]:
    """In per cent of the value, or of the unit declared."""
    parts = [text.partition(" (unit ") for text in found]
    return [
        100 * float(value) / float(unit.removesuffix(")")) if unit else float(value[:-2])
        for value, _, unit in parts
    ]


def head(page: Any, name: str) -> Any:
    return page.locator("#verdict-table thead th").filter(has_text=name)


FAMILIES = sorted({row[0] for row in QUANTITIES})
TELLING = ("topology", "weights")  # with transitions; with roles


@pytest.mark.parametrize(
    "family", [f if f in TELLING else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_every_family_draws_its_figures(figures: Any, family: str) -> None:
    section = in_view(figures, family)
    section.locator("select[data-key=quantity]").select_option(index=0)
    scale = drawn(figure(section, "Value against parameters"))
    assert scale.locator(".scatterlayer .trace").count() >= 4
    assert scale.locator(".errorbar").count() > 0
    track = drawn(figure(section, "Value over training"))
    # gride is refused at a layer of the smallest size, which then does not count over the depth
    counted = len(SIZES) - (family == "geometry")
    assert track.locator(".scatterlayer .trace").count() == counted


def test_curves_and_poles_are_drawn(figures: Any) -> None:
    curves = drawn(figure(in_view(figures, "topology"), "Curves over sizes"))
    assert curves.locator(".scatterlayer .trace").count() == 2 * len(SIZES)  # bands and lines
    poles = drawn(figure(in_view(figures, "holomorphy"), "Poles in the complex plane"))
    assert poles.locator(".scatterlayer .points path").count() > 1000


def test_figures_out_of_view_are_not_drawn(page: Any) -> None:
    assert page.locator(".main-svg").count() == 0
    assert page.evaluate("typeof Plotly") == "undefined"


def test_the_default_view_is_the_whole_depth(page: Any) -> None:
    assert column(page, "Depth") == ["whole"] * len(QUANTITIES)
    page.locator("#filter-depth label").filter(has_text="every").click()
    assert len(column(page, "Depth")) == 4 * len(QUANTITIES)
    page.locator("#filter-roles").check()
    assert len(column(page, "Depth")) == NUM_VERDICTS


def test_a_click_sorts_and_another_reverses(page: Any) -> None:
    before = column(page, "Conservation")
    head(page, "Conservation error").get_by_role("button").click()
    up = column(page, "Conservation")
    assert up != before
    assert changes(up) == sorted(changes(before))
    assert head(page, "Conservation error").get_attribute("aria-sort") == "ascending"
    head(page, "Conservation error").get_by_role("button").click()
    assert column(page, "Conservation") == up[::-1]
    assert head(page, "Conservation error").get_attribute("aria-sort") == "descending"
    assert page.locator("th[aria-sort=ascending]").count() == 0


def test_the_keyboard_sorts(page: Any) -> None:
    page.locator("#filter-q").focus()
    page.keyboard.press("Tab")  # the region that scrolls
    page.keyboard.press("Tab")  # the first heading
    assert page.evaluate("document.activeElement.textContent") == "Verdict"
    page.keyboard.press("Tab")
    before = column(page, "Quantity")
    page.keyboard.press("Enter")
    assert column(page, "Quantity") == sorted(before) != before
    page.keyboard.press("Space")
    assert column(page, "Quantity") == sorted(before, reverse=True)
    assert page.evaluate("document.activeElement.textContent") == "Quantity"


def test_filters_stand_in_the_address_and_come_back_from_it(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, heard):
        page.locator("#filter-verdict").select_option("scales")
        page.locator("#search").fill("rank")
        address = page.evaluate("location.href")
        shown = column(page, "Quantity")
        page.locator("#search").fill("")
        assert column(page, "Quantity") != shown
        assert page.evaluate("location.hash") == "#verdicts?filter-verdict=scales"
    with opened(browser, report) as (page, heard):
        # what this run does not have is left as it is
        page.goto(f"{address}&filter-family=nothing")
        page.reload()
        assert column(page, "Quantity") == shown
        assert page.locator("#filter-family").input_value() == ""
        heard.requests.clear()  # the page itself, by another address


def test_verdict_and_quantity_stay_in_view_on_a_phone(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        page.set_viewport_size({"width": 420, "height": 900})
        scroll = page.locator("#verdicts .scroll")
        scroll.evaluate("(node) => { node.scrollLeft = 900; }")
        first = page.locator("#verdict-table tbody tr").first.locator(":scope > *")
        for i in (0, 1):
            box = first.nth(i).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 420
        badge = page.locator("#verdict-table .badge.undetermined").first.bounding_box()
        cell = first.nth(0).bounding_box()
        assert badge["x"] + badge["width"] <= cell["x"] + cell["width"]


def test_on_a_phone_the_first_screen_has_finding_and_verdicts(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        parts = page.locator("details.phone")
        assert all(part.get_attribute("open") is not None for part in parts.all())
        assert page.locator("#filters").is_visible()
        page.set_viewport_size({"width": 420, "height": 900})
        until(page, lambda: page.locator("details.phone[open]").count() == 0)
        lead = page.locator(".summary .lead").bounding_box()
        first = page.locator("#verdict-table tbody .badge").first.bounding_box()
        assert lead["y"] + lead["height"] < first["y"] < 900 - first["height"]
        page.get_by_text("Search and filter").click()
        assert page.locator("#filters").is_visible()
        page.set_viewport_size({"width": 1280, "height": 900})
        until(page, lambda: page.locator("details.phone:not([open])").count() == 0)


def test_what_is_filtered_by_its_address_shows_the_filters_on_a_phone(
    browser: Any, report: Path
) -> None:
    with opened(browser, report) as (page, heard):
        page.set_viewport_size({"width": 420, "height": 900})
        page.goto(f"{report.as_uri()}#verdicts?filter-verdict=scales")
        page.reload()
        assert page.locator("#filter-verdict").is_visible()
        assert not page.locator(".help dl").is_visible()
        heard.requests.clear()  # the page itself, by another address


def test_search_and_filters_narrow_the_table(page: Any) -> None:
    page.locator("#search").fill("PERSISTENCE_1")
    assert column(page, "Quantity") == ["total_persistence_1"]
    assert page.locator("#count").inner_text() == f"1 of {NUM_VERDICTS} verdicts shown"
    page.locator("#search").fill("")
    page.locator("#filter-family").select_option("weights")
    assert set(column(page, "Family")) == {"weights"}
    page.locator("#filter-verdict").select_option("scales")
    assert column(page, "Quantity") == ["stable_rank"]
    page.locator("#filter-null").select_option("learned")
    assert column(page, "Quantity") == []


LAW = {"form": "power", "exponent": 0.5}
NOTHING = {"step": None, "form": None, "margin": None, "n_models": 0, "n_seeds": 0}
JUDGED = (
    verdict(quantity="sqrt", comparison="equal_loss", step=None, **LAW),
    verdict(quantity="sqrt", **LAW),
    verdict(
        quantity="amount",
        unit=0.5,
        certified_change=0.072,
        conservation_error=17.7,
        exponent=0.02,
        exponent_low=0.0,
    ),
    verdict(quantity="logarithm", form="log", exponent=0.5),
    # slope 2 units of 0.25 per ln N, through the arithmetic mean 300 * 1.105
    verdict(quantity="line", form="log", exponent=2.0, unit=0.25),
    verdict(quantity="level", form="constant", exponent=0.0),
    verdict(quantity="null", control=True),
    verdict(quantity="lost", verdict="refused", n_refused=12, **NOTHING),
    verdict(quantity="elsewhere", verdict="not_asked", **NOTHING),
)
POWERS = {"sqrt": 0.5, "amount": 0.5, "logarithm": 0.02, "line": 0.0, "level": 0.0}


@pytest.fixture(scope="module")
def cases(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Quantities N^power at two steps, with the verdicts above."""
    rows = [
        measurement(model=f"d{w}-{seed}", n_params=n, seed=seed, step=step, value=value, quantity=q)
        for q, power in POWERS.items()
        for w, n in SIZES.items()
        for seed in (0, 1)
        for step in (10, 300)
        for value in [step * n**power * (1.0, 1.21)[seed]]
    ]
    table = tables.encode(rows, tables.MEASUREMENTS)
    run = {
        "measurements": table,
        "values": values_of(table),
        "verdicts": tables.encode(JUDGED, SCHEMAS["verdicts"]),
    }
    out = tmp_path_factory.mktemp("cases") / "report.html"
    with opened(browser, write_report(run, title="Cases", facts={}, out=out)) as (page, _):
        yield page


def searched(page: Any, quantity: str) -> Any:
    """The table with the rows of one quantity only."""
    page.bring_to_front()
    page.locator("#search").fill(quantity)
    return page


def chosen(page: Any, quantity: str) -> Any:
    """The figures of one quantity."""
    section = in_view(page, "topology")
    label = f"persistence · {quantity}"
    section.locator("select[data-key=quantity]").select_option(label=label)
    return section


def lines(section: Any) -> dict[str, Any]:
    """What is drawn against parameters: name -> trace."""
    scale = drawn(figure(section, "Value against parameters"))
    data = "(node) => node.querySelector('.plot').data.map(({name, x, y}) => [name, {x, y}])"
    return dict(scale.evaluate(data))


def test_with_a_unit_changes_are_amounts(cases: Any) -> None:
    page = searched(cases, "amount")
    assert column(page, "Certified") == ["0.0360 (unit 0.5)"]
    assert "0.0100 per ln N" in column(page, "Exponent / slope")[0]
    card = chosen(page, "amount").locator(".card").inner_text()
    assert "0.0500 (unit 0.5)" in card and "Slope per ln N" in card and "%" not in card
    assert "8.85 (unit 0.5)" in card  # the error of conservation: a ratio would be 1770 %


def test_what_has_no_value_says_whether_it_was_asked_for(cases: Any) -> None:
    for quantity, kind in (("lost", "refused"), ("elsewhere", "not asked")):
        page = searched(cases, quantity)
        assert page.locator(f"#verdict-table .badge.{kind.replace(' ', '-')}").count() == 1
        page.locator("#filter-verdict").select_option(kind)
        assert column(page, "Quantity")[0].startswith(quantity)
        page.locator("#filter-verdict").select_option("")


def test_controls_are_shown_on_request(cases: Any) -> None:
    page = searched(cases, "")
    before = column(page, "Quantity")
    assert "level" in before and not [text for text in before if text.startswith("null")]
    page.locator("#filter-controls").check()
    assert ["null", "control"] in [text.split() for text in column(page, "Quantity")]
    page.locator("#filter-controls").uncheck()


def test_what_was_refused_throughout_is_a_row_without_a_figure(cases: Any) -> None:
    page = searched(cases, "lost")
    assert column(page, "Verdict")[0].split() == ["–", "refused"]
    assert column(page, "Seeds")[0].split() == ["0", "12", "refused"]
    assert page.locator("#verdict-table tbody a").count() == 0
    options = in_view(page, "topology").locator("select[data-key=quantity] option")
    assert options.count() == len(POWERS)


def test_what_does_not_count_has_no_point_and_says_why(figures: Any) -> None:
    section = in_view(figures, "geometry")
    section.locator("select[data-key=quantity]").select_option(label="dimension · gride")
    assert lines(section)["trained"]["x"] == [SIZES[width] for width in (64, 96, 128)]
    scale = figure(section, "Value against parameters")
    reason = "num_points: got 200, needs 1600"
    who = "3 trained, 3 random init, 3 shuffled weights, 3 shuffled tokens at 120k"
    assert f"Not counted: {who} ({reason})." in scale.locator("figcaption").inner_text()
    scale.locator("summary").click()
    # the fold fills itself when it is open
    scale.locator(".numbers", has_text=f"Not counted: {who}: {reason}").wait_for()
    # its other layers are whole in their thirds
    section.locator("select[data-key=bin]").select_option("late")
    assert lines(section)["trained"]["x"] == list(SIZES.values())
    assert "Not counted" not in scale.locator("figcaption").inner_text()
    scale.locator("summary").click()
    section.locator("select[data-key=bin]").select_option("all")


def test_fit_and_card_belong_to_the_step_judged(cases: Any) -> None:
    section = chosen(cases, "sqrt")
    fit = lines(section)["fit: N^0.500"]
    # geometric mean of 1 and 1.21 is 1.1; the arithmetic one is 1.105
    expected = [300 * 1.1 * n**0.5 for n in (fit["x"][0], fit["x"][-1])]
    assert [fit["y"][0], fit["y"][-1]] == pytest.approx(expected, rel=1e-4)
    assert lines(section)["trained"]["y"][0] == pytest.approx(expected[0], rel=1e-4)
    assert "equal steps" in section.locator(".cards > .card").inner_text()
    section.locator("select[data-key=step]").select_option("10")
    shown = lines(section)
    assert "trained" in shown and not [name for name in shown if "fit" in name]
    assert section.locator(".cards > .card").count() == 0
    assert "no verdict on the step shown" in section.locator(".cards").inner_text()


def test_every_form_of_two_coefficients_is_drawn(cases: Any) -> None:
    shown = lines(chosen(cases, "logarithm"))
    (name,) = (name for name in shown if name.startswith("fit: a + "))
    fit = shown[name]
    expected = [300 * 1.1 * n**0.02 for n in (fit["x"][0], fit["x"][-1])]
    assert [fit["y"][0], fit["y"][-1]] == pytest.approx(expected, rel=1e-3)
    section = chosen(cases, "line")
    fit = lines(section)["fit: a + 0.500 ln N"]
    rise = 0.5 * math.log(SIZES[128] / SIZES[32])
    assert fit["y"][-1] - fit["y"][0] == pytest.approx(rise, rel=1e-4)
    assert "arithmetic" in section.locator("figcaption").first.inner_text()
    fit = lines(chosen(cases, "level"))["fit: constant 330"]
    assert fit["y"] == pytest.approx([330] * 41, rel=1e-4)


def test_other_comparisons_are_one_click_away(cases: Any) -> None:
    page = searched(cases, "sqrt")
    assert column(page, "Comparison") == ["equal steps"]
    page.locator("#filter-comparison").select_option("all")
    assert sorted(column(page, "Comparison")) == ["equal loss", "equal steps"]
    page.locator("#filter-comparison").select_option("equal_steps")


def test_another_quantity_redraws(figures: Any) -> None:
    section = in_view(figures, "geometry")
    scale = drawn(figure(section, "Value against parameters"))
    points = "(node) => node.querySelector('.plot').data[0].y"
    title = scale.locator(".ytitle").first
    before, name = scale.evaluate(points), title.text_content()
    other = "gride" if name == "twonn" else "twonn"
    section.locator("select[data-key=quantity]").select_option(label=f"dimension · {other}")
    scale.locator(".ytitle").filter(has_text=other).wait_for()
    assert scale.evaluate(points) != before


def test_a_quantity_of_the_table_leads_to_its_figure(page: Any) -> None:
    page.get_by_role("link", name="rankme").click()
    section = page.locator("#family-representation")
    assert section.locator("select[data-key=quantity]").input_value().endswith("rankme")
    assert "scales" in section.locator(".card").inner_text()


def test_legend_hides_a_variant_by_keyboard(figures: Any) -> None:
    scale = drawn(figure(in_view(figures, "weights"), "Value against parameters"))
    traces = scale.locator(".scatterlayer .trace")
    before = traces.count()
    button = scale.get_by_role("button", name="random init")
    button.focus()
    figures.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert traces.count() == before - 1


def test_theme_follows_the_system_and_the_button(figures: Any) -> None:
    scale = drawn(figure(in_view(figures, "weights"), "Value against parameters"))
    ink = "(node) => node.querySelector('.plot').layout.font.color"
    light = scale.evaluate(ink)
    figures.emulate_media(color_scheme="dark")
    figures.locator("html[data-theme=dark]").wait_for()
    assert scale.evaluate(ink) != light
    figures.locator("#theme").click()  # auto to light
    assert figures.evaluate("document.documentElement.dataset.theme") == "light"
    drawn(scale)  # the button is far from it: it follows when it is seen again
    until(figures, lambda: scale.evaluate(ink) == light)
    figures.emulate_media(color_scheme="light")
    for _ in ("dark", "auto"):
        figures.locator("#theme").click()
    assert figures.evaluate("document.documentElement.dataset.choice") == "auto"


def saved(page: Any, button: Any) -> list[str]:
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_text(encoding="utf-8").splitlines()


def test_csv_holds_what_is_shown_or_every_verdict(page: Any) -> None:
    page.locator("#filter-family").select_option("topology")
    head(page, "Quantity").get_by_role("button").click()
    shown = saved(page, page.locator("#csv"))
    at = shown[0].split(",").index("quantity")
    assert [line.split(",")[at] for line in shown[1:]] == column(page, "Quantity")
    lines = saved(page, page.locator("#csv-all"))
    assert len(lines) == 1 + NUM_VERDICTS
    assert lines[0].startswith("series,probe,family,invariant,quantity")
    assert lines[0].endswith("reason")


@pytest.mark.parametrize("width", [400, pytest.param(1280, marks=pytest.mark.slow)])
def test_the_page_is_as_wide_as_the_window(figures: Any, width: int) -> None:
    figures.set_viewport_size({"width": width, "height": 800})
    drawn(figure(in_view(figures, "weights"), "Value against parameters"))
    wide = "document.documentElement.scrollWidth"
    until(figures, lambda: figures.evaluate(wide) <= width)
    assert figures.evaluate(wide) <= width
    figures.set_viewport_size({"width": 1280, "height": 900})


LONG = "x" * 4000
NAMED = {"series", "model", "model_a", "model_b", "probe", "task"}


def with_long_names(table: pa.Table) -> pa.Table:
    """The table with names of four thousand letters wherever a user gives one."""
    table = table.cast(tables.plain(table.schema))
    for name in NAMED & set(table.column_names):
        if table[name].null_count < table.num_rows:
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, pc.binary_join_element_wise(table[name], LONG, ""))
    return table


def test_long_names_are_cut_and_whole_in_their_title(browser: Any, tmp_path: Path) -> None:
    given = {name: with_long_names(t) for name, t in (synthetic() | across()).items()}
    report = write_report(given, title=f"t{LONG}", facts={"models": LONG}, out=tmp_path / "r.html")
    with opened(browser, report) as (page, _):
        drawn(figure(in_view(page, "topology"), "Value against parameters"))
        for section in ("pairs", "classes", "capabilities", "transitions", "model"):
            page.locator(f"#{section}").evaluate("(node) => node.scrollIntoView()")
            page.locator(f"#{section}-body .waiting").wait_for(state="detached")
        until(page, lambda: page.locator("#model-body table tbody tr").count() > 0)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        cells = page.locator("#transitions-body tbody tr").first.locator("[title]")
        whole = [cell.get_attribute("title") for cell in cells.all()]
        assert {title.removesuffix(LONG) for title in whole} >= {"d32", "prose"}
        assert all(len(cell.inner_text()) <= 60 for cell in cells.all())
        # of the picture a cell is the axis, not a name
        cells = "[...document.querySelectorAll('td:not(.forest *), th:not(.forest *), select')]"
        assert page.evaluate(f"Math.max(...{cells}.map((node) => node.offsetWidth))") < 600
