"""A Prefect server on loopback, for runs that have no server configured.

`python -m flows.server --port N` is the server's process; it ends with the process that started it.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from pbe import layout
from pbe.runtime.child_processes import exit_with_parent, start_child, stop_process
from pbe.runtime.locks import hold_lock
from pbe.runtime.ports import LOOPBACK, free_port

START_S = 300.0  # the first start migrates a new database: 12 s on two free cores
_STOP_S = 10.0


@contextmanager
def available(port: int | None = None) -> Iterator[str]:
    """Yield the address of the configured server's API, or of a server that is started for the block.

    PREFECT_API_URL, a profile or prefect.toml configures a server. A started one listens on `port`, by default on any
    free one, and PREFECT_API_URL names it to child processes. Raises RuntimeError when it does not start.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        yield configured
        return
    port = port or free_port()
    url = f"http://{LOOPBACK}:{port}/api"
    process = _start(port, url)
    os.environ["PREFECT_API_URL"] = url
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
            _send_queued_records()
    finally:
        del os.environ["PREFECT_API_URL"]
        stop_process(process, _STOP_S)


def _start(port: int, url: str) -> subprocess.Popen[str]:
    home = layout.PREFECT_HOME
    home.mkdir(exist_ok=True)
    # Two servers must not migrate the same database concurrently.
    with (
        hold_lock(layout.stage_lock("prefect-server"), START_S),
        (home / "server.log").open("ab") as log,
        ExitStack() as unless_started,
    ):
        process = start_child("flows.server", ["--port", str(port)], stdout=log, stderr=subprocess.STDOUT)
        unless_started.callback(stop_process, process, _STOP_S)
        deadline = time.monotonic() + START_S
        while not _is_healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prefect's server did not start on {url}; its log is {home / 'server.log'}")
            time.sleep(0.2)
        unless_started.pop_all()
    return process


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


def _send_queued_records() -> None:
    """Wait for the task-run events and logs that Prefect sends from threads; otherwise the last ones are lost."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)
    time.sleep(0.5)  # the server writes task runs shortly after it has received their events


def main() -> None:
    """Serve Prefect's API and UI on 127.0.0.1 until terminated."""
    import uvicorn

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    exit_with_parent(grace_s=8.0)
    url = f"http://{LOOPBACK}:{port}/api"
    os.environ["PREFECT_API_URL"] = os.environ["PREFECT_UI_API_URL"] = url  # for the server's own services and pages
    uvicorn.run("prefect.server.api.server:create_app", factory=True, host=LOOPBACK, port=port, log_level="warning")


if __name__ == "__main__":
    main()
