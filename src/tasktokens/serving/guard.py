"""What stands before the API and the page: who may ask, how large a body may be and how long it may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasktokens.serving.limits import Limits, RefusedError, too_large
from tasktokens.serving.monitoring import Monitor
from tasktokens.utils import strict_json
from tasktokens.utils.own_host import is_loopback, names_this_server

_DRAIN_SECONDS = 10
"""How long a body that was refused is still read: most clients look for an answer when they have written it all."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page of gradio has scripts inline; nothing comes from, or goes to, anywhere else.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware around the whole server.

    Args:
        app: what is guarded.
        limits: of bodies.
        monitor: counts requests.
        address: host and port that the server listens on. Where that is this machine alone, requests must name it in
            ``Host``, and in ``Origin`` where they have one: a page of another site could otherwise ask from within the
            user's browser.
    """

    def __init__(self, app: ASGIApp, limits: Limits, monitor: Monitor, address: tuple[str, int]) -> None:
        self.app, self.limits, self.monitor, self.address = app, limits, monitor, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _close(send))
            return
        answer = _Answer(scope, send, self.monitor)
        try:
            self._check_host(Headers(scope=scope))
            self._check_length(Headers(scope=scope))
            await self.app(scope, _Body(receive, self.limits, answer), answer)
        except RefusedError as refused:
            answer.refused = refused
        finally:
            if (final := answer.refused) is not None and not answer.status:
                answer.refused = None
                await _refuse(final, scope, receive, answer)
            answer.count()

    def _check_host(self, headers: Headers) -> None:
        host, port = self.address
        if not is_loopback(host):
            return
        if not names_this_server(headers.get("host", ""), host, port):
            raise RefusedError(403, "the request is for another host")
        origin = headers.get("origin")
        if origin is not None and not names_this_server(origin.partition("://")[2], host, port):
            raise RefusedError(403, "the request comes from another site")

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise RefusedError(400, "the length of the request is no number")
        if int(length) > self.limits.bytes:
            raise too_large(self.limits)


class _Body:
    """Receives a body of limited size in limited time; after it, whatever the server says."""

    def __init__(self, receive: Receive, limits: Limits, answer: _Answer) -> None:
        self.receive, self.limits, self.answer = receive, limits, answer
        self.deadline = time.monotonic() + limits.seconds
        self.size, self.complete = 0, False

    async def __call__(self) -> Message:
        if self.complete:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            raise self._refuse(
                RefusedError(408, f"the request did not arrive within {self.limits.seconds:g} seconds")
            ) from None
        self.size += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.size > self.limits.bytes:
            raise self._refuse(too_large(self.limits))
        return message

    def _refuse(self, error: RefusedError) -> RefusedError:
        """Frameworks make an answer of their own of what goes wrong while a body is read; this one goes out."""
        self.answer.refused = error
        return error


class _Answer:
    """Sends an answer with `HEADERS`, unless the request was refused; status 0: none has begun."""

    def __init__(self, scope: Scope, send: Send, monitor: Monitor) -> None:
        self.scope, self.send, self.monitor = scope, send, monitor
        self.status = 0
        self.refused: RefusedError | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if self.refused is not None:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)

    def count(self) -> None:
        path = self.scope["path"]
        known = path if path in ("/predict", "/health", "/metrics") else "page"
        self.monitor.requests.labels(known, str(self.status or 499)).inc()


async def _refuse(refused: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal at once, and end it when the client has written what it wants to."""
    content = strict_json.dumps({"error": refused.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    if Headers(scope=scope).get("expect", "").lower() != "100-continue":
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    """Read on for a while, and keep nothing."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def _close(send: Send) -> None:
    """There are no web sockets here."""
    await send({"type": "websocket.close", "code": 1008})
