"""A Prefect server of the project's own, on loopback, for runs that no server was configured for.

`python -m flows.server --port N` is the server's process; it ends with the process that started it.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.process import die_with_parent, hold

HOME = Path(".prefect")  # as in prefect.toml
START_S = 300.0  # the first start migrates a new database: 12 s on two free cores


@contextmanager
def available(port: int | None = None) -> Iterator[str]:
    """Yield the address of the configured server's API, else of one that is started for the block.

    A server is configured by PREFECT_API_URL, a profile or prefect.toml. `port` is where an own one listens; none
    means any free one. PREFECT_API_URL names it to child processes. Raises RuntimeError when it does not come up.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        yield configured
        return
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}/api"
    process = _start(port, url)
    os.environ["PREFECT_API_URL"] = url
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
            _send_what_is_queued()
    finally:
        del os.environ["PREFECT_API_URL"]
        _stop(process)


def _start(port: int, url: str) -> subprocess.Popen[bytes]:
    HOME.mkdir(exist_ok=True)
    with hold("prefect-server"), (HOME / "server.log").open("ab") as log:  # two must not migrate one database at once
        process = subprocess.Popen([sys.executable, "-m", "flows.server", "--port", str(port)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                _stop(process)
                raise RuntimeError(f"Prefect's server did not start on {url}; see {HOME / 'server.log'}")
            time.sleep(0.2)
    return process


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _send_what_is_queued() -> None:
    """Wait for the task-run events and logs that Prefect sends from threads; without it the last ones are lost."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)
    time.sleep(0.5)  # the server writes task runs a moment after it has taken their events


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Serve Prefect's API and UI on 127.0.0.1 until terminated."""
    import uvicorn

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    die_with_parent()
    url = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_API_URL"] = os.environ["PREFECT_UI_API_URL"] = url  # the server's own services and pages
    uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
