"""Limits on each request, below the routes: headers, body, slow clients; its id, its line in the log, its metrics.

A body is counted while it is received, so that one that is too large is refused before the rest of it arrives, with
or without a Content-Length. A client may be slow, but beyond the settings' times not slower than these rates.
"""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pbe.serving.service.metrics import Metrics
from pbe.serving.service.openai_errors import CLIENT_LEFT, ServiceError
from pbe.serving.service.settings import ServiceSettings

MIN_RECEIVED_BYTES_PER_S = 128 * 1024
MIN_SENT_BYTES_PER_S = 1024 * 1024  # an answer is held in memory until it is sent
SENT_PART_BYTES = 256 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_log = logging.getLogger("pbe.access")


class _SlowReaderError(Exception):
    """The client does not read the answer."""


class HttpLimits:
    """ASGI middleware that enforces the settings' limits on every request."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._settings)
        try:
            if refusal := _refusal(exchange.headers, scope, self._settings):
                self._metrics.count_refusal(refusal.code or str(refusal.status_code))
                await _answer(refusal)(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except _SlowReaderError:
            exchange.status = CLIENT_LEFT
        finally:
            exchange.record(self._metrics)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ServiceSettings) -> None:
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.status = 500  # until an answer begins
        self.num_received = self.num_sent = 0
        self._scope, self._receive, self._send, self._settings = scope, receive, send, settings
        self._started, self._send_started = time.monotonic(), 0.0
        self._body_ended = False

    async def receive(self) -> Message:
        """Return the next part of the body; raises a 408 when it comes too slowly, a 413 when it is too large."""
        if self._body_ended:
            return await self._receive()
        deadline = self._started + self._settings.body_timeout_s + self.num_received / MIN_RECEIVED_BYTES_PER_S
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            self._body_ended = True
            raise ServiceError(
                408, "the body came too slowly", code="body_timeout", headers={"connection": "close"}
            ) from None
        self.num_received += len(message.get("body", b""))
        self._body_ended = not message.get("more_body", False)
        if self.num_received > self._settings.max_body_bytes:
            self._body_ended = True
            raise too_large(self._settings)
        return message

    async def send(self, message: Message) -> None:
        """Send a message in parts, so that no more than a part waits in memory for a slow client."""
        if message["type"] == "http.response.start":
            self.status, self._send_started = message["status"], time.monotonic()
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
        body = message.get("body", b"")
        while len(body) > SENT_PART_BYTES:
            await self._send_part({**message, "body": body[:SENT_PART_BYTES], "more_body": True})
            body = body[SENT_PART_BYTES:]
        await self._send_part({**message, "body": body} if body else message)

    async def _send_part(self, message: Message) -> None:
        allowed = self._settings.send_timeout_s + self.num_sent / MIN_SENT_BYTES_PER_S
        if self._scope.get("is_event_stream"):  # it lasts as long as the painting; each part has the whole time
            self._send_started, allowed = time.monotonic(), self._settings.send_timeout_s
        try:
            async with asyncio.timeout(self._send_started + allowed - time.monotonic()):
                await self._send(message)
        except TimeoutError:
            raise _SlowReaderError from None
        self.num_sent += len(message.get("body", b""))

    def record(self, metrics: Metrics) -> None:
        """Write the line in the log, and count the request."""
        seconds, route = time.monotonic() - self._started, getattr(self._scope.get("route"), "path", "other")
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        metrics.count(method, route, self.status, seconds)
        if self.num_received:
            metrics.count_body(self.num_received)
        path = self._scope.get("raw_path", b"").decode("ascii", "backslashreplace")[:200]
        owner = self._scope.get("owner") or "-"
        _log.info(
            "%s %s %s %s %s %d %.3fs in=%d out=%d", self.id, _client(self._scope), owner, method, path, self.status,
            seconds, self.num_received, self.num_sent,
        )  # fmt: skip


_METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")


def too_large(settings: ServiceSettings) -> ServiceError:
    """Return the 413 of a body that is too large."""
    message = f"the body has more than {settings.max_body_bytes:,} bytes; send smaller images"
    return ServiceError(413, message, code="body_too_large")


def _refusal(headers: Headers, scope: Scope, settings: ServiceSettings) -> ServiceError | None:
    """Return why a request is refused by its headers alone."""
    if len(scope["headers"]) > settings.max_headers:
        return ServiceError(431, f"{len(scope['headers'])} headers: send at most {settings.max_headers}")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > settings.max_header_bytes:
        return ServiceError(431, f"headers of more than {settings.max_header_bytes:,} bytes: send fewer")
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > settings.max_header_bytes:
        return ServiceError(414, f"an address of more than {settings.max_header_bytes:,} bytes")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > settings.max_body_bytes:
        return too_large(settings)
    if settings.tokens_file is None:
        return _foreign_page(headers, scope)
    return None


def _foreign_page(headers: Headers, scope: Scope) -> ServiceError | None:
    """Return why a request cannot be this machine's user's, where there are no tokens.

    A page of another site in the user's browser reaches loopback as well: by its own name, when that name resolves to
    127.0.0.1, or by a form. The Host header shows the one, and Origin the other.
    """
    host = headers.get("host", "")
    if not _LOCAL_HOST.fullmatch(host):
        return ServiceError(403, "without tokens the service answers to localhost and 127.0.0.1 only")
    origin = headers.get("origin")
    if origin is not None and scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
        return ServiceError(403, "without tokens the service takes nothing from other pages")
    return None


def _answer(error: ServiceError) -> JSONResponse:
    return JSONResponse(error.body, error.status_code, dict(error.headers or {}))


def _client(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else "-"
