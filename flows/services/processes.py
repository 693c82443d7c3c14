"""The processes of a project's services, found by the mark in their environment, and how they all end."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from flows.services.plan import MARK

FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # in the environment of a run that a Prefect worker has started
_ROUNDS = 20  # a process may start another one while it ends


def marked(folder: Path) -> list[psutil.Process]:
    """Return the processes of the services of the project in `folder`, and all that run below them.

    This process and those that it runs below are left out, so that a run of the worker may call this.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if environment_of(process).get(MARK) == str(folder):
            found |= {each.pid: each for each in (process, *_below(process))}
    return [process for pid, process in found.items() if pid not in own and _is_running(process)]


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment with which a process has started; empty when it has ended or is another user's."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def listens(port: int, folder: Path) -> bool:
    """Return whether a process of the project's services listens on the port, and not another program."""
    pids = {
        each.pid for each in psutil.net_connections(kind="tcp") if each.status == "LISTEN" and each.laddr.port == port
    }
    return any(process.pid in pids for process in marked(folder))


def flow_runs(processes: Iterable[psutil.Process]) -> dict[str, list[psutil.Process]]:
    """Return the processes of each run of Prefect among these, by the run's id."""
    found: dict[str, list[psutil.Process]] = {}
    for process in processes:
        if run := environment_of(process).get(FLOW_RUN):
            found.setdefault(run, []).append(process)
    return found


def send(number: int, processes: Iterable[psutil.Process]) -> None:
    """Send a signal to those of the processes that still run."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return the processes that still run after `timeout_s` seconds, or none as soon as all have ended."""
    deadline = time.monotonic() + timeout_s
    left = list(processes)
    while (left := [process for process in left if _is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def end_all(folder: Path, grace_s: float) -> bool:
    """End all processes of the services: SIGTERM, and SIGKILL after `grace_s` seconds; return whether none is left."""
    found = marked(folder)
    send(signal.SIGTERM, found)
    wait(found, grace_s)
    for _ in range(_ROUNDS):
        if not (found := marked(folder)):
            return True
        send(signal.SIGKILL, found)
        wait(found, 1.0)
    return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []
