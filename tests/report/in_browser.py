"""What the browser tests of the report share: a page that must stay silent, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
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

    def __init__(self, page: Any, report: Path) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.own = ("data:", "blob:", report.as_uri())
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def nothing(self) -> None:
        """Passes where nothing went wrong and nothing but the page itself was loaded."""
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(self.own)] == []


@contextmanager
def opened(browser: Any, report: Path) -> Generator[tuple[Any, Heard]]:
    """The report in a page of its own, which must stay silent and ask for nothing."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    heard = Heard(page, report)
    page.goto(report.as_uri())
    yield page, heard
    heard.nothing()
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


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Waits for what follows a moment later, at most ten seconds."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("did not come about within ten seconds")
