"""The Prefect server of one `dvc repro`: the first stage that runs starts it, and it ends with DVC's process.

To start and stop a server takes some seconds, and a stage may take less.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from pbe import layout
from pbe.runtime.files import read_json, write_json
from pbe.runtime.locks import hold_lock

STATE = layout.PREFECT_HOME / "dvc-repro.json"
_LOCK_S = 300.0
_POLL_S = 0.25


def shared_server(start: Callable[[int], str]) -> str | None:
    """Return the address of the server of the `dvc repro` that runs this process; None when another program runs it.

    `start` takes the id of DVC's process, starts a server that ends with it, and returns the server's address.
    """
    dvc = dvc_process()
    if dvc is None:
        return None
    run = {"pid": dvc.pid, "started": dvc.create_time()}
    with hold_lock(layout.stage_lock("shared-server"), _LOCK_S):
        known = read_json(STATE) if STATE.is_file() else {}
        if known.get("dvc") == run and is_healthy(known["url"]):
            return str(known["url"])
        url = start(dvc.pid)
        write_json(STATE, {"dvc": run, "url": url})
    return url


def dvc_process() -> psutil.Process | None:
    """Return the process of the `dvc` command that runs this stage, or None without one."""
    if "DVC_STAGE" not in os.environ:
        return None
    return next((each for each in psutil.Process().parents() if _is_dvc(each)), None)


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name == "dvc" for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def wait_for_process(pid: int) -> None:
    """Return when a process has ended."""
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_S)
    except psutil.NoSuchProcess:
        return


def is_healthy(url: str) -> bool:
    """Return whether a server answers at the address of its API."""
    try:
        return httpx.get(f"{url}/health", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False
