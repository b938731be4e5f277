"""The HTTP API in this process: what good and bad requests get, and that its description says so."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra serve")
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import tasktokens
from fakes import uploads
from tasktokens.inference.predictor import Predictor
from tasktokens.serving.application import create_app
from tasktokens.serving.limits import Limits

LIMITS = Limits(bytes=300_000, pixels=100_000, queue=4, seconds=20, batch=4)
ADDRESS = ("127.0.0.1", 8000)


class Held:
    """The predictor, which can be made to wait; what it was asked is kept."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.ask = predictor, predictor.logits
        self.free, self.batches = threading.Event(), []
        self.free.set()
        self.entered = threading.Event()

    def __call__(self, images: Sequence[Any]) -> Any:
        self.batches.append([tuple(image.shape[-2:]) for image in images])
        self.entered.set()
        assert self.free.wait(20)
        return self.ask(images)


@pytest.fixture(scope="module")
def held(untrained: Path) -> Held:
    predictor = Predictor(untrained, "cpu")
    held = Held(predictor)
    predictor.logits = held  # type: ignore[method-assign]
    return held


@pytest.fixture(scope="module")
def client(held: Held) -> Iterator[TestClient]:
    app = create_app(held.predictor, "small", LIMITS, ADDRESS, page=False)
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(untrained: Path) -> tasktokens.Model:
    return tasktokens.load(untrained, "cpu")


def send(client: TestClient, data: bytes, name: str = "one.png", headers: Any = None, **query: Any) -> Any:
    return client.post("/predict", files={"image": (name, data)}, params=query, headers=headers)


def array(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# -- good ones ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("height", "width"), [(40, 56), (32, 48), (90, 61), (1, 1)])
def test_npz_holds_what_predict_gives(client: TestClient, model: tasktokens.Model, height: int, width: int) -> None:
    data = uploads.picture(height, width)
    found = np.load(io.BytesIO(send(client, data, format="npz", threshold=0.3).content))
    expected = model.predict(array(data))
    assert set(found) == {f"{task}{end}" for task in expected for end in ("", ".confidence", ".valid")}
    for name, prediction in expected.items():
        assert found[name].dtype == prediction.value.dtype
        assert (found[name] == prediction.value).all()
        assert (found[f"{name}.confidence"] == prediction.confidence).all()
        assert (found[f"{name}.valid"] == (prediction.confidence > 0.3)).all()


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_json_holds_pictures_units_and_means(
    client: TestClient, model: tasktokens.Model, threshold: float | None
) -> None:
    data = uploads.picture()
    answer = send(client, data, **({} if threshold is None else {"threshold": threshold})).json()
    assert (answer["model"], answer["width"], answer["height"], answer["threshold"]) == ("small", 56, 40, threshold)
    assert answer["notes"] == []
    for name, prediction in model.predict(array(data)).items():
        found = answer["tasks"][name]
        valid = np.ones((40, 56), bool) if threshold is None else prediction.confidence > threshold
        assert found["kind"] == prediction.task.kind
        assert found["mean_confidence"] == pytest.approx(prediction.confidence.mean(), abs=1e-6)
        assert found["valid"] == pytest.approx(valid.mean())
        assert (
            array(base64.b64decode(found["picture"])) == prediction.task.colourise(prediction.value_CHW, valid)
        ).all()
    assert answer["tasks"]["semseg"]["classes"] == ["floor", "wall", "chair", "person"]
    assert [answer["tasks"][name]["unit"] for name in ("semseg", "depth", "normals")] == ["", "m", ""]
    assert answer["tasks"]["depth"]["legend"]["ends"] == ["0.5 m", "10 m (logarithmic)"]


def test_png_shows_image_and_tasks(client: TestClient) -> None:
    answer = send(client, uploads.picture(), format="png")
    assert answer.headers["content-type"] == "image/png"
    height, width = array(answer.content).shape[:2]
    assert width > 6 * 56
    assert height > 40


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"), ("image/png", "image/png"),
        ("image/*;q=0.4, application/x-npz", "application/x-npz"),
        ("application/json;q=0.1, image/*", "image/png"), ("text/html, */*;q=0.1", "application/json"),
        ("image/png;q=0, */*", "application/json"),
    ],
)  # fmt: skip
def test_the_format_goes_by_accept(client: TestClient, accept: str, media: str) -> None:
    assert send(client, uploads.picture(), headers={"Accept": accept}).headers["content-type"] == media


