"""A Prefect server on loopback, for runs that have no server configured.

`python -m flows.server` is the server's process, which ends with the process that started it. It listens on the socket
that it inherits (`--socket N`), or on a port (`--port N`).
"""

import argparse
import errno
import itertools
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil

from flows.interruption import was_interrupted
from flows.services.health import running_prefect
from flows.shared_server import shared_server, wait_for_process
from pbe import layout
from pbe.errors import UnavailableError, UserError, disk_error, one_line
from pbe.runtime.child_processes import exit_with_parent, start_child, stop_process, wait_for_parent
from pbe.runtime.locks import hold_lock
from pbe.runtime.ports import LOOPBACK, listen

USER_ERROR_CODE = 2
START_S = 300.0  # the first start migrates a new database: 12 s on two free cores
MIN_FREE_BYTES = 2**20  # a new database needs as much
MAX_RESTARTS = 5
WRITES_S = 0.5  # the server writes task runs shortly after it has received their events
_STOP_S, _STOP_INTERRUPTED_S = 10.0, 2.0
_DRAIN_S, _DRAIN_INTERRUPTED_S = 10.0, 1.0

logger = logging.getLogger(__name__)

_is_lost = False
_shared: list[subprocess.Popen[str]] = []  # outlasts this process, which must not wait for it


