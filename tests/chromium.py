"""Debian's Chromium without a screen, for the tests of pages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDS_CHROMIUM = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium (apt-get install chromium chromium-driver)"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,800",
)  # fmt: skip


def open_browser(profile: Path) -> Any:
    """A driver of selenium with the browser's log; to be quit by the caller."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    return driver


class BrowserPage:
    """An open page: what stands on it, and waiting for what will."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def all(self, selector: str) -> list[Any]:
        """The elements that a CSS selector finds."""
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def wait(self, ready: Callable[[], Any]) -> Any:
        """What ``ready`` gives as soon as it is true; within a minute."""
        deadline = time.monotonic() + 60
        while not (found := ready()):
            assert time.monotonic() < deadline, self.browser.get_log("browser")
            time.sleep(0.05)
        return found
