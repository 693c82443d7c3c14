"""The whole pipeline: `dvc repro` stage by stage as one Prefect flow. DVC decides what has to run, Prefect when.

`python -m flows.pipeline` brings every stage up to date; `--serve "0 3 * * *"` keeps running and does so on a schedule.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from dvc.exceptions import DvcException, ReproductionError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, State, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed
from prefect.tasks import Task

from flows import server
from flows.interruption import INTERRUPTED_CODES, stop_children
from flows.output import copied_output
from flows.provenance import tracking_uri
from flows.stage import (
    BUG_CODE,
    EXIT_CODES,
    PARENT_TASK_RUN,
    REASON,
    UNAVAILABLE,
    USER_ERROR,
    errors_reported,
    fail,
    failed_state,
    finish,
    interruption_message,
)
from pbe import layout
from pbe.errors import UserError, one_line
from pbe.runtime.locks import hold_lock
from pbe.settings import load_settings

StageName = Literal["acquire", "filter", "backbone", "curate", "encode", "train", "bench", "evaluate", "register"]
STAGES: tuple[StageName, ...] = get_args(StageName)  # every stage comes after the stages whose outputs it reads
RETRIES = {"acquire": 2}  # of the stages that talk to other machines
RETRY_DELAYS_S = [10.0, 60.0]
MAX_REASONS = 3
Outcome = Literal["ran", "cached"]


def is_retryable(task_: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether another attempt may succeed: only a server, a network or a disk comes back by itself."""
    return state.name == UNAVAILABLE


@task(task_run_name="{stage}", retry_condition_fn=is_retryable, retry_delay_seconds=RETRY_DELAYS_S)
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


def pipeline_run_name() -> str:
    """Return the name of the pipeline's run: its stages, and whether they are forced."""
    given = flow_run.get_parameters()
    stages = ", ".join(given["stages"]) if given.get("stages") else "all stages"
    return f"{stages}, forced" if given.get("force") else stages


@flow(name="pipeline", flow_run_name=pipeline_run_name, persist_result=False)
def pipeline(stages: list[StageName] | None = None, force: bool = False) -> dict[str, Outcome] | State[Any]:
    """Bring the given stages up to date in order, by default all; `force` runs stages that are up to date as well.

    Returns the outcome of each stage, or the failed state of the first that failed.
    """
    try:
        with hold_lock(layout.stage_lock("pipeline"), timeout_s=0.0):
            outcomes, failed = reproduce_in_order([name for name in STAGES if stages is None or name in stages], force)
    except UserError as error:  # another pipeline holds the lock
        return failed_state(error)
    create_table_artifact([{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()], key="pipeline")
    return failed or outcomes


def reproduce_in_order(stages: list[StageName], force: bool) -> tuple[dict[str, Outcome], State[Any] | None]:
    """Return the outcome of each stage that completed, and the state of the stage that ended the run, if any."""
    outcomes: dict[str, Outcome] = {}
    for stage in stages:
        task_ = reproduce.with_options(retries=RETRIES.get(stage, 0))
        forced = force or (stage == "register" and registry_is_gone(Path()))
        state: State[Any] = task_(stage, forced, return_state=True)
        if not state.is_completed():
            return outcomes, State(type=state.type, name=state.name, message=state.message)
        outcomes[stage] = state.result()
    return outcomes, None


def stale(stages: list[StageName] | None = None) -> list[str]:
    """Return the names of those given stages whose code, parameters, inputs or outputs have changed."""
    with Repo() as repo:
        changed = repo.status(targets=list(stages or STAGES))  # without targets, those of the projects below as well
    if registry_is_gone(Path()):
        changed = {**changed, "register": []}
    return [name for name in changed if stages is None or name in stages]


def registry_is_gone(folder: Path) -> bool:
    """Return whether DVC has the output of `register`, but the project's own registry is missing."""
    own = "MLFLOW_TRACKING_URI" not in os.environ
    return own and (folder / layout.REGISTERED).exists() and not (folder / layout.MLFLOW_DATABASE).exists()


def summary(folder: Path) -> str:
    """Return where the report and the gallery are, and the version that is champion."""
    from pbe.serving.registry.versions import champion_version  # imports MLflow: 3 s

    name = load_settings(folder / layout.PARAMS).register_.name
    version = champion_version(name, tracking_uri=tracking_uri(folder))
    champion = f"{name} version {version}" if version else "none yet"
    return f"report:   {folder / layout.PAGE}\ngallery:  {folder / layout.GALLERY}\nchampion: {champion}"


def main(arguments: list[str] | None = None) -> None:
    """Bring the project up to date, or serve it on a schedule; exit with 2 for a user's error, with 1 for a bug."""
    options = _parser().parse_args(arguments)
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)  # it prints what to `git add` after every stage
    with errors_reported("the pipeline"):
        load_settings(layout.PARAMS)
        if options.serve is not None:
            _serve(options.serve, options.port)
            return
        try:
            _bring_up_to_date(options.stages or None, options.force)
        except DvcException as error:
            fail(one_line(error), EXIT_CODES[USER_ERROR])
        print(summary(Path()), flush=True)


def _bring_up_to_date(stages: list[StageName] | None, force: bool) -> None:
    if not force and not stale(stages):
        print("every stage is up to date")
        return
    with server.available():
        state = pipeline(stages, force, return_state=True)
    finish("pipeline", state)


def _serve(cron: str, port: int) -> None:
    """Run the pipeline on a schedule and when the UI asks for it, one run at a time, until a signal ends it."""
    with server.available(port, on_loss=partial(os.kill, os.getpid(), signal.SIGTERM)) as url:
        print(f"Prefect: {url.removesuffix('/api')}  schedule: {cron or 'none; start runs in the UI'}", flush=True)
        one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
        serve = partial(pipeline.serve, name="paint-by-example", cron=cron or None, global_limit=one_at_a_time, limit=1)
        # Outside of the main thread Prefect does not handle SIGTERM, which it would answer by waiting for its server.
        thread = threading.Thread(target=serve, name="serve", daemon=True)
        thread.start()
        try:
            thread.join()
        finally:
            stop_children(keep=server.is_own)
    fail("Prefect's runner has ended; its messages are above", BUG_CODE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("stages", nargs="*", help=f"{', '.join(STAGES)}; default: all")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date as well")
    parser.add_argument("--serve", nargs="?", const="", metavar="CRON", help="keep running, on this schedule")
    parser.add_argument(
        "--port", type=int, default=4200, help="of the Prefect server that --serve starts (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
