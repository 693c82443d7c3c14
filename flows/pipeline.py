"""The whole pipeline: `dvc repro` stage by stage as one Prefect flow; DVC says what has to run, Prefect when.

`python -m flows.pipeline` brings everything up to date; `--serve "0 3 * * *"` stays and does so on a schedule.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from dvc.exceptions import DvcException, ReproductionError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Failed
from prefect.tasks import Task

from flows import layout, server
from flows.process import hold
from flows.provenance import tracking_uri
from flows.stage import MISTAKE, MISTAKE_CODE, PARAMS, PARENT_TASK_RUN, fail, finish, one_line
from pbe.settings import load_settings

StageName = Literal["acquire", "filter", "backbone", "curate", "encode", "train", "evaluate", "register"]
STAGES: tuple[StageName, ...] = get_args(StageName)  # an order in which every stage follows what it reads
RETRIES = {"acquire": 2}  # only what talks to other machines can succeed at a second try
RETRY_DELAYS_S = [10.0, 60.0]
Outcome = Literal["ran", "cached"]


def worth_a_retry(task_: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A person's mistake stays one however often the stage is tried."""
    return state.name != MISTAKE


@task(task_run_name="{stage}", retry_condition_fn=worth_a_retry, retry_delay_seconds=RETRY_DELAYS_S)
def reproduce(stage: StageName, force: bool) -> Outcome | State[Any]:
    """Bring one stage up to date through DVC; its flow run is nested under this task's run."""
    context = TaskRunContext.get()
    assert context is not None
    os.environ[PARENT_TASK_RUN] = str(context.task_run.id)
    try:
        with Repo() as repo:
            return "ran" if repo.reproduce(targets=[stage], single_item=True, force=force) else "cached"
    except DvcException as error:
        return failed_state(stage, error)
    finally:
        del os.environ[PARENT_TASK_RUN]


def failed_state(stage: str, error: DvcException) -> State[Any]:
    """The failed state for what DVC raised: a Mistake when the stage's own exit code said so."""
    cause: BaseException = error
    if isinstance(error, ReproductionError) and error.__cause__ is not None:
        cause = error.__cause__
    told = " ".join(str(cause).split())
    if not isinstance(cause, StageCmdFailedError):
        return Failed(message=f"stage {stage}: {told}")
    name = MISTAKE if told.endswith(f"exited with {MISTAKE_CODE}") else None  # DVC keeps the code in its message alone
    return Failed(name=name, message=f"stage {stage} failed; its own message is above ({told})")


@flow(name="pipeline", persist_result=False)
def pipeline(stages: list[StageName] | None = None, force: bool = False) -> dict[str, Outcome] | State[Any]:
    """Bring the stages up to date in order, all of them where none are named; `force` runs them even if they are.

    Returns what happened to each, or the failed state of the first that failed.
    """
    try:
        with hold("pipeline", wait_s=0.0):
            outcomes, failed = reproduce_in_order([name for name in STAGES if stages is None or name in stages], force)
    except ValueError as error:  # another pipeline holds the lock
        return Failed(name=MISTAKE, message=one_line(error))
    create_table_artifact([{"stage": name, "outcome": outcome} for name, outcome in outcomes.items()], key="pipeline")
    return failed or outcomes


def reproduce_in_order(stages: list[StageName], force: bool) -> tuple[dict[str, Outcome], State[Any] | None]:
    """What happened to each stage, and the failed state of the one at which it ended, if any."""
    outcomes: dict[str, Outcome] = {}
    for stage in stages:
        tried = reproduce.with_options(retries=RETRIES.get(stage, 0))
        forced = force or (stage == "register" and registry_is_gone(Path()))
        state: State[Any] = tried(stage, forced, return_state=True)
        if not state.is_completed():
            return outcomes, Failed(name=state.name, message=state.message)
        outcomes[stage] = state.result()
    return outcomes, None


def stale(stages: list[StageName] | None = None) -> list[str]:
    """Names of the stages (of those asked for) whose code, parameters, inputs or outputs have changed."""
    with Repo() as repo:
        changed = repo.status(targets=list(stages) if stages else None)
    if registry_is_gone(Path()):
        changed = {**changed, "register": []}
    return [name for name in changed if stages is None or name in stages]


def registry_is_gone(folder: Path) -> bool:
    """Whether DVC has what `register` left, but the project's own registry was deleted or never came with it."""
    own = "MLFLOW_TRACKING_URI" not in os.environ
    return own and (folder / layout.REGISTERED).exists() and not (folder / "mlflow.db").exists()


def summary(folder: Path) -> str:
    """Where the report and the pictures are, and which model version people use."""
    from pbe.serving.registry import champion_version  # imports MLflow: 3 s

    name = load_settings(folder / PARAMS).register_.name
    version = champion_version(name, tracking_uri=tracking_uri(folder))
    champion = f"{name} version {version}" if version else "none yet"
    return f"report:   {folder / layout.PAGE}\ngallery:  {folder / layout.GALLERY}\nchampion: {champion}"


def main(arguments: list[str] | None = None) -> None:
    """Bring the project up to date, or serve it on a schedule; exits with 2 for a mistake, 1 for a bug."""
    options = _parser().parse_args(arguments)
    # A stage's command is `python -m ...`: the interpreter that runs this must be the one the shell finds.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)  # what to `git add`, after every stage
    try:
        load_settings(PARAMS)
        if options.serve is not None:
            _serve(options.serve, options.port)
            return
        _bring_up_to_date(options.stages or None, options.force)
        print(summary(Path()))
    except (ValueError, DvcException) as error:
        fail(one_line(error), MISTAKE_CODE)
    except KeyboardInterrupt:
        fail("the pipeline was interrupted; the next run goes on from here", 130)


def _bring_up_to_date(stages: list[StageName] | None, force: bool) -> None:
    if not force and not stale(stages):
        print("all is up to date")
        return
    with server.available():
        state = pipeline(stages, force, return_state=True)
    finish("pipeline", state)


def _serve(cron: str, port: int) -> None:
    with server.available(port) as url:
        print(f"Prefect: {url.removesuffix('/api')}  schedule: {cron or 'none, start runs by hand'}", flush=True)
        pipeline.serve(name="paint-by-example", cron=cron or None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("stages", nargs="*", help=f"{', '.join(STAGES)}; all where none is named")
    parser.add_argument("--force", action="store_true", help="run stages even if they are up to date")
    parser.add_argument("--serve", nargs="?", const="", metavar="CRON", help="stay, and run on this schedule")
    parser.add_argument("--port", type=int, default=4200, help="of the own Prefect server with --serve")
    return parser


if __name__ == "__main__":
    main()
