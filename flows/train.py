"""Stage train: the painter, from data/latents and models/backbone into models/pbe; MLflow records the run."""

import os
from pathlib import Path

from flows.provenance import provenance_tags, tracking_uri
from flows.stage import Counts, flatten, main, stage_flow
from pbe import layout
from pbe.runtime.files import atomic_file, write_json
from pbe.runtime.ray_cluster import check_room, ray_cluster
from pbe.settings import Settings
from pbe.training import run
from pbe.training.job import TrainJob, run_key
from pbe.training.journal import StepRecord
from pbe.training.run import Timing
from pbe.training.tracking import RUN_FILE, RunTracker
from pbe.types import ProgressBars, no_progress_bars


def train(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Train from the last checkpoint of the same settings and data, or from the backbone."""
    storage = settings.train.storage
    bucket = storage if storage and "://" in storage else None
    job = TrainJob(
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
    run_file = job.folder / run_key(job) / RUN_FILE
    parameters = settings.model_dump(mode="json", include={"seed", "method", "encode", "train", "backbone"})
    named = {name: str(value) for name, value in flatten(parameters)}
    bar = bars("steps")
    speed: list[float] = [0.0]
    address = os.environ.get("RAY_ADDRESS")
    num_cpus = settings.train.num_workers * settings.train.cpus_per_worker
    with (
        RunTracker(tracking_uri(folder), layout.EXPERIMENT, run_file, named, provenance_tags(folder)) as tracker,
        ray_cluster(address, num_cpus + 1),
    ):
        check_room(num_cpus, settings.train.num_workers if settings.train.use_gpu else 0, bool(address))

        def on_record(record: StepRecord) -> None:
            tracker.on_record(record)
            rate = f", {speed[0]:.3g} images/s" if speed[0] else ""
            bar(record.step + 1, settings.train.steps, f"loss {record.loss:.4f}{rate}")

        def on_timing(timing: Timing) -> None:
            tracker.on_timing(timing)
            speed[0] = timing["images_per_s"]

        records = run.train(job, folder / layout.MODEL, on_record, tracker.on_picture, on_timing)
    (folder / layout.LAST_RUN).parent.mkdir(parents=True, exist_ok=True)
    (folder / layout.LAST_RUN).write_text(tracker.run_id + "\n")
    write_losses(folder / layout.LOSSES, records)
    tail = records[-max(1, len(records) // 10) :]
    counts = {"steps": len(records), "final_loss": round(sum(r.loss for r in tail) / len(tail), 6)}
    write_json(folder / layout.counts("train"), counts)
    return counts


def write_losses(path: Path, records: list[StepRecord]) -> None:
    """One CSV row a step, as in StepRecord; what a step does not have is left empty."""
    names = list(StepRecord.__annotations__)
    rows = [",".join("" if v is None else f"{v:.6g}" for v in r.__dict__.values()) for r in records]
    with atomic_file(path) as part:
        part.write_text("\n".join([",".join(names), *rows]) + "\n")


train_flow = stage_flow("train", train)

if __name__ == "__main__":
    main(train_flow)
