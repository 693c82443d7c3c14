"""Evaluates a given model as the project evaluates its own: a deployment of prefect.yaml, and no stage.

The model is evaluated in .pbe/evaluations/<model>, which looks like the project but for the model and the reports;
reports/models/<model> has the report. A run that was killed resumes there.
"""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.artifacts import publish_gallery
from flows.evaluate import evaluate
from flows.links import report_address
from flows.notification import notifies
from flows.output import copied_output
from flows.provenance import tracking_uri
from flows.reevaluate import link_project, with_project_encoder
from flows.register import report_files
from flows.stage import Counts, run_stage
from pbe import layout
from pbe.serving.commands.model_choice import ModelChoice, named_model
from pbe.serving.registry.evaluations import read_evaluation
from pbe.settings import Settings
from pbe.types import ProgressBars

NAME = "evaluate-model"
COPIES, REPORTS = layout.STATE / "evaluations", layout.REPORTS / "models"
NumCases = Annotated[int | None, Field(ge=1)]


@notifies
@flow(
    name=NAME,
    flow_run_name="evaluate {model}",
    persist_result=False,
)
def evaluate_model(
    model: Annotated[str, Field(min_length=1)] = "models:/paint-by-example@champion", num_cases: NumCases = None
) -> Counts | State[Any]:
    """Paint and score the project's bench with a model, and show the report.

    Args:
        model: a registered version (models:/NAME/3, or models:/NAME@champion), a folder, or photo: the bundled painter
        num_cases: evaluate the first cases only; by default all, as params.yaml says
    """
    with copied_output(get_run_logger().info):
        return run_stage(NAME, partial(evaluate_named, model=model, num_cases=num_cases))


def evaluate_named(
    settings: Settings, folder: Path, bars: ProgressBars, *, model: str, num_cases: int | None
) -> Counts:
    """Evaluate a model by its name; the whole evaluation of a registered version is stored with the version."""
    chosen = named_model(model)
    copy = prepare_copy(folder, chosen)
    options = with_project_encoder(settings, folder)
    if num_cases is not None:
        options = options.model_copy(update={"evaluate": options.evaluate.replace(num_cases=num_cases)})
    counts = evaluate(options, copy, bars)
    publish_gallery(copy / layout.GALLERY)
    print(f"report: {report_address(copy / layout.PAGE)}", flush=True)
    if chosen.version is not None and options.evaluate.num_cases == settings.evaluate.num_cases:
        store(chosen, copy, tracking_uri(folder))
    return counts


def prepare_copy(folder: Path, chosen: ModelChoice) -> Path:
    """Return a folder that looks like the project, with the chosen model, and whose reports are in reports/models."""
    name = slug(chosen)
    copy, reports = folder / COPIES / name, folder / REPORTS / name
    reports.mkdir(parents=True, exist_ok=True)
    copy.mkdir(parents=True, exist_ok=True)
    if not (copy / layout.REPORTS).is_symlink():
        (copy / layout.REPORTS).symlink_to(reports.resolve())
    link_project(folder, copy, chosen.folder)
    return copy


def slug(chosen: ModelChoice) -> str:
    """Return a model's name as a name of a folder, such as paint-by-example-3."""
    name = f"{chosen.name}-{chosen.version}" if chosen.version else chosen.name
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "model"


def store(chosen: ModelChoice, copy: Path, uri: str) -> None:
    """Store the evaluation of a registered version with it, so that the gate can compare other models with it."""
    from pbe.serving.registry import versions as registry  # imports MLflow: 3 s

    evaluation = read_evaluation(copy)
    registry.add_evaluation(
        chosen.name, int(chosen.version or 0), evaluation, report_files=report_files(copy), tracking_uri=uri
    )
    print(f"the evaluation is stored with version {chosen.version}", flush=True)
