"""What the browser tests of the report share: a page that must stay silent, and where to look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # Ray's object store may fill /dev/shm
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


class Heard:
    """What a page said and asked for."""

    def __init__(self, page: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


def opened(browser: Any, report: Path) -> Iterator[Any]:
    """The report in a page of its own, which must stay silent and ask for nothing."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    heard = Heard(page)
    page.goto(report.as_uri())
    yield page
    assert heard.errors == []
    assert [url for url in heard.requests if not url.startswith(("data:", "blob:"))] == [
        report.as_uri()
    ]
    page.close()


def column(page: Any, name: str) -> list[str]:
    heads = page.locator("#verdict-table thead th").all_inner_texts()
    (index,) = (i for i, text in enumerate(heads, 1) if text.startswith(name))
    return page.locator(f"#verdict-table tbody tr > :nth-child({index})").all_inner_texts()


def in_view(page: Any, family: str) -> Any:
    page.bring_to_front()  # nothing comes into view on a page behind another
    section = page.locator(f"#family-{family}")
    section.evaluate("(node) => node.scrollIntoView({ behavior: 'instant' })")
    return section


def drawn(figure: Any) -> Any:
    figure.evaluate("(node) => node.scrollIntoView({ behavior: 'instant', block: 'center' })")
    figure.locator(".main-svg").first.wait_for()
    return figure


def figure(section: Any, title: str) -> Any:
    return section.locator("figure").filter(has=section.page.get_by_role("heading", name=title))
