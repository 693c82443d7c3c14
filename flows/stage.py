"""What all stages share: settings, lock, progress, the Prefect flow, and how an error ends.

A stage is a function of (settings, project folder, progress bars) that returns its counts. `stage_flow` wraps it in a
Prefect flow, and `main` is its command line. A `UserError` ends in one line on stderr and exit code 2 (75 for an
`UnavailableError`, which a scheduled run retries); any other exception is a bug, with its traceback and exit code 1.
Prefect only records a run: a stage that has finished its work has succeeded, also when Prefect's server is lost.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import httpx
from prefect import flow, get_client
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from flows import server
from flows.interruption import (
    exit_now,
    exit_within,
    handle_signals,
    ignore_signals,
    interrupted_code,
    was_interrupted,
)
from flows.progress import stage_progress
from pbe import layout
from pbe.errors import UnavailableError, UserError, disk_errors_reported, one_line
from pbe.runtime.child_processes import exit_with_parent
from pbe.runtime.locks import hold_lock
from pbe.settings import Settings, load_settings
from pbe.types import ProgressBars

PARENT_TASK_RUN = "PBE_PARENT_TASK_RUN_ID"  # the task run below which a stage's process nests its flow run
REASON = "PBE_REASON"  # why the pipeline runs the stage
USER_ERROR, UNAVAILABLE = "UserError", "Unavailable"  # names of failed states
EXIT_CODES = {USER_ERROR: 2, UNAVAILABLE: 75}  # 75: EX_TEMPFAIL
BUG_CODE = 1
_LOCK_TIMEOUT_S = 30.0  # a stage whose parent was killed needs some seconds to end
_GRACE_S = 8.0
_PARENT_S = 30.0  # a busy server writes the parent's task run some seconds after it has begun
# Prefect's threads would send their records to a lost server for four minutes.
_EXIT_S, _EXIT_WITHOUT_SERVER_S = 15.0, 2.0

Counts = Mapping[str, Any]
Work = Callable[[Settings, Path, ProgressBars], Counts]
StageFlow = Flow[[], Any]

_outcomes: ContextVar[list[State[Any]] | None] = ContextVar("outcomes", default=None)  # of this process's stage


def stage_flow(name: str, work: Work) -> StageFlow:
    """Return the Prefect flow of a stage: it runs `work` on params.yaml in the working directory."""

    def run() -> Counts | State[Any]:
        result = run_stage(name, work)
        if (outcomes := _outcomes.get()) is not None:
            outcomes.append(result if isinstance(result, State) else Completed())
        return result

    described = (work.__doc__ or name).strip()
    return flow(name=name, flow_run_name=partial(_run_name, name), description=described, persist_result=False)(run)


def _run_name(name: str) -> str:
    """Return the name of a stage's run: the stage, and why it runs."""
    by_hand = "dvc repro" if "DVC_STAGE" in os.environ else "run by hand"
    return f"{name}: {os.environ.get(REASON) or by_hand}"


def run_stage(name: str, work: Work) -> Counts | State[Any]:
    """Run a stage's work under its lock and report its counts.

    Returns the counts, or a state with a message of one line for an error that is the user's to correct and for an
    interruption: Prefect would log a raised exception with its traceback.
    """
    try:
        with handle_signals(), disk_errors_reported(), hold_lock(layout.stage_lock(name), _LOCK_TIMEOUT_S):
            counts = work(load_settings(layout.PARAMS), Path(), stage_progress(name))
    except UserError as error:
        return failed_state(error)
    except KeyboardInterrupt:
        return Cancelled(message=interruption_message(name))
    rows = list(flatten(counts))
    print(f"{name}: " + (", ".join(f"{key} {value}" for key, value in rows) or "done"), flush=True)
    with server.loss_reported():
        create_table_artifact([{"what": key, "value": value} for key, value in rows], key=f"{name}-counts")
    return counts


def failed_state(error: UserError) -> State[Any]:
    """Return the failed state that stands for a UserError; its name decides about retries and the exit code."""
    return Failed(name=state_name(error), message=one_line(error))


def state_name(error: UserError) -> str:
    """Return the name of the failed state that stands for a UserError."""
    return UNAVAILABLE if isinstance(error, UnavailableError) else USER_ERROR


