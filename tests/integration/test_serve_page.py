"""``tasktokens serve`` as a process, and its page in a real browser: Debian's Chromium without a screen."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasktokens
from chromium import NEEDS_CHROMIUM, BrowserPage, open_browser
from conftest import run_cli
from fakes import uploads

pytest.importorskip("gradio", reason="needs the extra serve")


class Server:
    """The verb in a process of its own."""

    def __init__(self, model: Path, temporary: Path, *words: str) -> None:
        self.temporary = temporary
        command = [
            sys.executable,
            "-m",
            "tasktokens.cli",
            "serve",
            str(model),
            "--port",
            "0",
            "--device",
            "cpu",
            *words,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=temporary,
            env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"http://\S+", line)
        assert found, (line, self.process.communicate()[1])
        self.address = found[0]

    def files(self) -> list[Path]:
        """What lies in the folder for temporary files."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def server(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(untrained, tmp_path_factory.mktemp("temporary"), "--max-mb", "1")
    yield server
    if server.process.poll() is None:
        server.end()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("browser"))
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    driver.quit()


class Page(BrowserPage):
    """What a person does."""

    def __init__(self, browser: Any, server: Server) -> None:
        super().__init__(browser)
        self.server = server
        browser.get(server.address)
        self.wait(lambda: self.all("#upload input[type=file]"))

    def text(self, selector: str) -> str:
        return " ".join(str(each.get_property("textContent")) for each in self.all(selector))

    def upload(self, path: Path) -> None:
        self.wait(lambda: self.all("#upload input[type=file]"))[0].send_keys(str(path))

    def key(self) -> str:
        return str(self.browser.execute_script("return document.querySelector('.tt-panels')?.dataset.key ?? ''"))

    def picture(self, task: str) -> Any:
        """What a picture shows, (H, W, 3), decoded by the browser."""
        script = """
            const image = document.querySelector(`figure[data-task="${arguments[0]}"] img`);
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.height, canvas.width, Array.from(data)];
        """
        height, width, data = self.browser.execute_script(script, task)
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def click(self, task: str, across: float, down: float) -> None:
        from selenium.webdriver import ActionChains

        frame = self.all(f'figure[data-task="{task}"] .tt-frame')[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
        size = frame.size
        x, y = (int((share - 0.5) * size[side]) for share, side in ((across, "width"), (down, "height")))
        ActionChains(self.browser).move_to_element_with_offset(frame, x, y).click().perform()

    def threshold(self, value: float) -> None:
        number = self.all("#threshold input[type=number]")[0]
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.browser.execute_script(script, number, str(value))


@pytest.fixture
def page(browser: Any, server: Server) -> Page:
    return Page(browser, server)


@NEEDS_CHROMIUM
def test_a_person_sees_every_task_and_the_values_of_a_pixel(page: Page, untrained: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(uploads.picture(240, 336))
    expected = tasktokens.load(untrained, "cpu").predict(photo)
    page.upload(photo)
    page.wait(page.key)
    names = [figure.get_attribute("data-task") for figure in page.all("figure")]
    assert names == ["image", *expected]
    page.wait(lambda: page.browser.execute_script("return [...document.images].every((i) => i.naturalWidth > 0)"))
    for name, prediction in expected.items():
        assert (page.picture(name) == np.asarray(prediction.picture())).all()
    assert "10 m (logarithmic)" in page.text('figure[data-task="depth"]')
    assert page.all('figure[data-task="semseg"] .tt-legend i')

    page.click("depth", 0.25, 0.5)
    page.wait(lambda: page.all(".tt-pixel"))
    x, y = map(int, re.findall(r"\d+", page.text(".tt-pixel caption")))
    assert abs(x - 84) <= 3
    assert abs(y - 120) <= 3
    assert len(page.all(".tt-mark")) == 1 + len(expected)
    rows = [[cell.text for cell in row.find_elements("css selector", "td")] for row in page.all(".tt-pixel tr")[1:]]
    classes = expected["semseg"].task.class_names()
    assert classes is not None
    assert rows[0][:2] == ["semseg", classes[int(expected["semseg"].value[y, x])]]
    assert rows[1] == [
        "depth", f"{expected['depth'].value[y, x]:.3g} m", f"{expected['depth'].confidence[y, x]:.2f}",
    ]  # fmt: skip
    assert rows[2][1] == ", ".join(f"{part:.3g}" for part in expected["normals"].value[y, x])

    confidence = expected["semseg"].confidence
    level = math.ceil(100 * np.quantile(confidence, 0.5)) / 100
    before = page.picture("semseg")
    page.threshold(level)
    page.wait(lambda: (page.picture("semseg") != before).any())
    for name, prediction in expected.items():
        assert (page.picture(name) == np.asarray(prediction.picture(prediction.confidence > level))).all()
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
@NEEDS_CHROMIUM
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"no picture", "no picture that can be read"),
        ("cut.png", uploads.picture(200, 300)[:-300], "cannot be decoded"),
        ("bomb.png", uploads.bomb(), "16777216 pixels"),
        ("<b>$\u007b{evil}}.png", b"", "empty"),
    ],
)
def test_a_bad_file_gets_a_message_and_a_good_one_is_taken_afterwards(
    page: Page, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    page.upload(tmp_path / name)
    page.wait(lambda: words in page.text("[role=alert]"))
    (tmp_path / "good.png").write_bytes(uploads.picture())
    page.upload(tmp_path / "good.png")
    page.wait(page.key)
    assert not page.all("[role=alert]")


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_nothing_is_loaded_from_elsewhere_and_no_upload_is_left(page: Page, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(uploads.picture())
    page.upload(tmp_path / "good.png")
    page.wait(page.key)
    page.browser.get(page.server.address + "docs")
    page.wait(lambda: page.all(".opblock-summary"))[0].click()
    page.wait(lambda: page.all(".try-out__btn"))[0].click()
    assert page.wait(lambda: page.all("input[type=file]"))
    asked = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    urls = {each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"}
    assert len(urls) > 20
    outside = ("data:", "blob:", page.server.address, "chrome")
    assert [url for url in urls if not url.startswith(outside)] == []
    assert page.server.files() == []


@pytest.mark.slow
@NEEDS_CHROMIUM
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_narrow_and_wide_windows(page: Page, tmp_path: Path, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    (tmp_path / "good.png").write_bytes(uploads.picture())
    page.upload(tmp_path / "good.png")
    page.wait(page.key)
    assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# -- the process -------------------------------------------------------------------------------------------------------
def status(request: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_page_reads_no_files_of_the_machine(server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(uploads.picture())
    for path in ("/etc/passwd", tmp_path / "secret.png", "../../etc/passwd", server.temporary):
        assert status(f"{server.address}gradio_api/file={path}") == 404
    for path in ("/etc/passwd", str(tmp_path / "secret.png"), "https://example.com/one.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for where, wanted in (("queue/join", 403), ("run/predict", 404), ("call/_open", 404), ("upload", 404)):
            for data in ([file, 0], [[{"value": file}], 0]):
                body = json.dumps({"fn_index": 0, "data": data, "session_hash": "x"}).encode()
                headers = {"Content-Type": "application/json"}
                assert status(urllib.request.Request(f"{server.address}gradio_api/{where}", body, headers)) == wanted
    assert (tmp_path / "secret.png").is_file()
    (folder,) = server.temporary.glob("tasktokens-serve-*")
    assert (folder.stat().st_mode & 0o077) == 0
    assert server.files() == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_its_folder_goes(untrained: Path, tmp_path: Path, number: int, code: int) -> None:
    server = Server(untrained, tmp_path, "--host", "0.0.0.0", *(["--no-page"] if code == 130 else []))
    deadline = time.monotonic() + 30
    while True:
        try:
            assert status(server.address + "health") == 200
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    found, errors = server.end(number)
    assert found == code
    assert errors.count("\n") == 1
    assert "warning: whoever reaches 0.0.0.0:" in errors
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_served_is_said_in_a_sentence(
    server: Server, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    port = server.address.rstrip("/").rpartition(":")[2]
    code, _, errors = run_cli(capsys, "serve", untrained, "--port", port)
    assert (code, "in use; choose another --port" in errors) == (2, True)
    code, _, errors = run_cli(capsys, "serve", tmp_path, "--port", "0")
    assert (code, errors.count("\n")) == (2, 1)
    code, _, errors = run_cli(capsys, "serve", untrained, "--port", "0", "--host", "no.such.host.invalid")
    assert (code, "cannot be listened on" in errors) == (2, True)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, errors = run_cli(capsys, "serve", untrained, "--port", "0")
    assert code == 2
    assert "tasktokens serve needs the package uvicorn: pip install 'tasktokens[serve]'" in errors