def test_what_cannot_be_sent_is_not_acceptable(client: TestClient) -> None:
    assert send(client, uploads.picture(), headers={"Accept": "text/html"}).status_code == 406


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"])
def test_every_format_of_pictures_is_read(client: TestClient, format: str) -> None:
    assert send(client, uploads.picture(format=format), format="npz").status_code == 200


def test_orientation_and_frames_are_as_for_predict(client: TestClient, model: tasktokens.Model, tmp_path: Path) -> None:
    (tmp_path / "turned.jpg").write_bytes(uploads.rotated())
    answer = send(client, uploads.rotated()).json()
    expected = model.predict(tmp_path / "turned.jpg")
    assert (answer["height"], answer["width"]) == expected.image.shape[:2]
    assert "EXIF" in answer["notes"][0]
    assert "frames" in send(client, uploads.animated()).json()["notes"][0]


# -- bad ones ----------------------------------------------------------------------------------------------------------
BAD = {
    "empty": (b"", 400, "empty"),
    "text": (b"no picture " * 50, 415, "no picture"),
    "zip": (b"PK\x03\x04" + bytes(500), 415, "no picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no picture"),
    "truncated png": (uploads.picture(200, 300)[:-400], 422, "decoded"),
    "truncated jpeg": (uploads.picture(200, 300, format="JPEG")[:-900], 422, "decoded"),
    "header alone": (uploads.picture()[:33], 415, "no picture"),
    "bomb": (uploads.bomb(), 413, "pixels"),
    "pixels": (uploads.picture(300, 400), 413, "100000 pixels, found 400x300"),
    "bytes": (bytes(400_000), 413, "300000 bytes"),
    "comment": (uploads.text_bomb(), 422, ""),
    "floats": (uploads.floats(), 422, "float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_picture_gets_a_sentence(client: TestClient, case: str) -> None:
    data, status, words = BAD[case]
    started = time.monotonic()
    answer = send(client, data)
    assert time.monotonic() - started < 1
    assert (status if case != "comment" else answer.status_code) == answer.status_code
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..\\..\\evil.png", "/etc/cron.d/x", "a\0b.png", "x" * 500, "…"]
)
def test_names_of_files_lead_nowhere(client: TestClient, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert send(client, uploads.picture(), name).status_code == 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "words"),
    [({"format": "exe"}, "format"), ({"threshold": 2}, "threshold"), ({"threshold": "nan"}, "threshold")],
)
def test_wrong_settings_are_named(client: TestClient, query: dict[str, Any], words: str) -> None:
    answer = send(client, uploads.picture(), **query)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_a_form_without_an_image_is_refused(client: TestClient) -> None:
    assert client.post("/predict").status_code == 422
    assert client.post("/predict", data={"image": "text"}).status_code == 422
    broken = client.post(
        "/predict", content=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert 400 <= broken.status_code < 500
    assert "error" in broken.json()
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_a_body_without_a_length_is_limited_too(client: TestClient) -> None:
    parts = (bytes(50_000) for _ in range(10))
    answer = client.post("/predict", content=parts, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    assert "300000 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "127.0.0.1:9"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
)
def test_other_sites_may_not_ask(client: TestClient, headers: dict[str, str]) -> None:
    assert send(client, uploads.picture(), headers=headers).status_code == 403
    assert send(client, uploads.picture(), headers={"Origin": "http://localhost:8000"}).status_code == 200


# -- many at once ------------------------------------------------------------------------------------------------------
def in_threads(client: TestClient, uploads: Sequence[bytes], answers: list[Any]) -> list[threading.Thread]:
    threads = [
        threading.Thread(target=lambda data=data: answers.append(send(client, data, format="npz"))) for data in uploads
    ]
    for thread in threads:
        thread.start()
    return threads


def wait_for(ready: Any) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_of_one_size_go_through_the_network_together(client: TestClient, held: Held) -> None:
    held.free.clear()
    held.entered.clear()
    answers: list[Any] = []
    threads = in_threads(client, [uploads.picture()], answers)
    assert held.entered.wait(20)
    held.batches.clear()
    threads += in_threads(client, [uploads.picture(), uploads.picture(80, 40), uploads.picture(seed=1)], answers)
    wait_for(lambda: len(held_queue(client)) == 3)
    full = send(client, uploads.picture())
    assert full.status_code == 503
    assert 1 <= int(full.headers["retry-after"]) <= 60
    assert send(client, b"").status_code == 400  # what is wrong is said however long the queue
    held.free.set()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(map(len, held.batches)) == [1, 2]


def held_queue(client: TestClient) -> Sequence[Any]:
    """What waits for the model."""
    app: Any = client.app
    return tuple(app.app.state.service.worker.waiting)


def test_a_request_ends_with_its_time(held: Held) -> None:
    app = create_app(held.predictor, "small", Limits(seconds=0.3, queue=2), ADDRESS, page=False)
    with TestClient(app, "http://127.0.0.1:8000") as client:
        held.free.clear()
        started = time.monotonic()
        answer = send(client, uploads.picture())
        assert answer.status_code == 504
        assert time.monotonic() - started < 5
        held.free.set()
        wait_for(lambda: "tasktokens_in_progress 0.0" in client.get("/metrics").text)
        assert send(client, uploads.picture()).status_code in (200, 504)


def test_a_model_that_fails_is_asked_again_image_by_image(untrained: Path, capsys: Any) -> None:
    predictor = Predictor(untrained, "cpu")
    ask = predictor.logits

    def fails(images: Sequence[Any]) -> Any:
        if len(images) > 1 or images[0].float().mean() < 1:
            raise RuntimeError("a kernel failed")
        return ask(images)

    predictor.logits = fails  # type: ignore[method-assign]
    black = io.BytesIO()
    Image.new("RGB", (56, 40)).save(black, "PNG")
    with TestClient(create_app(predictor, "small", LIMITS, ADDRESS, page=False), "http://127.0.0.1:8000") as client:
        answers: list[Any] = []
        for thread in in_threads(client, [uploads.picture(), black.getvalue(), uploads.picture()], answers):
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 500]
        assert client.get("/health").json()["status"] == "ok"
    assert "a kernel failed" in capsys.readouterr().err


# -- what it says of itself --------------------------------------------------------------------------------------------
def test_health_and_metrics(client: TestClient) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["model"], health["device"]) == ("ok", "small", "cpu")
    assert health["tasks"]["semseg"] == "classes"
    before = counters(client)
    send(client, uploads.picture())
    send(client, b"")
    after = counters(client)
    for status in ("200", "400"):
        key = ("tasktokens_requests_total", "/predict", status)
        assert after[key] == before.get(key, 0) + 1


def counters(client: TestClient) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_description_is_right(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/health", "/metrics"}
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["responses"]["200"]["content"]) == {"application/json", "image/png", "application/x-npz"}
    assert {str(status) for _, status, _ in BAD.values()} < set(predict["responses"])
    body = predict["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    assert described["components"]["schemas"][body]["properties"]["image"]["format"] == "binary"
    schema = described["components"]["schemas"]["PredictionAnswer"]
    assert set(schema["required"]) == set(send(client, uploads.picture()).json())
    assert set(described["components"]["schemas"]["Problem"]["properties"]) == set(send(client, b"").json())


def test_nothing_comes_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("http://127.0.0.1:8000", "").replace("<!--", "")
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
