"""One Chromium for all browser tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.report.in_browser import ARGUMENTS


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()
