"""Where each stage leaves what, relative to the project's folder; dvc.yaml names the same paths."""

from pathlib import Path

BUCKET = Path("data/world-bucket")  # the demo world as drawn, before it is downloaded; not an output
TINY = Path("data/tiny")  # the bundled weights, in git
RAW = Path("data/raw")
IMAGES = RAW / "images"
BOXES = Path("data/boxes")
CURATED = Path("data/curated")
LATENTS = Path("data/latents")
BENCH = Path("data/bench")
BACKBONE = Path("models/backbone")
CHECKPOINTS = Path("models/checkpoints")  # not an output: what a killed training goes on from
LAST_RUN = CHECKPOINTS / "last-mlflow-run.txt"  # the run that trained models/pbe, where it was trained here
MODEL = Path("models/pbe")
REPORTS = Path("reports")
EVALUATION = REPORTS / "evaluation"
BOX_PLOTS = REPORTS / "boxes"
LOSSES = REPORTS / "losses.csv"
METRICS = REPORTS / "metrics.json"
REGISTERED = REPORTS / "registered.json"
PAGE = REPORTS / "index.html"
GALLERY = REPORTS / "gallery.png"

EXPERIMENT = "paint-by-example"  # MLflow's


def counts(stage: str) -> Path:
    """Where a stage's counts are tracked."""
    return REPORTS / f"{stage}.json"
