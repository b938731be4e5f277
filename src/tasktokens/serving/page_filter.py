"""What of gradio can be asked over HTTP: the page and its events, and nothing that has to do with files.

Gradio takes paths and URLs of files in the values of any component, copies or downloads them, and has endpoints for
uploads, files and proxies. The page needs none of that: images come in by `PAGE_IMAGE`, pictures go out in HTML.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasktokens.serving.limits import RefusedError

PAGE_IMAGE = "/page/image"
"""Where the page sends an image."""

_EVENTS = "/gradio_api/queue/join"
_OPEN = {
    "GET": re.compile(
        r"/(|config|info|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/[\w./@+-]+"
        r"|gradio_api/(info|app_id|startup-events|queue/data|heartbeat/\w+)"
        r"|predict|health|metrics|docs|openapi\.json|docs/oauth2-redirect|static-offline-docs/[\w.-]+)"
    ),
    "POST": re.compile(rf"/predict|{PAGE_IMAGE}|{_EVENTS}|/gradio_api/(cancel|reset)"),
}
_MOST = 20_000
"""Bytes of an event: a key and some numbers."""


class PageFilter:
    """ASGI middleware before an application with a page of gradio.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            if method in _OPEN and not _OPEN[method].fullmatch(scope["path"]):
                raise RefusedError(404, "there is no such page")
            if method == "POST" and scope["path"] != "/predict" and scope["path"] != PAGE_IMAGE:
                receive = _replayed(await _plain_body(receive), receive)
        await self.app(scope, receive, send)


async def _plain_body(receive: Receive) -> bytes:
    """The body of an event. Raises `RefusedError` where it is large, or has the path of a file in it."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _MOST:
            raise RefusedError(413, f"an event may have {_MOST} bytes")
        if not message.get("more_body", False):
            break
    try:
        found = json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "the event is no JSON") from error
    if _names_files(found):
        raise RefusedError(403, "an event of the page has no files")
    return body


def _names_files(value: Any) -> bool:
    if isinstance(value, dict):
        return "path" in value or "url" in value or any(_names_files(each) for each in value.values())
    return isinstance(value, list) and any(_names_files(each) for each in value)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives the whole body first."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
