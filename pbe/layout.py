"""Where each stage writes, relative to the project's folder. dvc.yaml names the same paths."""

from pathlib import Path

PARAMS = Path("params.yaml")
WORLD_BUCKET = Path("data/world-bucket")  # the demo world before it is downloaded; not an output of a stage
TINY = Path("data/tiny")  # the bundled weights of the demo, in git
PHOTO = Path("data/photo")  # the bundled weights for photographs, in git
PHOTO_PAINTER = Path("data/photo-painter")  # the bundled painter of photographs, in git
VERDICTS = Path("data/verdicts.csv")  # reviewers' verdicts, in git
RAW = Path("data/raw")
BOXES = Path("data/boxes")
CURATED = Path("data/curated")
LATENTS = Path("data/latents")
BENCH = Path("data/bench")
BACKBONE = Path("models/backbone")
CHECKPOINTS = Path("models/checkpoints")  # not an output: an interrupted training resumes from it
LAST_RUN = CHECKPOINTS / "last-mlflow-run.txt"  # the MLflow run of models/pbe, if this project trained it
MODEL = Path("models/pbe")
REPORTS = Path("reports")
EVALUATION = REPORTS / "evaluation"
BOX_PLOTS = REPORTS / "boxes"
LOSSES = REPORTS / "losses.csv"
METRICS = REPORTS / "metrics.json"
SCORES = REPORTS / "scores.json"  # the painter's main scores, as DVC's metrics
REGISTERED = REPORTS / "registered.json"
PAGE = REPORTS / "index.html"
GALLERY = REPORTS / "gallery.png"
TABLES = REPORTS / "tables.json"  # the paper's tables, repeated; in git, with tables.md and tables.png

STATE = Path(".pbe")  # locks
PREFECT_HOME = Path(".prefect")  # as in prefect.toml
FIFTYONE_HOME = Path(".fiftyone")  # MongoDB's database, thumbnails and FiftyOne's own files
MLFLOW_DATABASE = Path("mlflow.db")

EXPERIMENT = "paint-by-example"  # of MLflow
FIFTYONE_DATASET = "paint-by-example"


def counts(stage: str) -> Path:
    """Return where a stage's counts are tracked."""
    return REPORTS / f"{stage}.json"


def stage_lock(name: str) -> Path:
    """Return the lock file that a stage, or the pipeline, holds while it runs."""
    return STATE / f"{name}.lock"
