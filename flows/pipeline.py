"""The whole pipeline: `dvc repro` stage by stage as one Prefect flow. DVC decides what has to run, Prefect when.

`python -m flows.pipeline` brings every stage up to date; `--serve "0 3 * * *"` keeps running and does so on a schedule.
"""

import argparse
import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, State
from prefect.runtime import flow_run

from flows import server
from flows.interruption import stop_children
from flows.notification import notifies
from flows.provenance import tracking_uri
from flows.reproduction import STAGES, Outcome, StageName, run_stages
from flows.stage import BUG_CODE, EXIT_CODES, USER_ERROR, errors_reported, fail, finish
from pbe import layout
from pbe.errors import one_line
from pbe.settings import load_settings


def pipeline_run_name() -> str:
    """Return the name of the pipeline's run: its stages, and whether they are forced."""
    given = flow_run.get_parameters()
    stages = ", ".join(given["stages"]) if given.get("stages") else "all stages"
    return f"{stages}, forced" if given.get("force") else stages


@notifies
@flow(
    name="pipeline",
    flow_run_name=pipeline_run_name,
    persist_result=False,
)
def pipeline(stages: list[StageName] | None = None, force: bool = False) -> dict[str, Outcome] | State[Any]:
    """Bring the given stages up to date in order, by default all.

    Returns the outcome of each stage, or the failed state of the first that failed.

    Args:
        stages: the stages to bring up to date; all when empty
        force: run stages that are up to date as well
    """
    chosen = [name for name in STAGES if not stages or name in stages]
    return run_stages(chosen, forced=chosen if force else ())


def stale(stages: list[StageName] | None = None) -> list[str]:
    """Return the names of those given stages whose code, parameters, inputs or outputs have changed."""
    with Repo() as repo:
        changed = repo.status(targets=list(stages or STAGES))  # without targets, those of the projects below as well
    return [name for name in changed if stages is None or name in stages]


def summary(folder: Path) -> str:
    """Return where the report and the gallery are, and the version that is champion."""
    from pbe.serving.registry.versions import champion_version  # imports MLflow: 3 s

    name = load_settings(folder / layout.PARAMS).register_.name
    version = champion_version(name, tracking_uri=tracking_uri(folder))
    champion = f"{name} version {version}" if version else _no_champion(folder)
    return f"report:   {folder / layout.PAGE}\ngallery:  {folder / layout.GALLERY}\nchampion: {champion}"


def _no_champion(folder: Path) -> str:
    if not (folder / layout.REGISTERED).is_file():
        return "none yet"
    command = "dvc repro --force --single-item register"
    return f"none in this registry; {layout.REGISTERED} is of another one; to register the model here: {command}"


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
