"""`pbe serve`: the application in one process of uvicorn, which drains when it is asked to end."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pbe.errors import UserError
from pbe.serving.service.application import create_application
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.service_state import ServiceState
from pbe.serving.service.settings import ServiceSettings

POLL_S = 0.1
_log = logging.getLogger("pbe.service")

OnReady = Callable[[str], None]  # gets the address


def run_service(
    dispatcher: Dispatcher,
    settings: ServiceSettings,
    *,
    extend: Callable[[FastAPI], FastAPI] | None = None,
    on_ready: OnReady | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted edits, and return.

    `extend` may mount more on the application, such as the page. `on_ready` gets the address once the service listens.
    A second signal ends the service at once. Raises UserError for a model that cannot be loaded, a wrong file of
    tokens, or an address that cannot be used. Only the main thread may call this.
    """
    application = create_application(dispatcher, settings)
    state: ServiceState = application.state.service
    listener = listener_of(settings)
    try:
        dispatcher.start()
        served = extend(application) if extend else application
        server = DrainingServer(uvicorn_config(served, settings), state, on_ready)
        _raise_open_files()
        server.run([listener])
    finally:
        listener.close()
        dispatcher.drain(0)  # after a second signal; otherwise it has ended already
        state.close()


def uvicorn_config(application: FastAPI, settings: ServiceSettings) -> uvicorn.Config:
    """Return uvicorn's configuration for these limits."""
    return uvicorn.Config(
        application,
        http=type("Protocol", (TimedProtocol,), {"timeout_s": settings.header_timeout_s}),
        ws="none",
        access_log=False,  # `http_limits` writes its own
        log_config=None,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        limit_concurrency=settings.max_connections,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_graceful_shutdown=max(1, round(settings.send_timeout_s)),
    )


class DrainingServer(uvicorn.Server):
    """On SIGTERM it accepts no edits, paints the accepted ones, waits for their results to be fetched, and ends."""

    def __init__(self, config: uvicorn.Config, state: ServiceState, on_ready: OnReady | None = None) -> None:
        super().__init__(config)
        self._state, self._on_ready = state, on_ready
        self._signals = 0
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals without raising them again at the end, so that the exit code is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at a second signal, end."""
        self._signals += 1
        if self._signals > 1:
            self.should_exit = self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self._on_ready and sockets:
            self._on_ready(_address(sockets[0]))

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end now."""
        if self._signals and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        settings = self._state.settings
        _log.info("shutting down: accepted edits are painted first, for up to %g s", settings.drain_timeout_s)
        if not await asyncio.to_thread(self._state.dispatcher.drain, settings.drain_timeout_s):
            _log.warning("some edits were not done in time; their senders were told")
        workers = [edit.worker for edit in self._state.background if edit.worker is not None]
        if workers:
            await asyncio.wait(workers)
        await self._wait_for_fetches(settings.fetch_grace_s)
        self.should_exit = True

    async def _wait_for_fetches(self, grace_s: float) -> None:
        """Wait until the results of background jobs are fetched, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while any(edit.reply and not edit.is_fetched for edit in self._state.background):
                    await asyncio.sleep(POLL_S)


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no request arrives: uvicorn waits for headers for ever."""

    timeout_s = 15.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()
        elif self._timer is None:
            self._set_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stop_timer()
        if not self._is_answering():
            self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _set_timer(self) -> None:
        self._timer = self.loop.call_later(self.timeout_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def listener_of(settings: ServiceSettings) -> socket.socket:
    """Return a socket on the settings' address; raises UserError when it cannot be used."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{settings.host}, port {settings.port}: {reason.lower()}; choose another --port") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_open_files() -> None:
    """Allow as many open files as the system does: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
