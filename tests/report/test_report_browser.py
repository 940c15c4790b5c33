"""The page in Chromium: it draws, sorts, filters and asks nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.report import write_report
from tests.report.in_browser import Heard, column, drawn, figure, in_view, opened
from tests.report.synthetic_tables import (
    NUM_VERDICTS,
    QUANTITIES,
    SIZES,
    measurement,
    synthetic,
    verdict,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "report.html"
    return write_report(synthetic(), title="Synthetic", facts={"Series": "ladder"}, out=out)


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    yield from opened(browser, report)


@pytest.fixture(scope="module")
def figures(browser: Any, report: Path) -> Iterator[Any]:
    """One page for all tests of figures: each of them chooses the family it looks at."""
    yield from opened(browser, report)


def changes(found: list[str]) -> list[float]:
    return [float(text.removesuffix(" %")) for text in found]


def head(page: Any, name: str) -> Any:
    return page.locator("#verdict-table thead th").filter(has_text=name)


def test_every_family_draws_its_figures(figures: Any) -> None:
    for family in sorted({row[0] for row in QUANTITIES}):
        section = in_view(figures, family)
        scale = drawn(figure(section, "Value against parameters"))
        assert scale.locator(".scatterlayer .trace").count() >= 4
        assert scale.locator(".errorbar").count() > 0
        track = drawn(figure(section, "Value over training"))
        assert track.locator(".scatterlayer .trace").count() == len(SIZES)
    curves = drawn(figure(figures.locator("#family-topology"), "Curves"))
    assert curves.locator(".scatterlayer .trace").count() == 2 * len(SIZES)  # bands and lines
    poles = drawn(figure(figures.locator("#family-holomorphy"), "Poles in the complex plane"))
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
    assert page.evaluate("document.activeElement.textContent") == "Family"
    before = column(page, "Family")
    page.keyboard.press("Enter")
    assert column(page, "Family") == sorted(before) != before
    page.keyboard.press("Space")
    assert column(page, "Family") == sorted(before, reverse=True)
    assert page.evaluate("document.activeElement.textContent") == "Family"


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


def small(browser: Any, tmp_path: Path, *verdicts: dict[str, Any], power: float = 0.5) -> Any:
    """A report of one quantity N^power at two steps, with these verdicts."""
    rows = [
        measurement(model=f"d{w}-{seed}", n_params=n, seed=seed, step=step, value=value)
        for w, n in SIZES.items()
        for seed in (0, 1)
        for step in (10, 300)
        for value in [step * n**power * (1.0, 1.21)[seed]]
    ]
    run = {
        "measurements": tables.encode(rows, tables.MEASUREMENTS),
        "verdicts": tables.encode(verdicts, tables.VERDICTS),
    }
    out = write_report(run, title="Small", facts={}, out=tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(out.as_uri())
    return page


def lines(page: Any) -> dict[str, Any]:
    """What is drawn against parameters: name -> trace."""
    drawn(figure(page.locator("#family-topology"), "Value against parameters"))
    data = "() => document.querySelector('.plot').data.map(({name, x, y}) => [name, {x, y}])"
    return dict(page.evaluate(data))


def test_with_a_unit_changes_are_amounts(browser: Any, tmp_path: Path) -> None:
    row = verdict(unit=0.5, certified_change=0.072, margin=0.1, exponent=0.02, exponent_low=0.0)
    page = small(browser, tmp_path, row)
    assert column(page, "Certified") == ["0.0360 (unit 0.5)"]
    assert "0.0100 per ln N" in column(page, "Exponent / slope")[0]
    card = page.locator(".card").inner_text()
    assert "0.0500 (unit 0.5)" in card and "Slope per ln N" in card and "%" not in card
    page.close()


def test_controls_are_shown_on_request(browser: Any, tmp_path: Path) -> None:
    page = small(browser, tmp_path, verdict(control=False), verdict(quantity="null", control=True))
    assert column(page, "Quantity") == ["total_persistence_1"]
    page.locator("#filter-controls").check()
    assert [text.split() for text in column(page, "Quantity")][1] == ["null", "control"]
    page.close()


def test_what_was_refused_throughout_is_a_row_without_a_figure(
    browser: Any, tmp_path: Path
) -> None:
    empty = {"step": None, "form": None, "margin": None, "n_models": 0, "n_seeds": 0}
    page = small(browser, tmp_path, verdict(quantity="lost", n_refused=12, **empty))
    assert column(page, "Verdict")[0].split() == ["?", "undetermined"]
    assert column(page, "Seeds")[0].split() == ["0", "12", "refused"]
    assert page.locator("#verdict-table tbody a").count() == 0
    assert page.locator(".card").count() == 0
    page.close()


def test_fit_and_card_belong_to_the_step_judged(browser: Any, tmp_path: Path) -> None:
    law = {"form": "power", "exponent": 0.5}
    rows = [verdict(comparison="equal_loss", step=None, **law), verdict(**law)]
    page = small(browser, tmp_path, *rows)
    fit = lines(page)["fit: N^0.500"]
    # geometric mean of 1 and 1.21 is 1.1; the arithmetic one is 1.105
    expected = [300 * 1.1 * n**0.5 for n in (fit["x"][0], fit["x"][-1])]
    assert [fit["y"][0], fit["y"][-1]] == pytest.approx(expected, rel=1e-4)
    assert lines(page)["trained"]["y"][0] == pytest.approx(expected[0], rel=1e-4)
    assert "equal steps" in page.locator(".cards > .card").inner_text()
    page.locator("select[data-key=step]").select_option("10")
    assert "trained" in lines(page) and not [name for name in lines(page) if "fit" in name]
    assert page.locator(".cards > .card").count() == 0
    assert "no verdict on the step shown" in page.locator(".cards").inner_text()
    page.close()


def test_every_form_of_two_coefficients_is_drawn(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    page = small(browser, tmp_path, verdict(form="log", exponent=0.5), power=0.02)
    (name,) = (name for name in lines(page) if name.startswith("fit: a + "))
    fit = lines(page)[name]
    expected = [300 * 1.1 * n**0.02 for n in (fit["x"][0], fit["x"][-1])]
    assert [fit["y"][0], fit["y"][-1]] == pytest.approx(expected, rel=1e-3)
    page.close()
    # slope 2 units of 0.25 per ln N, through the arithmetic mean 300 * 1.105
    row = verdict(form="log", exponent=2.0, unit=0.25)
    page = small(browser, tmp_path / "unit", row, power=0.0)
    fit = lines(page)["fit: a + 0.500 ln N"]
    rise = 0.5 * math.log(SIZES[128] / SIZES[32])
    assert fit["y"][-1] - fit["y"][0] == pytest.approx(rise, rel=1e-4)
    assert "arithmetic" in page.locator("figcaption").first.inner_text()
    page.close()
    page = small(browser, tmp_path, verdict(form="constant", exponent=0.0), power=0.0)
    assert lines(page)["fit: constant 330"]["y"] == pytest.approx([330] * 41, rel=1e-4)
    page.close()


def test_other_comparisons_are_one_click_away(browser: Any, tmp_path: Path) -> None:
    rows = [verdict(comparison=name, verdict="scales") for name in ("equal_loss", "equal_steps")]
    run = {
        "measurements": tables.encode([measurement()], tables.MEASUREMENTS),
        "verdicts": tables.encode(rows, tables.VERDICTS),
    }
    out = write_report(run, title="Two", facts={}, out=tmp_path / "report.html")
    page = browser.new_page()
    page.goto(out.as_uri())
    assert column(page, "Comparison") == ["equal steps"]
    page.locator("#filter-comparison").select_option("all")
    assert sorted(column(page, "Comparison")) == ["equal loss", "equal steps"]
    page.close()


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
    assert scale.evaluate(ink) == light


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


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_is_as_wide_as_the_window(figures: Any, width: int) -> None:
    figures.set_viewport_size({"width": width, "height": 800})
    drawn(figure(in_view(figures, "weights"), "Value against parameters"))
    for _ in range(50):  # figures follow the window a moment later
        if figures.evaluate("document.documentElement.scrollWidth") <= width:
            break
        figures.wait_for_timeout(100)
    assert figures.evaluate("document.documentElement.scrollWidth") <= width


def test_an_empty_run_opens(browser: Any, tmp_path: Path) -> None:
    out = write_report({}, title="Empty", facts={}, out=tmp_path / "report.html")
    page = browser.new_page()
    heard = Heard(page)
    page.goto(out.as_uri())
    assert page.locator("#count").inner_text() == "This run has no verdicts."
    assert "no measurements" in page.locator("#families").inner_text()
    assert heard.errors == []
    page.close()
