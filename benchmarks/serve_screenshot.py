"""Pictures of the page and of the API's description, as a browser shows them: ``docs/serve.png``, ``serve_api.png``.

    python benchmarks/serve_screenshot.py runs/mine photo.jpg docs/serve.png --api docs/serve_api.png

Serves the model on a free port, drops the image on the page, clicks a pixel and takes the pictures. Needs Chromium with
its driver (``apt-get install chromium chromium-driver``), selenium, and the extra ``serve``.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from compare_screenshot import BROWSERS, QUIET


def open_browser(profile: str, width: int, height: int, dark: bool) -> Any:
    """A Chromium without a screen. Raises `SystemExit` where there is none."""
    from selenium import webdriver

    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        sys.exit("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.binary_location = browser
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return found


def wait(ready: Callable[[], Any]) -> Any:
    """What ``ready`` gives, as soon as it gives something."""
    deadline = time.monotonic() + 60
    while not (found := ready()):
        if time.monotonic() > deadline:
            sys.exit("the page does not show what it should")
        time.sleep(0.1)
    return found


def save(browser: Any, picture: Path) -> None:
    """The window as a PNG of at most 256 colours, a third of the bytes."""
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    shot.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def show_page(browser: Any, address: str, image: Path, across: float, down: float, threshold: float) -> None:
    """Drop the image, set the threshold and click a pixel."""
    from selenium.webdriver import ActionChains

    def find(selector: str) -> list[Any]:
        found: list[Any] = browser.find_elements("css selector", selector)
        return found

    browser.get(address)
    wait(lambda: find("#upload input[type=file]"))[0].send_keys(str(image.resolve()))
    wait(lambda: find("figure[data-task=image]"))
    if threshold:
        number = find("#threshold input[type=number]")[0]
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        browser.execute_script(script, number, str(threshold))
        time.sleep(2)
    frame = find(".tt-frame")[0]
    size = frame.size
    x, y = int((across - 0.5) * size["width"]), int((down - 0.5) * size["height"])
    ActionChains(browser).move_to_element_with_offset(frame, x, y).click().perform()
    wait(lambda: find(".tt-pixel"))
    time.sleep(0.5)


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--api", type=Path, help="also a picture of the API's description")
    parser.add_argument(
        "--at", type=float, nargs=2, default=(0.5, 0.6), help="where to click, shares of width and height"
    )
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "tasktokens.cli", "serve", str(arguments.model), "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            found = re.match(r"http://\S+", server.stdout.readline())
            if found is None:
                sys.exit("the server did not start; its message stands above")
            browser = open_browser(profile, arguments.width, arguments.height, arguments.dark)
            show_page(browser, found[0], arguments.image, *arguments.at, arguments.threshold)
            save(browser, arguments.picture)
            if arguments.api is not None:
                browser.get(found[0] + "docs")
                wait(lambda: browser.find_elements("css selector", ".opblock-summary"))[0].click()
                wait(lambda: browser.find_elements("css selector", ".try-out__btn"))[0].click()
                wait(lambda: browser.find_elements("css selector", "input[type=file]"))
                save(browser, arguments.api)
            browser.quit()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
