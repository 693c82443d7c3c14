"""Distributed training with Ray Train, from the backbone and the cache to `models/pbe`.

Every run lives in a folder named after what decides its weights, so that another configuration never resumes it. The
driver watches the run's journal: progress, live metrics and validation pictures leave through its callbacks.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pbe import settings
from pbe.data.shards import INDEX
from pbe.files import written_whole
from pbe.method.backbone import build_painter
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.checkpoints import list_checkpoints, load_newest
from pbe.training.loop import JOURNAL, StepRecord, Trainer, limit_threads, read_journal, train_to_end
from pbe.training.model import PaintingLoss
from pbe.training.panel import draw_panel


@dataclass(frozen=True)
class TrainJob:
    """Where a run reads and writes, and its settings; paths are absolute, as every node must see them."""

    images: Path
    curated: Path
    backbone: Path
    latents: Path
    folder: Path  # the run's own
    method: settings.Method
    train: settings.Train
    seed: int


def run_key(job: TrainJob) -> str:
    """A digest of all that decides the weights: parameters, seed, boxes, cache and backbone."""
    digest = hashlib.blake2b(digest_size=8)
    settings_of = {"train": job.train.model_dump(exclude={"keep_checkpoints", "checkpoint_every", "validate_every"}),
                   "method": job.method.model_dump(), "seed": job.seed}  # fmt: skip
    digest.update(json.dumps(settings_of, sort_keys=True).encode())
    files = [job.curated / "boxes.parquet", *sorted(job.backbone.rglob("*.safetensors"))]
    if job.train.cache:
        files += [job.latents / "key.txt", job.latents / INDEX]
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def train(
    job: TrainJob,
    out: Path,
    on_record: Callable[[StepRecord], None] | None = None,
    on_picture: Callable[[int, Path], None] | None = None,
) -> list[StepRecord]:
    """Train to the last step, from the newest checkpoint where there is one, and save the averaged model to `out`.

    `job.folder` is the parent of the runs' folders. Ray must be initialised. Returns the records of all steps. Raises
    RuntimeError naming the cause when the workers failed more than three times.
    """
    job = replace(job, folder=job.folder / run_key(job))
    job.folder.mkdir(parents=True, exist_ok=True)
    newest = load_newest(job.folder)
    with _Watch(job.folder, on_record, on_picture):
        if newest is None or int(newest["step"]) < job.train.steps:
            _fit(job)
    export(job, out)
    return read_journal(job.folder / JOURNAL)


def _fit(job: TrainJob) -> None:
    storage = job.folder / "ray"
    attempts = len(list(storage.glob("attempt-*"))) if storage.exists() else 0
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if job.train.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.train.num_workers,
            use_gpu=job.train.use_gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if job.train.use_gpu else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=f"attempt-{attempts}", storage_path=str(storage), failure_config=FailureConfig(max_failures=3)
        ),
    )
    result = trainer.fit()
    if result.error:
        raise RuntimeError(f"training failed: {result.error}") from result.error


def train_worker(config: dict[str, Any]) -> None:
    """The function that Ray Train runs on each worker."""
    job: TrainJob = config["job"]
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if job.train.use_gpu else "cpu"
    if not job.train.use_gpu:
        limit_threads(1)
    painter = build_painter(job.backbone, job.method.image_px, job.seed)
    trainer = Trainer(painter, _source(job, device), job.train, context.get_world_rank(), device)
    panel = None
    if trainer.rank == 0:
        panel = draw_panel(job.images, job.curated, job.method, painter.exemplar_px, job.seed)

    def paint_panel(trainer: Trainer) -> None:
        assert panel is not None
        averaged = build_painter(job.backbone, job.method.image_px, job.seed)
        trainer.average.copy_to(PaintingLoss(averaged).trained())
        picture = panel.paint(averaged)
        path = job.folder / f"panel-{trainer.step:08d}.png"
        with written_whole(path) as part:
            cv2.imwrite(str(part), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def report(trainer: Trainer, record: StepRecord) -> None:
        if trainer.step == trainer.train.steps:
            ray.train.report(record.__dict__)

    train_to_end(trainer, job.folder, report, paint_panel)


def _source(job: TrainJob, device: str) -> BatchSource:
    if job.train.cache:
        return cached_source(job.latents, job.train, job.seed)
    return fresh_source(job.images, job.curated, job.backbone, job.method, job.train, job.seed, device)


def export(job: TrainJob, out: Path) -> None:
    """Save the newest checkpoint's averaged weights in diffusers' layout; the folder appears whole or not at all."""
    state = load_newest(job.folder)
    if state is None:
        raise RuntimeError(
            f"{job.folder}: no undamaged checkpoint among {[p.name for p in list_checkpoints(job.folder)]}"
        )
    painter = build_painter(job.backbone, job.method.image_px, job.seed)
    with torch.no_grad():
        for name, parameter in PaintingLoss(painter).trained().items():
            parameter.copy_(state["average"][name])
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    painter.save_pretrained(temporary)
    shutil.rmtree(out, ignore_errors=True)
    temporary.replace(out)


class _Watch:
    """Follows a run's journal and pictures from a thread of the driver, and hands each on once."""

    def __init__(
        self,
        folder: Path,
        on_record: Callable[[StepRecord], None] | None,
        on_picture: Callable[[int, Path], None] | None,
        period_s: float = 0.5,
    ) -> None:
        self.folder, self.on_record, self.on_picture, self.period_s = folder, on_record, on_picture, period_s
        self._next_step = 0
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(self.period_s):
            self._look()

    def _look(self) -> None:
        for record in read_journal(self.folder / JOURNAL, self._next_step):
            if self.on_record:
                self.on_record(record)
            self._next_step = record.step + 1
        for picture in sorted(self.folder.glob("panel-*[0-9].png")):
            if picture.name not in self._seen and self.on_picture:
                self.on_picture(int(picture.stem.removeprefix("panel-")), picture)
            self._seen.add(picture.name)
