"""A picture of a comparison's page, as a browser shows it: ``docs/compare.png``.

    tasktokens compare quick data.train=80 data.test=24 --steps 30 --out runs/compare/docs
    python benchmarks/compare_screenshot.py runs/compare/docs/report.html docs/compare.png

Needs Chromium (``apt-get install chromium``). The page needs no network, and the browser gets none.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def screenshot(page: Path, picture: Path, width: int, height: int, dark: bool = False) -> None:
    """Write what a browser window of (width, height) pixels shows of a page. Raises `SystemExit` without a browser."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as profile:
        scheme = "--blink-settings=preferredColorScheme=" + ("0" if dark else "1")
        size = f"--window-size={width},{height}"
        command = [browser, *QUIET, f"--user-data-dir={profile}", scheme, size, f"--screenshot={picture.resolve()}"]
        subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)


def main() -> None:
    """Take the screenshot that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    if not arguments.page.is_file():
        sys.exit(f"{arguments.page} does not exist; make it with tasktokens compare")
    screenshot(arguments.page, arguments.picture, arguments.width, arguments.height, arguments.dark)


if __name__ == "__main__":
    main()
