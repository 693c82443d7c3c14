"""One worker of a distributed run, from the checkpoint to the saved model."""

from pathlib import Path

import cv2
import ray.train
import ray.train.torch

from pbe.files import folder_written_whole, written_whole
from pbe.method.initialization import build_painter
from pbe.method.painter import Painter
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.job import TrainJob
from pbe.training.journal import StepRecord
from pbe.training.loop import Trainer, limit_threads, train_to_end
from pbe.training.model import PaintingLoss
from pbe.training.panel import draw_panel


def work(job: TrainJob, out: Path) -> None:
    """Train to the last step; the first worker then saves the averaged model to `out`."""
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if job.train.use_gpu else "cpu"
    if not job.train.use_gpu:
        limit_threads(1)
    painter = painter_at_start(job)
    trainer = Trainer(painter, _source(job, device), job.train, context.get_world_rank(), device)
    panel = None
    if trainer.rank == 0:
        panel = draw_panel(job.images, job.curated, job.method, painter.exemplar_px, job.seed)

    def paint_panel(trainer: Trainer) -> None:
        assert panel is not None
        averaged = painter_at_start(job).to(device)
        trainer.average.copy_to(PaintingLoss(averaged).trained())
        picture = panel.paint(averaged)
        path = job.folder / f"panel-{trainer.step:08d}.png"
        with written_whole(path) as part:
            cv2.imwrite(str(part), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def report(trainer: Trainer, record: StepRecord) -> None:
        if trainer.step == trainer.train.steps:
            ray.train.report(record.__dict__)

    train_to_end(trainer, job.folder, report, paint_panel)
    if trainer.rank == 0:
        trainer.average.copy_to(trainer.losses.trained())
        export(painter, out)


def painter_at_start(job: TrainJob) -> Painter:
    """The painter at step 0, as the job's ablation switches say."""
    return build_painter(
        job.backbone,
        job.method.image_px,
        job.seed,
        prior=job.train.prior,
        bottleneck=job.method.bottleneck,
        guidance=job.train.drop_probability > 0,
    )


def _source(job: TrainJob, device: str) -> BatchSource:
    if job.train.cache:
        return cached_source(job.latents, job.train, job.seed)
    return fresh_source(job.images, job.curated, job.backbone, job.method, job.train, job.seed, device)


def export(painter: Painter, out: Path) -> None:
    """Save a painter in diffusers' layout; the folder appears whole or not at all."""
    with folder_written_whole(out) as part:
        painter.eval().save_pretrained(part)
