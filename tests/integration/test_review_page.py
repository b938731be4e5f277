"""The review page in a real browser: Debian's Chromium without a screen, driven by keys and by the mouse."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromium import NEEDS_CHROMIUM, BrowserPage, open_browser
from fakes.discovered import snapshot, sources, stored, write_completed, write_discovered
from tasktokens.review.decisions import open_decisions
from tasktokens.review.server import serve

pytestmark = [
    NEEDS_CHROMIUM,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the server is a fork of this process"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


class Served:
    """A server in a process of its own, which can be killed."""

    def __init__(self, folder: Path) -> None:
        reading, writing = os.pipe()
        self.process = os.fork()
        if not self.process:
            try:
                serve(folder, port=0, announce=lambda address: os.write(writing, f"{address}\n".encode()) and None)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.address = pipe.readline().strip()

    def kill(self) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
            self.process = 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_discovered(tmp_path / "found")


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Page]:
    served = Served(folder)
    yield Page(browser, served)
    served.kill()


class Page(BrowserPage):
    """What a person does: look, press keys, draw."""

    def __init__(self, browser: Any, served: Served) -> None:
        super().__init__(browser)
        self.served = served
        browser.get("about:blank")
        browser.get(served.address)
        self.wait(lambda: self.all(".card"))

    def text(self, selector: str) -> str:
        return str(self.browser.find_element("css selector", selector).get_property("textContent"))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.find_element("css selector", "body").send_keys(key)

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def is_open(self, id: str, task: str) -> bool:
        opened = self.text("#name") == id and self.text("#reason").startswith(task)
        return opened and bool(self.run("return view !== null"))

    def pixels(self) -> Any:
        """What the canvas shows, (H, W, 3)."""
        size = "0, 0, canvas.width, canvas.height"
        script = f"const data = canvas.getContext('2d').getImageData({size}).data; return Array.from(data)"
        height, width, data = self.run(
            f"const canvas = $('canvas'); return [canvas.height, canvas.width, (() => {{ {script} }})()]"
        )
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def slide(self, id: str, value: int) -> None:
        self.run(f"$('{id}').value = {value}; $('{id}').oninput()")

    def drag(self, begin: tuple[int, int], end: tuple[int, int]) -> None:
        """With the mouse, between pixels (x, y) of the label."""
        from selenium.webdriver import ActionChains

        canvas = self.browser.find_element("css selector", "#canvas")
        height, width = self.pixels().shape[:2]
        box = canvas.rect
        scale = min(box["width"] / width, box["height"] / height)
        (x0, y0), (x1, y1) = (((x + 0.5 - width / 2) * scale, (y + 0.5 - height / 2) * scale) for x, y in (begin, end))
        actions = ActionChains(self.browser, duration=20).move_to_element_with_offset(canvas, int(x0), int(y0))
        actions.click_and_hold().move_to_element_with_offset(canvas, int(x1), int(y1)).release().perform()


def test_the_gallery_shows_the_most_doubtful_first(page: Page) -> None:
    names = [card.text.splitlines()[0] for card in page.all(".card")]
    assert names == [f"room/{number}" for number in (5, 5, 4, 4, 3, 3, 2, 2)]
    assert page.text("#done") == "8 of 8 to review"
    page.wait(lambda: page.run("return Array.from(document.images).every((i) => i.naturalWidth > 0)"))
    page.run("$('task').value = 'depth'; $('task').onchange()")
    assert len(page.all(".card")) == 4


def test_the_label_lies_over_the_image(page: Page, folder: Path) -> None:
    page.all(".card")[1].click()
    page.wait(lambda: page.is_open("room/5", "semseg"))
    label, photo = stored(folder, "semseg", "room/5"), stored(folder, "images", "room/5")
    page.slide("labelOpacity", 0)
    assert np.abs(page.pixels().astype(int) - photo).mean() < 25  # a JPEG of noise; another image: 85
    page.slide("labelOpacity", 100)
    shown = page.pixels()
    assert (shown[label == 255] == 0).all()
    for number in np.unique(label[label != 255]):
        assert len(np.unique(shown[label == number], axis=0)) == 1
    assert len(np.unique(shown[label != 255], axis=0)) == len(np.unique(label[label != 255]))
    page.slide("confidenceOpacity", 100)
    confidence = stored(folder, "confidence/semseg", "room/5")
    order = page.pixels().astype(int).sum(-1)  # magma grows brighter
    assert order[confidence == confidence.max()].min() > order[confidence == confidence.min()].max()


def test_keys_accept_reject_and_undo(page: Page, folder: Path) -> None:
    page.all(".card")[0].click()
    page.wait(lambda: page.is_open("room/5", "depth"))
    page.press("a")
    page.wait(lambda: page.is_open("room/5", "semseg"))
    assert sources(folder)["room/5", "depth"] == "accepted"
    page.press("r")
    page.wait(lambda: page.is_open("room/4", "depth"))
    assert sources(folder)["room/5", "semseg"] == "rejected"
    page.press("n")
    page.wait(lambda: page.is_open("room/4", "semseg"))
    page.press("p")
    page.wait(lambda: page.is_open("room/4", "depth"))
    assert page.text("#done") == "6 of 8 to review, 1 accepted, 1 rejected"
    page.press("z")
    page.wait(lambda: page.is_open("room/5", "semseg"))
    assert sources(folder)["room/5", "semseg"] == "discovered"
    page.press("g")
    assert len(page.all(".card")) == 7
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_threshold_and_brush_make_void_what_is_shown_as_void(page: Page, folder: Path) -> None:
    page.all(".card")[1].click()
    page.wait(lambda: page.is_open("room/5", "semseg"))
    old, confidence = stored(folder, "semseg", "room/5"), stored(folder, "confidence/semseg", "room/5")
    page.slide("labelOpacity", 100)
    page.press(*"+" * 20, "-")
    assert page.text("#thresholdValue") == "0.38"
    page.press("b")
    page.slide("size", 5)
    page.drag((10, 12), (24, 12))
    page.drag((30, 4), (30, 20))
    page.press("z")  # takes back the last stroke alone
    shown = page.pixels()
    painted = np.array(page.run("return Array.from(view.painted)"), bool).reshape(old.shape)
    assert painted[12, 10:24].all()
    assert not painted[:, 28:].any()
    expected = np.where((confidence > 0.38 * 255) & ~painted, old, 255)
    assert ((shown == 0).all(-1) == (expected == 255)).all()
    page.press("a")
    page.wait(lambda: page.is_open("room/4", "depth"))
    assert (stored(folder, "semseg", "room/5") == expected).all()
    assert sources(folder)["room/5", "semseg"] == "corrected"
    page.press("z")
    page.wait(lambda: page.is_open("room/5", "semseg"))
    assert (stored(folder, "semseg", "room/5") == old).all()


def test_completed_labels_are_shown_and_not_decided_on(browser: Any, tmp_path: Path) -> None:
    folder = write_completed(tmp_path / "found")
    given, found = stored(folder, "semseg", "room/0"), stored(folder, "completed/semseg", "room/0")
    before = snapshot(folder)
    served = Served(folder)
    page = Page(browser, served)
    assert page.text("#done") == "8 of 8 to review, 1 completed"
    assert len(page.all(".card")) == 8
    page.run("$('filter').value = 'completed'; $('filter').onchange()")
    assert [card.text.splitlines()[0] for card in page.all(".card")] == ["room/0"]
    page.all(".card")[0].click()
    page.wait(lambda: page.is_open("room/0", "semseg"))
    page.slide("labelOpacity", 100)
    shown = page.pixels()
    (chair,), (wall,) = (np.unique(shown[mask], axis=0) for mask in (given == 2, found == 1))
    assert (chair != wall).any()
    assert (shown[(given != 2) & (given != 255) & (found == 255)] == 128).all()  # still open: grey
    assert (shown[given == 255] == 0).all()
    page.press("a", "r", "b")
    assert page.run("return ['accept', 'reject', 'brush', 'threshold'].every((id) => $(id).disabled)")
    assert page.text("#source").startswith("completed")
    served.kill()
    assert {name: content for name, content in snapshot(folder).items() if name in before} == before


def test_a_killed_server_has_lost_nothing(page: Page, folder: Path) -> None:
    page.all(".card")[0].click()
    for number, (id, task) in enumerate([("room/5", "depth"), ("room/5", "semseg"), ("room/4", "depth")]):
        page.wait(lambda id=id, task=task: page.is_open(id, task))
        page.press("ar"[number % 2])
        page.wait(lambda number=number: page.text("#done").startswith(f"{7 - number} of 8"))
    page.served.kill()
    with open_decisions(folder) as decisions:
        assert len(decisions.records) == 3
    found = sources(folder)
    assert [found["room/5", "depth"], found["room/5", "semseg"], found["room/4", "depth"]] == [
        "accepted", "rejected", "accepted",
    ]  # fmt: skip
    page.wait(lambda: page.is_open("room/4", "semseg"))
    page.press("a")
    page.wait(lambda: "not saved" in page.text("#message"))
    assert sources(folder)["room/4", "semseg"] == "discovered"


def test_a_page_without_its_token_says_so(browser: Any, folder: Path) -> None:
    served = Served(folder)
    browser.get("about:blank")
    browser.get(served.address.split("#")[0])
    deadline = time.monotonic() + 30
    while "token" not in browser.find_element("css selector", "#done").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    served.kill()


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_and_wide_windows_in_light_and_dark(page: Page, width: int, scheme: str) -> None:
    browser = page.browser
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.all(".card")[0].click()
    page.wait(lambda: page.is_open("room/5", "depth"))
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    script = "return getComputedStyle(document.body)"
    ink, paper = (
        sum(map(int, page.run(f"{script}.{name}").strip("rgba()").split(",")[:3]))
        for name in ("color", "backgroundColor")
    )
    assert (ink > paper) == (scheme == "dark")
    assert abs(ink - paper) > 400
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
