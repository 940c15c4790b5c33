"""Draws the pictures of the docs that show a report. Wants chromium and playwright.

.venv/bin/python scripts/site/report_figures.py runs/demo/report.html
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[2] / "docs"
WIDTH = 1200
HEIGHTS = {"report": 905, "picture": 620}


def chosen(page: Any, family: str, **choices: str) -> Any:
    """A family's section with what is chosen in it."""
    section = page.locator(f"#family-{family}")
    section.scroll_into_view_if_needed()
    section.locator("figure").first.wait_for()
    for key, value in choices.items():
        section.locator(f"select[data-key={key}]").select_option(value)
    return section


def draw(section: Any, title: str, out: Path) -> None:
    """A figure of a section by its heading."""
    heading = section.page.get_by_role("heading", name=title)
    figure = section.locator("figure").filter(has=heading)
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    section.page.wait_for_timeout(500)  # the last transition
    figure.screenshot(path=out)


def main(report: Path) -> None:
    """Writes report.png and the figures of the gallery that a report has."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        size = {"width": WIDTH, "height": HEIGHTS["report"]}
        page = browser.new_page(viewport=size, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.screenshot(path=DOCS / "report.png")
        page.locator("#picture").evaluate("(node) => node.scrollIntoView()")
        box = page.locator("#picture").bounding_box()
        clip = {**box, "height": HEIGHTS["picture"]}
        page.screenshot(path=DOCS / "figures" / "forest.png", clip=clip)
        behaviour = chosen(page, "behaviour", quantity="behaviour.capabilities\ncopying_gain")
        draw(behaviour, "Value against parameters", DOCS / "figures" / "learned.png")
        draw(behaviour, "Value over training", DOCS / "figures" / "training.png")
        draw(chosen(page, "holomorphy"), "Curves over sizes", DOCS / "figures" / "curves.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
