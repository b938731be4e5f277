"""``tasktokens review FOLDER --serve``: the review page over HTTP, for one person on this machine.

The page's address holds a random token after ``#``, which browsers do not send; the page sends it as a header with
every request, so that no other site can ask in the person's name. The name of the host must be this machine's, against
other names that point here, and requests are limited in size and time.
"""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tasktokens.errors import ConfigError, DataError, TaskTokensError
from tasktokens.review.decisions import open_decisions
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.review.order import first_images, in_order
from tasktokens.review.session import Session
from tasktokens.utils import console, strict_json
from tasktokens.utils.own_host import names_this_server, page_address
from tasktokens.utils.safe_io import load_json

MAX_BODY = 8 * 2**20
"""Bytes of a request; a decision with a painted map of 10 megapixels needs less."""
TOKEN = "X-Review-Token"
_MOST_ITEMS = 500


def serve(
    folder: str | Path,
    host: str = "127.0.0.1",
    port: int = 8765,
    top: int | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the review page until the process is interrupted.

    Args:
        folder: a data folder, such as ``discover`` writes.
        host: the address to listen on; the default is reachable from this machine alone.
        port: 0 for any that is free.
        top: the labels of this many images; default: all.
        announce: is called with the page's address when it can be opened.

    Raises:
        DataError: there is no discovered label.
        ConfigError: the address cannot be listened on.
        RunExistsError: another process reviews the folder.
    """
    with open_decisions(Path(folder)) as decisions:
        opened = decisions.folder
        keys = shown_labels(opened)
        if not keys:
            raise DataError(f"{opened.root} has no discovered label to review")
        session = Session(decisions, first_images(in_order(opened, keys), top))
        try:
            server = ReviewServer((host, port), session)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use; choose another --port, or 0 for any" if taken else f"cannot be listened on ({error})"
            raise ConfigError(f"the address {host}:{port} {why}") from error
        with server:
            announce(server.address)
            server.serve_forever(poll_interval=0.2)


def shown_labels(folder: ReviewFolder) -> list[Key]:
    """The labels of the page: discovered or decided on, and given ones that were completed."""
    return [*folder.discovered(folder.tasks), *folder.completed()]


class ReviewServer(ThreadingHTTPServer):
    """An HTTP server for one session."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], session: Session) -> None:
        self.session, self.host = session, address[0]
        self.token = secrets.token_urlsafe(24)
        if ":" in self.host:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"{page_address(self.host, self.server_address[1])}#{self.token}"

    def is_own(self, netloc: str) -> bool:
        """Whether a Host or an Origin names this server: by an address, or by a name that it was given."""
        return names_this_server(netloc, self.host, int(self.server_address[1]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30  # seconds that a client may be silent
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tasktokens", ""

    pictures: ClassVar[Mapping[str, tuple[str, str]]] = {
        "/api/image": ("image", "image/jpeg"),
        "/api/label": ("label", "image/png"),
        "/api/confidence": ("confidence", "image/png"),
        "/api/thumbnail": ("thumbnail", "image/jpeg"),
    }

    def do_GET(self) -> None:
        """The page, parts of the queue, pictures."""
        url = urlsplit(self.path)
        if not self._is_allowed(page=url.path == "/"):
            return
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        session = self.server.session
        if url.path == "/":
            self._page()
        elif url.path == "/api/queue":
            self._try(lambda: session.overview(_number(query, "start"), min(_number(query, "count"), _MOST_ITEMS)))
        elif url.path == "/api/legend":
            self._try(lambda: session.legend(_number(query, "place")))
        elif url.path in self.pictures:
            name, kind = self.pictures[url.path]
            self._try(lambda: getattr(session, name)(_number(query, "place")), kind)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Decisions."""
        if not self._is_allowed(page=False):
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the length of the request is missing")
            return
        if int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {MAX_BODY} bytes")
            return
        body = self.rfile.read(int(length))
        session = self.server.session
        if self.path == "/api/undo":
            self._try(session.undo)
        elif self.path == "/api/decide":
            self._try(lambda: session.decide(_json(body)))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    # -- who may ask ---------------------------------------------------------------------------------------------------
    def _is_allowed(self, page: bool) -> bool:
        """Whether the request is for this machine and comes from the page itself; else it is refused."""
        if not self.server.is_own(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "the request is for another host")
            return False
        origin = self.headers.get("Origin")
        if origin is not None and not (origin.startswith("http://") and self.server.is_own(origin[len("http://") :])):
            self._refuse(HTTPStatus.FORBIDDEN, "the request comes from another site")
            return False
        if not page and not secrets.compare_digest(self.headers.get(TOKEN, "").encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the token is missing; open the address that the command printed")
            return False
        return True

    # -- answers -------------------------------------------------------------------------------------------------------
    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = files("tasktokens").joinpath("assets/review.html").read_text(encoding="utf-8")
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob: data:; "
            f"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._answer(text.replace("NONCE", nonce).encode(), "text/html; charset=utf-8", policy=policy)

    def _try(self, ask: Callable[[], Any], kind: str = "application/json") -> None:
        """Answer with what a call returns; the user's errors are sentences for the page."""
        try:
            found = ask()
        except (TaskTokensError, OSError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        if found is None:
            self._answer(b"", kind, HTTPStatus.NO_CONTENT)
        else:
            self._answer(found if isinstance(found, bytes) else strict_json.dumps(found).encode(), kind)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._answer(strict_json.dumps({"error": why}).encode(), "application/json", status)

    def _answer(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", policy or "default-src 'none'")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        """Only what went wrong is worth a line."""

    def log_error(self, format: str, *values: Any) -> None:
        """On standard error."""
        if "timed out" not in format:
            console.say(f"review: {format % values}")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text.isdecimal() or len(text) > 12:
        raise DataError(f"'{name}' must be a whole number, found {text!r}")
    return int(text)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        values = load_json(body.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"the request is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise DataError("the request must be a JSON object")
    return values
