"""Stage register: the trained model becomes a version in MLflow's registry, and the champion if the gate accepts it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext

from flows.provenance import data_version, git_commit, model_licence, tracking_uri
from flows.server import loss_reported
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.evaluation.names import COMPARISON
from pbe.serving.registry import versions as registry
from pbe.serving.registry.evaluations import read_evaluation
from pbe.serving.registry.version_records import Origin
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars

BASELINE = "DVC_EXP_BASELINE_REV"  # DVC sets it for the stages of an experiment
EXPERIMENT = (
    "Not registered: an experiment registers nothing. After dvc exp apply, run: "
    "dvc repro --force --single-item register"
)


def register(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Register models/pbe with its evaluation, ask the gate, and write reports/registered.json.

    An experiment of DVC registers nothing, unless `register.experiments` is set.
    """
    if BASELINE in os.environ and not settings.register_.experiments:
        unregistered = registry.Registered(settings.register_.name, None, "", False, EXPERIMENT, "experiment")
        registry.write_registered(unregistered, folder / layout.REGISTERED)
        return {"name": unregistered.name, "outcome": unregistered.outcome, "reason": unregistered.reason}
    registered = registry.register(
        folder / layout.MODEL,
        read_evaluation(folder),
        settings.register_,
        seed=settings.seed,
        report_files=report_files(folder),
        tracking_uri=tracking_uri(folder),
        experiment=layout.EXPERIMENT,
        run_id=read_last_run(folder / layout.LAST_RUN),
        origin=origin_of(settings, folder),
    )
    registry.write_registered(registered, folder / layout.REGISTERED)
    content = dataclasses.asdict(registered)
    show_comparisons(content.pop("table"))
    return content


def origin_of(settings: Settings, folder: Path) -> Origin:
    """Return where the model of a project comes from."""
    return Origin(git_commit(folder) or "", data_version(folder, "register"), model_licence(settings.backbone, folder))


def show_comparisons(table: Sequence[Mapping[str, Any]]) -> None:
    """Show the gate's comparisons as an artifact of the flow run; outside of a flow, do nothing."""
    if not table or FlowRunContext.get() is None:
        return
    with loss_reported():
        create_table_artifact(list(map(dict, table)), key="gate", description="The gate's comparisons")


def report_files(folder: Path) -> list[Path]:
    """Return the files of the report that a version keeps."""
    files = (folder / layout.PAGE, folder / layout.EVALUATION / COMPARISON, folder / layout.GALLERY)
    return [path for path in files if path.is_file()]


def read_last_run(path: Path) -> str | None:
    """Return the id of the MLflow run that trained the model, or None when it was trained elsewhere."""
    return path.read_text().strip() if path.is_file() else None


register_flow = stage_flow("register", register)

if __name__ == "__main__":
    main(register_flow)
