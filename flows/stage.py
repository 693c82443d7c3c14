"""What every stage shares: settings, lock, leash, progress, its Prefect flow, and how a mistake is told.

A stage is a plain function of (settings, project folder, bars) that returns its counts; `stage_flow` wraps it in a
Prefect flow and `main` is its command line. A person's mistake (ValueError, OSError) ends in one line on stderr and
exit code 2, its traceback saved under .pbe/; anything else is our own bug: exit code 1 and the traceback shown.
"""

import json
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
from flows.process import STATE, die_with_parent, hold
from flows.progress import Bars, shown
from pbe.files import written_whole
from pbe.settings import Settings, load_settings

PARAMS = Path("params.yaml")
PARENT_TASK_RUN = "PBE_PARENT_TASK_RUN_ID"  # how the pipeline's task tells the stage's process where to nest its run
MISTAKE = "Mistake"  # name of the failed state that a person can put right
MISTAKE_CODE, BUG_CODE = 2, 1

Counts = Mapping[str, Any]
Work = Callable[[Settings, Path, Bars], Counts]
StageFlow = Flow[[], Any]


def stage_flow(name: str, work: Work) -> StageFlow:
    """The Prefect flow of a stage: runs `work` on ./params.yaml in the working directory."""

    def run() -> Counts | State[Any]:
        return carry_out(name, work)

    return flow(name=name, description=(work.__doc__ or name).strip(), persist_result=False)(run)


def carry_out(name: str, work: Work) -> Counts | State[Any]:
    """Run a stage's work under its lock and report its counts.

    Returns the counts, or the failed state named Mistake with a message of one line, when the work raised
    ValueError or OSError: Prefect would log a raised exception with its traceback.
    """
    try:
        with hold(name):
            counts = work(load_settings(PARAMS), Path(), shown(name))
    except (ValueError, OSError) as error:
        STATE.mkdir(exist_ok=True)
        (STATE / f"{name}.traceback").write_text(traceback.format_exc())
        return Failed(name=MISTAKE, message=one_line(error))
    rows = list(flat(counts))
    create_table_artifact([{"what": key, "value": value} for key, value in rows], key=f"{name}-counts")
    print(f"{name}: " + (", ".join(f"{key} {value}" for key, value in rows) or "done"), flush=True)
    return counts


def main(stage: StageFlow) -> None:
    """A stage's command line, `python -m flows.<stage>` in the project's folder; exits with 2 or 1 when it failed."""
    if "DVC_STAGE" in os.environ:
        die_with_parent()
    try:
        load_settings(PARAMS)  # a mistake there should not wait for a server to start
        with server.available():
            state = run_nested(stage)
    except ValueError as error:
        fail(one_line(error), MISTAKE_CODE)
    except KeyboardInterrupt:
        fail(f"{stage.name} was interrupted", 130)
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
    """Return when the run completed; else say why in one line on stderr and exit with 2 (a mistake) or 1 (a bug)."""
    if state.is_completed():
        return
    if state.name == MISTAKE:
        fail(state.message or name, MISTAKE_CODE)
    cause = state.result(raise_on_failure=False)
    if isinstance(cause, BaseException):
        traceback.print_exception(cause)
    fail(f"{name}: {' '.join((state.message or str(state.name)).split())}", BUG_CODE)


def fail(message: str, code: int) -> NoReturn:
    """Print `error: message` on stderr and exit with `code`."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def one_line(error: Exception) -> str:
    """An error's message on one line; a file error as `file: what`, one that came through Ray as its own cause's."""
    cause = getattr(error, "cause", None)  # a RayTaskError's text is its traceback
    if isinstance(cause, Exception):
        error = cause
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split())


def flat(counts: Counts, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested counts as (dotted name, value), in order."""
    rows: list[tuple[str, Any]] = []
    for key, value in counts.items():
        name = f"{prefix}{key}"
        rows += flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return rows


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """Write JSON that is the same bytes for the same payload, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(json.dumps(payload, indent=2, sort_keys=True) + "\n")
