"""One Chromium, one report and one page of it for all browser tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.in_browser import ARGUMENTS, Heard, opened
from tests.report.pages import write_report
from tests.report.synthetic_across import across
from tests.report.synthetic_tables import synthetic


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "report.html"
    return write_report(synthetic() | across(), title="Synthetic", facts={}, out=out)


@pytest.fixture(scope="session")
def shared(browser: Any, report: Path) -> Iterator[tuple[Any, Heard]]:
    with opened(browser, report) as found:
        yield found


@pytest.fixture
def figures(shared: tuple[Any, Heard]) -> Iterator[Any]:
    """The page that all tests of figures share: each chooses what it looks at."""
    page, heard = shared
    page.bring_to_front()
    yield page
    heard.nothing()