def interruption_message(name: str) -> str:
    """Return the line that an interrupted stage or pipeline ends with."""
    return f"{name} was interrupted; the next run continues from here"


def main(stage: StageFlow) -> None:
    """Run a stage's command line, `python -m flows.<stage>` in the project's folder; exit with its code if it fails."""
    if "DVC_STAGE" in os.environ:  # kill -9 of `dvc repro` would leave this process to write beside the next one's
        exit_with_parent(grace_s=_GRACE_S)
    with errors_reported(stage.name):
        load_settings(layout.PARAMS)  # an error in it is reported before a server starts
        with server.available():
            state = run_nested(stage)
        finish(stage.name, state)


@contextmanager
def errors_reported(name: str) -> Iterator[None]:
    """Run a command in the block: a UserError, Ctrl-C and SIGTERM end it with one line and their exit code.

    The process ends within seconds after the block, also when threads of Prefect still try to reach its server.
    """
    logging.raiseExceptions = False  # a lost server is reported once, and not for every record of Prefect's
    logging.getLogger("prefect._internal").setLevel(logging.CRITICAL)
    with handle_signals():
        try:
            with disk_errors_reported():
                yield
        except UserError as error:
            fail(one_line(error), EXIT_CODES[state_name(error)])
        except KeyboardInterrupt:
            fail(interruption_message(name), interrupted_code())
    ignore_signals()
    exit_within(_exit_s(), 0)


def run_nested(stage: StageFlow) -> State[Any]:
    """Run the flow below the pipeline's task run that the environment names, or at the top when it names none.

    Returns the run's final state, even if Prefect's server could not be reached. Raises UnavailableError
    when the server was lost before the stage's work began.
    """
    outcomes: list[State[Any]] = []
    token = _outcomes.set(outcomes)
    try:
        # Without heartbeats, whose thread ends up to a second later: nothing reads them, and a killed run is found by
        # its process (flows/services/worker.py).
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            state = run_flow(stage, flow_run=_nested_run(stage), return_type="state")
    except httpx.HTTPError as error:
        if not outcomes:
            raise UnavailableError(f"Prefect's server failed before {stage.name} began: {one_line(error)}") from None
        print(f"warning: Prefect's server has not recorded the end of {stage.name}: {one_line(error)}", file=sys.stderr)
        return outcomes[-1]
    finally:
        _outcomes.reset(token)
    assert isinstance(state, State)
    return outcomes[-1] if outcomes else state


def _nested_run(stage: StageFlow) -> FlowRun | None:
    parent = os.environ.get(PARENT_TASK_RUN)
    if not parent:
        return None
    deadline = time.monotonic() + _PARENT_S
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            try:
                return client.create_flow_run(stage, parent_task_run_id=UUID(parent))
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.CONFLICT:
                    raise
            time.sleep(0.5)
    return None


def finish(name: str, state: State[Any]) -> None:
    """Return when the run completed; otherwise print the reason on one line of stderr and exit with its code."""
    if state.is_completed():
        return
    if state.is_cancelled():
        if PARENT_TASK_RUN in os.environ:  # the pipeline prints the line
            exit_now(interrupted_code())
        fail(state.message or interruption_message(name), interrupted_code())
    if state.name in EXIT_CODES:
        fail(state.message or name, EXIT_CODES[state.name])
    cause = state.result(raise_on_failure=False)
    if isinstance(cause, BaseException):
        traceback.print_exception(cause)
    fail(f"{name}: {' '.join((state.message or str(state.name)).split())}", BUG_CODE)


def fail(message: str, code: int) -> NoReturn:
    """Print `error: message` on stderr and exit with `code`, within seconds also when threads are still busy."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    if was_interrupted():
        exit_now(code)
    exit_within(_exit_s(), code)
    raise SystemExit(code)


def _exit_s() -> float:
    return _EXIT_WITHOUT_SERVER_S if server.is_lost() else _EXIT_S


def flatten(counts: Counts, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested counts as (dotted name, value), in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in counts.items():
        name = f"{prefix}{key}"
        rows += flatten(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return rows
