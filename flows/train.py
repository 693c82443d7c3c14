"""Stage train: the painter, from data/latents and models/backbone into models/pbe; MLflow records the run."""

import os
from pathlib import Path

from flows.inputs import require
from flows.provenance import git_commit, input_hashes, model_licence, output_hashes, tracking_uri
from flows.stage import REASON, Counts, flatten, main, stage_flow
from pbe import layout
from pbe.runtime.files import read_json, write_json, write_text
from pbe.runtime.ray_cluster import check_resources, ray_cluster, waiting_reported
from pbe.settings import Settings
from pbe.training import run
from pbe.training.job import DELIVERED, TrainJob, run_key
from pbe.training.journal import StepRecord
from pbe.training.run import Timing
from pbe.training.tracking import RUN_FILE, RunOrigin, RunTracker
from pbe.types import Progress, ProgressBars, no_progress_bars

PARAMETERS = {"seed", "method", "encode", "train", "backbone"}  # sections that MLflow records


def train(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Train from the backbone, or from the last checkpoint of a run with the same settings, code and data."""
    require(folder, layout.CURATED / "boxes.parquet", layout.BACKBONE / "image_encoder")
    require(folder, *([layout.LATENTS] if settings.train.cache else []))
    job = make_job(settings, folder)
    address = os.environ.get("RAY_ADDRESS")
    num_workers, num_cpus = settings.train.num_workers, settings.train.num_workers * settings.train.cpus_per_worker
    cluster = ray_cluster(address, num_cpus + 1)
    with open_tracker(settings, folder, job) as tracker, cluster, waiting_reported("train"):
        check_resources("train", num_cpus, num_workers if settings.train.use_gpu else 0, bool(address))
        reporter = Reporter(tracker, bars("steps"), settings.train.steps)
        records = run.train(job, folder / layout.MODEL, reporter.on_record, tracker.on_picture, reporter.on_timing)
    write_text(folder / layout.LAST_RUN, tracker.run_id + "\n")
    write_losses(folder / layout.LOSSES, records)
    tail = records[-max(1, len(records) // 10) :]
    counts = {"steps": len(records), "final_loss": round(sum(r.loss for r in tail) / len(tail), 6)}
    counts["delivered_step"] = read_json(job.folder / run_key(job) / DELIVERED)["step"]
    write_json(folder / layout.counts("train"), counts)
    tracker.log_outputs(output_hashes(folder, "train"))
    return counts


def make_job(settings: Settings, folder: Path) -> TrainJob:
    """Return the training job of a project's folder."""
    storage = settings.train.storage
    bucket = storage if storage and "://" in storage else None
    return TrainJob(
        images=(folder / layout.RAW / "images").resolve(),
        curated=(folder / layout.CURATED).resolve(),
        backbone=(folder / layout.BACKBONE).resolve(),
        latents=(folder / layout.LATENTS).resolve(),
        folder=(folder / layout.CHECKPOINTS if bucket or not storage else folder / storage).resolve(),
        method=settings.method,
        train=settings.train,
        seed=settings.seed,
        bucket=bucket,
    )


def open_tracker(settings: Settings, folder: Path, job: TrainJob) -> RunTracker:
    """Return the MLflow run of a job: a new one, or that of the run which it resumes."""
    parameters = settings.model_dump(mode="json", include=PARAMETERS)
    named = {name: str(value) for name, value in flatten(parameters)}
    run_file = job.folder / run_key(job) / RUN_FILE
    return RunTracker(tracking_uri(folder), layout.EXPERIMENT, run_file, named, origin_of(settings, folder))


def origin_of(settings: Settings, folder: Path) -> RunOrigin:
    """Return where a run comes from: the code, and the data as they are when it starts."""
    train = settings.train
    batch = f"{train.num_workers} x {train.accumulate} x {train.batch_size}"
    reason = os.environ.get(REASON)
    return RunOrigin(
        f"{train.steps} steps of {batch} samples (workers, accumulation, batch) from the backbone "
        f"`{settings.backbone.source}`" + (f"; the reason: {reason}" if reason else ""),
        "flows/train.py",
        git_commit(folder) or "",
        model_licence(settings.backbone, folder),
        input_hashes(folder, "train"),
    )


class Reporter:
    """Passes the records and timings of a run to MLflow and to the progress bar."""

    def __init__(self, tracker: RunTracker, bar: Progress, num_steps: int) -> None:
        self.tracker, self.bar, self.num_steps = tracker, bar, num_steps
        self.images_per_s = 0.0

    def on_record(self, record: StepRecord) -> None:
        """Report a step."""
        self.tracker.on_record(record)
        rate = f", {self.images_per_s:.3g} images/s" if self.images_per_s else ""
        self.bar(record.step + 1, self.num_steps, f"loss {record.loss:.4f}{rate}")

    def on_timing(self, timing: Timing) -> None:
        """Report a line of timings."""
        self.tracker.on_timing(timing)
        self.images_per_s = timing["images_per_s"]


def write_losses(path: Path, records: list[StepRecord]) -> None:
    """Write a CSV row for each step with the fields of StepRecord; a field that is None is empty."""
    names = list(StepRecord.__annotations__)
    rows = [",".join("" if v is None else f"{v:.6g}" for v in r.__dict__.values()) for r in records]
    write_text(path, "\n".join([",".join(names), *rows]) + "\n")


train_flow = stage_flow("train", train)

if __name__ == "__main__":
    main(train_flow)
