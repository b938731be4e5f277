"""The review page's server: what it answers, and whom it refuses."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import run_cli
from fakes.discovered import snapshot, sources, stored, write_completed, write_discovered
from tasktokens.errors import DataError
from tasktokens.review.decisions import open_decisions
from tasktokens.review.order import in_order
from tasktokens.review.server import MAX_BODY, TOKEN, ReviewServer, serve, shown_labels
from tasktokens.review.session import Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_discovered(tmp_path / "found")


@pytest.fixture
def server(folder: Path) -> Iterator[ReviewServer]:
    with serving(folder) as server:
        yield server


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ReviewServer]:
    with open_decisions(folder) as decisions:
        session = Session(decisions, in_order(decisions.folder, shown_labels(decisions.folder)))
        with ReviewServer(("127.0.0.1", 0), session) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield server
            server.shutdown()
            thread.join()


def ask(
    server: ReviewServer, path: str, body: Any = None, method: str | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """A request as the page sends it; headers replace its own, an empty one leaves it out."""
    port = server.server_address[1]
    own = {"Host": f"127.0.0.1:{port}", TOKEN: server.token}
    sent = own | {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if body is not None:
        connection.putheader("Content-Length", str(len(content)))
    for name, value in sent.items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(content)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_the_queue_begins_with_the_most_doubtful(server: ReviewServer) -> None:
    status, content, _ = ask(server, "/api/queue?start=0&count=100")
    items = json.loads(content)["items"]
    assert status == 200
    assert [item["id"] for item in items] == [f"room/{n}" for n in (5, 5, 4, 4, 3, 3, 2, 2)]
    assert items[0]["reason"] == "mean confidence 0.48"
    _, content, _ = ask(server, "/api/queue?start=6&count=1")
    assert [item["place"] for item in json.loads(content)["items"]] == [6]


def test_pictures_have_the_size_of_the_label(server: ReviewServer) -> None:
    import io

    from PIL import Image

    for path in ("image", "label", "confidence"):
        status, content, headers = ask(server, f"/api/{path}?place=1")
        assert status == 200
        picture = Image.open(io.BytesIO(content))
        assert picture.size == (36, 24)
        assert headers["Content-Type"] == f"image/{(picture.format or '').lower()}"
    picture = np.asarray(Image.open(io.BytesIO(ask(server, "/api/label?place=1")[1])))
    assert ((picture[..., 3] > 0) == (stored(server.session.folder.root, "semseg", "room/5") != 255)).all()
    assert ask(server, "/api/thumbnail?place=0")[0] == 200
    assert json.loads(ask(server, "/api/legend?place=1")[1])["swatches"]


def test_completed_labels_are_shown_with_what_was_discovered_and_not_decided_on(tmp_path: Path) -> None:
    import io

    from PIL import Image

    folder = write_completed(tmp_path / "found")
    given, found = stored(folder, "semseg", "room/0"), stored(folder, "completed/semseg", "room/0")
    before = snapshot(folder)
    with serving(folder) as server:
        queue = json.loads(ask(server, "/api/queue?start=0&count=100")[1])
        assert (queue["total"], queue["completed"], queue["done"]["semseg"]["completed"]) == (9, 1, 1)
        place = next(item["place"] for item in queue["items"] if item["source"] == "completed")
        assert queue["items"][place]["id"] == "room/0"
        picture = np.asarray(Image.open(io.BytesIO(ask(server, f"/api/label?place={place}")[1])))
        legend = {name: colour for colour, name in json.loads(ask(server, f"/api/legend?place={place}")[1])["swatches"]}
        still_open = (given != 2) & (given != 255) & (found == 255)
        for name, pixels in (
            ("chair", given == 2), ("wall", found == 1), ("a class that was not labelled here", still_open),
        ):  # fmt: skip
            assert pixels.any()
            assert (picture[pixels] == [*bytes.fromhex(legend[name][1:]), 255]).all()
        assert (picture[given == 255, 3] == 0).all()
        confidence = np.asarray(Image.open(io.BytesIO(ask(server, f"/api/confidence?place={place}")[1])))
        assert ((confidence > 0) == (found == 1)).all()
        assert ask(server, f"/api/thumbnail?place={place}")[0] == 200
        for decision in ("accept", "reject"):
            status, content, _ = ask(server, "/api/decide", {"place": place, "decision": decision})
            assert status == 400
            assert "completed/semseg/room/0.png" in json.loads(content)["error"]
    assert snapshot(folder) == before


def test_decisions_are_written_before_the_answer(server: ReviewServer, folder: Path) -> None:
    status, content, _ = ask(server, "/api/decide", {"place": 0, "decision": "accept"})
    assert (status, json.loads(content)["item"]["source"]) == (200, "accepted")
    assert sources(folder)["room/5", "depth"] == "accepted"
    ask(server, "/api/decide", {"place": 1, "decision": "reject"})
    assert sources(folder)["room/5", "semseg"] == "rejected"
    status, content, _ = ask(server, "/api/undo", {})
    assert [item["place"] for item in json.loads(content)["items"]] == [1]
    assert sources(folder)["room/5", "semseg"] == "discovered"


def test_a_threshold_and_a_brush_make_pixels_void(server: ReviewServer, folder: Path) -> None:
    old, confidence = stored(folder, "semseg", "room/5"), stored(folder, "confidence/semseg", "room/5")
    runs = [100, 30, old.size - 130]
    body = {"place": 1, "decision": "accept", "threshold": 0.5, "void": runs}
    status, content, _ = ask(server, "/api/decide", body)
    expected = np.where(confidence > 0.5 * 255, old, 255)
    expected.flat[100:130] = 255
    assert status == 200
    assert (stored(folder, "semseg", "room/5") == expected).all()
    assert json.loads(content)["changed"] == int((expected != old).sum())
    assert sources(folder)["room/5", "semseg"] == "corrected"
    ask(server, "/api/undo", {})
    assert (stored(folder, "semseg", "room/5") == old).all()


@pytest.mark.parametrize(
    "headers",
    [
        {TOKEN: ""}, {TOKEN: "wrong"}, {"Host": "evil.example"}, {"Host": "evil.example:1"}, {"Host": ""},
        {"Host": "127.0.0.1:1"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)  # fmt: skip
def test_others_are_refused(server: ReviewServer, folder: Path, headers: dict[str, str]) -> None:
    before = sources(folder)
    renamed = {name.replace("-", "_"): value for name, value in headers.items()}
    for path, body in (("/api/queue?start=0&count=1", None), ("/api/decide", {"place": 0, "decision": "accept"})):
        status, content, _ = ask(server, path, body, **renamed)
        assert status == 403
        assert "error" in json.loads(content)
    assert sources(folder) == before


def test_the_page_itself_needs_no_token_but_the_right_host(server: ReviewServer) -> None:
    status, content, headers = ask(server, "/", **{TOKEN.replace("-", "_"): ""})
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert content.count(f'nonce="{nonce}"'.encode()) == 2
    assert b"http://" not in content.replace(b"http://www.w3.org", b"")
    assert b"https://" not in content
    assert server.token.encode() not in content
    assert ask(server, "/", Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/decide", b"no json", 400),
        ("/api/decide", b"[1]", 400),
        ("/api/decide", {"decision": "accept"}, 400),
        ("/api/decide", {"place": 99, "decision": "accept"}, 400),
        ("/api/decide", {"place": -1, "decision": "accept"}, 400),
        ("/api/decide", {"place": 0, "decision": "burn"}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "threshold": 7}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "threshold": "x"}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "void": [1, 2]}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "void": ["a"]}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "void": [10**30]}, 400),
        ("/api/decide", {"place": 0, "decision": "accept", "void": {"a": 1}}, 400),
        ("/api/decide", b"[" * 100_000, 400),
        ("/api/elsewhere", {}, 404),
        ("/api/image?place=x", None, 400),
        ("/api/image?place=99", None, 400),
        ("/../../etc/passwd", None, 404),
        ("/api/image", None, 400),
    ],
)
def test_wrong_requests_are_refused_and_change_nothing(
    server: ReviewServer, folder: Path, path: str, body: Any, status: int
) -> None:
    before = sources(folder)
    found, content, _ = ask(server, path, body)
    assert found == status
    assert json.loads(content)["error"]
    assert sources(folder) == before
    assert ask(server, "/api/queue?start=0&count=1")[0] == 200  # and it goes on


def test_large_requests_and_other_methods_are_refused(server: ReviewServer) -> None:
    port = server.server_address[1]
    head = f"POST /api/decide HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{TOKEN}: {server.token}\r\n"
    for more, status in (
        (f"Content-Length: {MAX_BODY + 1}\r\n\r\n", b"413"),
        ("\r\n", b"411"),
        (f"A: {'x' * 70000}", b"431"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall((head + more + "\r\n\r\n").encode())
            assert status in connection.recv(100)
    assert ask(server, "/api/decide", {}, method="PUT")[0] == 501


def test_the_address_must_be_free(server: ReviewServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_discovered(tmp_path / "other")
    code, _, errors = run_cli(capsys, "review", other, "--serve", "--port", server.server_address[1])
    assert code == 2
    assert "is in use" in errors


def test_a_folder_without_discovered_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no discovered label"):
        serve(write_discovered(tmp_path / "found", given=6))