@contextmanager
def available(port: int = 0, on_loss: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Yield the address of the configured server's API, of that of `make up`, or of one that is started.

    Within `dvc repro` all stages use the one that the first of them starts; otherwise it is started for the block.
    PREFECT_API_URL, a profile or prefect.toml configures a server. A started one listens on `port`, by default on any
    free one. When it ends within the block it is started again, at most MAX_RESTARTS times; after that `on_loss` is
    called. PREFECT_API_URL names the server to child processes. Raises UnavailableError when the configured server does
    not answer or the started one does not start, UserError when the port is in use or the disk is full.
    """
    from prefect.settings import PREFECT_API_URL

    configured = PREFECT_API_URL.value()
    if configured:
        if not answers(attempts=3):
            raise UnavailableError(
                f"PREFECT_API_URL={configured}: no Prefect server answers; start it, or unset PREFECT_API_URL"
            )
        try:
            yield configured
        finally:
            send_queued_records()
    elif port == 0 and (running := running_prefect() or shared_server(_start_shared)):
        # A second server would share the database of the first.
        with _in_use(running):
            yield running
    else:
        own = OwnServer(port, on_loss)
        own.start()
        try:
            with _in_use(own.url):
                yield own.url
            time.sleep(WRITES_S)
        finally:
            own.stop()


@contextmanager
def _in_use(url: str) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    os.environ["PREFECT_API_URL"] = url
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield
            finally:
                send_queued_records()
    finally:
        del os.environ["PREFECT_API_URL"]


def answers(attempts: int) -> bool:
    """Return whether the server that Prefect's settings name answers to one of `attempts` requests."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: attempts - 1}), get_client(sync_client=True) as client:
        return not isinstance(client.api_healthcheck(), httpx.TransportError)


def is_own(process: psutil.Process) -> bool:
    """Return whether a process is a server of this module."""
    try:
        return "flows.server" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def is_lost() -> bool:
    """Return whether the server did not answer any more at the end of its block."""
    return _is_lost


class OwnServer:
    """A server in a separate process and session, so that Ctrl-C reaches it only through this process."""

    def __init__(self, port: int, on_loss: Callable[[], object]) -> None:
        self._socket = listen(port, "--port")
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{LOOPBACK}:{self.port}/api"
        self._on_loss = on_loss
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the server, wait until it answers, and watch it from a thread."""
        self._process = _start(self._socket, self.url)
        threading.Thread(target=self._watch, name="prefect-server", daemon=True).start()

    def stop(self) -> None:
        """Stop the server."""
        self._stopping.set()
        if self._process is not None:
            _stop(self._process)
        self._socket.close()

    def _watch(self) -> None:
        for restarts in itertools.count():
            assert self._process is not None
            self._process.wait()
            if self._stopping.is_set():
                return
            if restarts == MAX_RESTARTS:
                break
            print(f"Prefect's server on port {self.port} has ended; starting it again", file=sys.stderr, flush=True)
            try:
                self._process = _start(self._socket, self.url)
            except UserError as error:
                print(error, file=sys.stderr, flush=True)
                break
            if self._stopping.is_set():
                _stop(self._process)
        self._socket.close()  # from here on, clients are refused and do not wait
        self._on_loss()


def _start_shared(pid: int) -> str:
    """Start a server that ends with the process `pid`, and return its address."""
    with listen(0, "--port") as bound:
        url = f"http://{LOOPBACK}:{bound.getsockname()[1]}/api"
        _shared.append(_start(bound, url, ["--until", str(pid)]))
    return url


def _start(bound: socket.socket, url: str, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    home = layout.PREFECT_HOME
    home.mkdir(exist_ok=True)
    arguments = ["--socket", str(bound.fileno()), *more]
    # Two servers must not migrate the same database concurrently.
    with (
        hold_lock(layout.stage_lock("prefect-server"), START_S),
        (home / "server.log").open("ab") as log,
        ExitStack() as unless_started,
    ):
        process = start_child(
            "flows.server", arguments, log, subprocess.STDOUT, pass_fds=[bound.fileno()], new_session=True
        )
        unless_started.callback(_stop, process)
        deadline = time.monotonic() + START_S
        while not _is_healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise not_started(url, home / "server.log")
            time.sleep(0.2)
        unless_started.pop_all()
    return process


def not_started(url: str, log: Path) -> UserError:
    """Return the error of a server that did not start: the disk is full, or what its log ends with."""
    if shutil.disk_usage(log.parent).free < MIN_FREE_BYTES:
        full = disk_error(OSError(errno.ENOSPC, "full", str(log.parent)))
        assert full is not None
        return full
    last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
    return UnavailableError(f"Prefect's server did not start on {url}: {last} ({log})")


def _stop(process: subprocess.Popen[str]) -> None:
    stop_process(process, _STOP_INTERRUPTED_S if was_interrupted() else _STOP_S)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def loss_reported() -> Iterator[None]:
    """Warn when the block fails because the server is lost: it only shows what a run has done."""
    try:
        yield
    except httpx.HTTPError as error:
        logger.warning("Prefect's server does not show all of this run: %s", one_line(error))


def send_queued_records() -> None:
    """Wait for the task-run events and logs that Prefect sends from threads; otherwise the last ones are lost.

    Where the server does not answer any more, nothing is waited for.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    timeout_s = _DRAIN_INTERRUPTED_S if was_interrupted() else _DRAIN_S
    global _is_lost
    _is_lost = not answers(attempts=1)
    if _is_lost:
        return
    EventsWorker.drain_all(timeout=timeout_s)
    APILogWorker.drain_all(timeout=timeout_s)


def main() -> int:
    """Serve Prefect's API and UI on 127.0.0.1 until terminated, and return the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=int, help="number of the file descriptor, bound to a port")
    where.add_argument("--port", type=int)
    parser.add_argument("--until", type=int, help="process to end with; by default the one that started the server")
    options = parser.parse_args()
    try:
        bound = listen(options.port, "--port") if options.socket is None else socket.socket(fileno=options.socket)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    wait = wait_for_parent if options.until is None else partial(wait_for_user, options.until)
    exit_with_parent(wait, grace_s=8.0)
    _serve(bound)
    return 0


def wait_for_user(pid: int) -> None:
    """Return when the process that uses the server has ended, and its last records are written."""
    wait_for_process(pid)
    time.sleep(WRITES_S)


def _serve(bound: socket.socket) -> None:
    import uvicorn

    url = f"http://{LOOPBACK}:{bound.getsockname()[1]}/api"
    os.environ["PREFECT_API_URL"] = os.environ["PREFECT_UI_API_URL"] = url  # for the server's own services and pages
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="warning",
        timeout_graceful_shutdown=3,  # pages of the UI keep their connections
    )
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    sys.exit(main())
