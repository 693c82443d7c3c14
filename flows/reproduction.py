"""Brings stages up to date through DVC, inside a flow run: the work of the deployments that run the pipeline."""

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from dvc.exceptions import DvcException, ReproductionError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.runtime import deployment
from prefect.states import Cancelled, Failed

from flows.artifacts import StageRow, publish_model, publish_stages
from flows.interruption import INTERRUPTED_CODES
from flows.notification import notify
from flows.output import copied_output
from flows.retries import RETRIES, RETRY_DELAYS_S, is_retryable
from flows.stage import EXIT_CODES, PARENT_TASK_RUN, REASON, failed_state, interruption_message
from pbe import layout
from pbe.errors import UserError, one_line
from pbe.runtime.locks import hold_lock

StageName = Literal["acquire", "filter", "backbone", "curate", "encode", "train", "bench", "evaluate", "register"]
STAGES: tuple[StageName, ...] = get_args(StageName)  # every stage comes after the stages whose outputs it reads
MAX_REASONS = 3
WAIT_S = 24 * 3600.0  # of a scheduled run for one that a person has started in a terminal
Outcome = Literal["ran", "cached"]


def run_stages(stages: Sequence[StageName], forced: Collection[StageName]) -> dict[str, Outcome] | State[Any]:
    """Bring stages up to date in order, inside a flow run, and show there what they did.

    The stages in `forced` run also when they are up to date. Returns the outcome of each, or the state of the first
    that did not complete.
    """
    rows: list[StageRow] = []
    try:
        with pipeline_lock():
            ended = reproduce_in_order(stages, forced, rows)
    except UserError as error:  # another pipeline holds the lock
        return failed_state(error)
    publish_stages(rows)
    if ended is None:
        publish_model(Path())
    if ended is None:
        return {row.stage: "ran" if row.outcome == "ran" else "cached" for row in rows}
    if ended.is_cancelled():  # Prefect calls its hook for a run that its own interface cancels
        send_notification(ended)
    return ended


@contextmanager
def pipeline_lock() -> Iterator[None]:
    """Hold the project's pipeline for the block: a deployment's run waits for it, and one in a terminal does not."""
    path = layout.stage_lock("pipeline")
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(path, timeout_s=0.0))
        except UserError as error:
            if deployment.id is None:
                raise
            get_run_logger().warning("waiting until it is free: %s", one_line(error))
            held.enter_context(hold_lock(path, timeout_s=WAIT_S))
        yield


def send_notification(state: State[Any]) -> None:
    """Send the end of the present flow run to the webhook."""
    context = FlowRunContext.get()
    if context is not None and context.flow is not None and context.flow_run is not None:
        notify(context.flow, context.flow_run, state)


def reproduce_in_order(
    stages: Sequence[StageName], forced: Collection[StageName], rows: list[StageRow]
) -> State[Any] | None:
    """Add a row for each stage, and return the state of the stage that ended the run, or None when all completed."""
    for stage in stages:
        began = time.monotonic()
        state: State[Any] = reproduce(stage, stage in forced, return_state=True)
        seconds = time.monotonic() - began
        if not state.is_completed():
            rows.append(StageRow(stage, str(state.name), seconds, state.message or ""))
            return State(type=state.type, name=state.name, message=state.message)
        rows.append(StageRow(stage, state.result(), seconds))
    return None


@task(
    task_run_name="{stage}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_retryable,
)
def reproduce(stage: StageName, force: bool) -> Outcome | State[Any]:
    """Bring one stage up to date through DVC; its flow run is nested below this task's run.

    What the stage prints is in this run's log as well, and the last line of a stage that failed is this run's message.
    """
    context = TaskRunContext.get()
    assert context is not None
    log = get_run_logger()
    with Repo() as repo, copied_output(log.info) as last:
        reason = "forced" if force else reason_to_run(repo.status(targets=[stage]).get(stage, []))
        with stage_environment(**{PARENT_TASK_RUN: str(context.task_run.id), REASON: reason}):
            try:
                return "ran" if repo.reproduce(targets=[stage], single_item=True, force=force) else "cached"
            except DvcException as caught:
                error = caught
    return dvc_failure(stage, error, last.text)


@contextmanager
def stage_environment(**variables: str) -> Iterator[None]:
    """Set variables for the stage's process, and put this interpreter first on PATH: its command is `python -m ...`."""
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    before = {name: os.environ.get(name) for name in ("PATH", *variables)}
    os.environ.update({"PATH": found, **variables})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def reason_to_run(changes: Sequence[Any]) -> str:
    """Return what DVC's status says has changed of a stage, such as `train.steps, data/latents`."""
    names: list[str] = []
    for change in changes:
        if isinstance(change, str):  # "always changed", "changed command"
            names.append(change)
            continue
        for path, what in next(iter(change.values())).items():
            names += what if isinstance(what, Mapping) else [path]
    more = len(names) - MAX_REASONS
    return ", ".join(names[:MAX_REASONS]) + (f" and {more} more" if more > 0 else "")


def dvc_failure(stage: str, error: DvcException, last_line: str = "") -> State[Any]:
    """Return the state for an error of DVC; the exit code of the stage's process decides its name.

    `last_line` is the last that the stage printed: its message.
    """
    cause: BaseException = error
    if isinstance(error, ReproductionError) and error.__cause__ is not None:
        cause = error.__cause__
    message = one_line(cause)
    if not isinstance(cause, StageCmdFailedError):
        return Failed(message=f"stage {stage}: {message}")
    code = message.rpartition("exited with ")[2]  # DVC keeps the code in the message alone
    if code in map(str, (*INTERRUPTED_CODES, -signal.SIGINT, -signal.SIGTERM)):
        return Cancelled(message=interruption_message(f"stage {stage}"))
    name = next((name for name, each in EXIT_CODES.items() if code == str(each)), None)
    return Failed(name=name, message=f"stage {stage}: {last_line.removeprefix('error: ') or message}")
