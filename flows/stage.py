"""What all stages share: settings, lock, progress, the Prefect flow, and how an error ends.

A stage is a function of (settings, project folder, progress bars) that returns its counts. `stage_flow` wraps it in a
Prefect flow, and `main` is its command line. A `UserError` ends in one line on stderr and exit code 2 (75 for an
`UnavailableError`, which a scheduled run retries); any other exception is a bug, with its traceback and exit code 1.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect import flow, get_client
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.states import Failed

from flows import server
from flows.progress import stage_progress
from pbe import layout
from pbe.errors import UnavailableError, UserError, disk_errors_reported, one_line
from pbe.runtime.child_processes import exit_with_parent
from pbe.runtime.locks import hold_lock
from pbe.settings import Settings, load_settings
from pbe.types import ProgressBars

PARENT_TASK_RUN = "PBE_PARENT_TASK_RUN_ID"  # the task run below which a stage's process nests its flow run
USER_ERROR, UNAVAILABLE = "UserError", "Unavailable"  # names of failed states
EXIT_CODES = {USER_ERROR: 2, UNAVAILABLE: 75}  # 75: EX_TEMPFAIL
BUG_CODE, INTERRUPTED_CODE = 1, 130
_LOCK_TIMEOUT_S = 30.0  # a stage whose parent was killed needs some seconds to end
_GRACE_S = 8.0

Counts = Mapping[str, Any]
Work = Callable[[Settings, Path, ProgressBars], Counts]
StageFlow = Flow[[], Any]


def stage_flow(name: str, work: Work) -> StageFlow:
    """Return the Prefect flow of a stage: it runs `work` on params.yaml in the working directory."""

    def run() -> Counts | State[Any]:
        return run_stage(name, work)

    return flow(name=name, description=(work.__doc__ or name).strip(), persist_result=False)(run)


def run_stage(name: str, work: Work) -> Counts | State[Any]:
    """Run a stage's work under its lock and report its counts.

    Returns the counts, or a failed state with a message of one line for an error that is the user's to correct: Prefect
    would log a raised exception with its traceback.
    """
    try:
        with disk_errors_reported(), hold_lock(layout.stage_lock(name), _LOCK_TIMEOUT_S):
            counts = work(load_settings(layout.PARAMS), Path(), stage_progress(name))
    except UserError as error:
        return failed_state(error)
    rows = list(flatten(counts))
    create_table_artifact([{"what": key, "value": value} for key, value in rows], key=f"{name}-counts")
    print(f"{name}: " + (", ".join(f"{key} {value}" for key, value in rows) or "done"), flush=True)
    return counts


def failed_state(error: UserError) -> State[Any]:
    """Return the failed state that stands for a UserError; its name decides about retries and the exit code."""
    return Failed(name=UNAVAILABLE if isinstance(error, UnavailableError) else USER_ERROR, message=one_line(error))


def main(stage: StageFlow) -> None:
    """Run a stage's command line, `python -m flows.<stage>` in the project's folder; exit with its code if it fails."""
    if "DVC_STAGE" in os.environ:  # kill -9 of `dvc repro` would leave this process to write beside the next one's
        exit_with_parent(grace_s=_GRACE_S)
    try:
        load_settings(layout.PARAMS)  # an error in it is reported before a server starts
        with server.available():
            state = run_nested(stage)
    except UserError as error:
        fail(one_line(error), EXIT_CODES[USER_ERROR])
    except KeyboardInterrupt:
        fail(f"{stage.name} was interrupted", INTERRUPTED_CODE)
    finish(stage.name, state)


def run_nested(stage: StageFlow) -> State[Any]:
    """Run the flow below the pipeline's task run that the environment names, or at the top when it names none."""
    parent = os.environ.get(PARENT_TASK_RUN)
    flow_run: FlowRun | None = None
    if parent:
        with get_client(sync_client=True) as client:
            flow_run = client.create_flow_run(stage, parent_task_run_id=UUID(parent))
    state = run_flow(stage, flow_run=flow_run, return_type="state")
    assert isinstance(state, State)
    return state


def finish(name: str, state: State[Any]) -> None:
    """Return when the run completed; otherwise print the reason on one line of stderr and exit with its code."""
    if state.is_completed():
        return
    if state.name in EXIT_CODES:
        fail(state.message or name, EXIT_CODES[state.name])
    cause = state.result(raise_on_failure=False)
    if isinstance(cause, BaseException):
        traceback.print_exception(cause)
    fail(f"{name}: {' '.join((state.message or str(state.name)).split())}", BUG_CODE)


def fail(message: str, code: int) -> NoReturn:
    """Print `error: message` on stderr and exit with `code`."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def flatten(counts: Counts, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested counts as (dotted name, value), in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in counts.items():
        name = f"{prefix}{key}"
        rows += flatten(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return rows
