"""Evaluates the champion again, in the way that the project evaluates now: `python -m flows.reevaluate`.

It is not a stage. Run it when the gate refuses a model because the champion was evaluated on another bench, with other
real images, another sampler or other code of the metrics; then ask the gate again:
`dvc repro --force --single-item register`.

The champion is evaluated in .pbe/champion, which looks like the project but for the model and the reports. An
interrupted run resumes there.
"""

import shutil
from pathlib import Path

from flows.evaluate import evaluate
from flows.provenance import tracking_uri
from flows.register import report_files
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.errors import UserError
from pbe.serving.registry import versions as registry
from pbe.serving.registry.evaluations import read_evaluation
from pbe.serving.registry.registered_models import painter_folder
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars

CHAMPION = layout.STATE / "champion"
_MIXED = (Path(), layout.MODEL.parent, layout.REPORTS)  # folders that hold the project's files and the champion's
_OWN = (
    layout.MODEL, layout.EVALUATION, layout.METRICS, layout.SCORES, layout.PAGE, layout.GALLERY, layout.REGISTERED,
    layout.REPORTS / "models",
)  # fmt: skip


def reevaluate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Evaluate the champion as the project evaluates its models, and store the result with its version."""
    name, uri = settings.register_.name, tracking_uri(folder)
    version = registry.champion_version(name, tracking_uri=uri)
    if version is None:
        raise UserError(f"{uri}: {name} has no champion to evaluate; run: dvc repro register")
    model = painter_folder(f"models:/{name}/{version}", tracking_uri=uri, cache=folder / layout.STATE / "models")
    copy = folder / CHAMPION
    link_project(folder, copy, model)
    evaluate(with_project_encoder(settings, folder), copy, bars)
    evaluation = read_evaluation(copy)
    registry.add_evaluation(name, version, evaluation, report_files=report_files(copy), tracking_uri=uri)
    command = "dvc repro --force --single-item register"
    print(f"version {version} can be compared now; to ask the gate again: {command}", flush=True)
    return {"name": name, "version": version, "evaluation": evaluation.key}


def link_project(folder: Path, copy: Path, model: Path) -> None:
    """Make `copy` look like the project in `folder`, with `model` as its models/pbe and without an evaluation of it."""
    for parent in _MIXED:
        (copy / parent).mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / parent).glob("[!.]*")):
            if parent / path.name not in (*_MIXED, *_OWN):
                _link(copy / parent / path.name, path)
    _link(copy / layout.MODEL, model)


def with_project_encoder(settings: Settings, folder: Path) -> Settings:
    """Return settings whose `evaluate.encoder`, if it is part of models/pbe, is that of the project's model."""
    encoder = Path(settings.evaluate.encoder)
    if not encoder.is_relative_to(layout.MODEL):
        return settings
    changed = settings.evaluate.replace(encoder=str((folder / encoder).resolve()))
    return settings.model_copy(update={"evaluate": changed})


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(target.resolve())


reevaluate_flow = stage_flow("reevaluate", reevaluate)

if __name__ == "__main__":
    main(reevaluate_flow)
