"""`down` stops everything that `up` has started, also what a killed supervisord has left."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from flows.services import processes
from flows.services.plan import WORKER
from flows.services.supervision import STOP_S, connect, socket_path
from pbe.errors import UserError

STOP_RUNS_S = 12.0  # a stage ends within seven seconds of a signal
STOP_ALL_S = 45.0  # supervisord stops one service after the other


def down(folder: Path) -> bool:
    """Stop the worker's runs, then all services, and return when no process is left; False when none was there.

    Raises UserError when a process does not even end after SIGKILL.
    """
    found = processes.marked(folder)
    if not found:
        return False
    if (supervisor := connect()) is not None:
        supervisor.stop(WORKER, wait=False)  # it accepts no further run, and waits for those that it has started
        stop_runs(folder)
        supervisord = [process for process in found if process.pid == supervisor.pid]
        supervisor.shut_down()
        processes.wait(supervisord, STOP_ALL_S)  # it does not know what a killed service has left behind
    if not processes.end_all(folder, STOP_S):
        left = ", ".join(str(process.pid) for process in processes.marked(folder))
        raise UserError(f"these processes do not end, even after SIGKILL: {left}")
    socket_path(folder).unlink(missing_ok=True)  # of a supervisord that was killed
    return True


def stop_runs(folder: Path) -> None:
    """Stop the runs while Prefect's server is still there to record how they end."""
    runs = processes.flow_runs(processes.marked(folder))
    every = [process for found in runs.values() for process in found]
    for group in {_group_of(process) for process in every}:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
    processes.wait(every, STOP_RUNS_S)


def _group_of(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return int(process.pid)
