"""The first worker's records of a run: journal, timings, checkpoints, validation losses and pictures."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import cv2
from torch import nn

from pbe.method.painter import Painter
from pbe.runtime.files import atomic_file
from pbe.training.best import BestWeights
from pbe.training.job import TrainJob
from pbe.training.journal import JOURNAL, TIMINGS, JsonLines, StepRecord
from pbe.training.loop import Trainer
from pbe.training.painting_loss import Batch
from pbe.training.storage import RunStorage
from pbe.training.validation import draw_cases, draw_samples

PICTURE = "validation-{step:08d}.png"
_PUBLISH_PERIOD_S = 5.0


class Timings(Protocol):
    """The log of a run's throughput: no result depends on it, so the run's key must not (see ThroughputLog)."""

    def excluded(self, name: str) -> AbstractContextManager[None]:
        """Time the block separately."""

    def on_step(self, step: int) -> None:
        """Count a step."""

    def close(self) -> None:
        """Close the log."""


OpenTimings = Callable[[Trainer, Batch, Path], Timings]


@contextmanager
def frozen_parts_beside(painter: Painter) -> Iterator[None]:
    """Have VAE and CLIP, which stay on the host while latents are cached, on the UNet's device for the block."""
    device = painter.unet.conv_out.weight.device
    parts: tuple[nn.Module, ...] = (painter.vae, painter.conditioner.model)
    before = [next(part.parameters()).device for part in parts]
    for part in parts:
        part.to(device)
    try:
        yield
    finally:
        for part, place in zip(parts, before, strict=True):
            part.to(place)


class RunRecorder:
    """The loop's callbacks on the first worker; it validates with the averaged weights."""

    def __init__(
        self,
        job: TrainJob,
        trainer: Trainer,
        storage: RunStorage,
        open_timings: OpenTimings,
        clock: Callable[[], float],
    ) -> None:
        self.storage, self.clock = storage, clock
        self.best = BestWeights(storage)
        self.cases = draw_cases(job.images, job.curated, job.method, trainer.painter.exemplar_px, job.seed)
        self.samples = draw_samples(
            job.images, job.curated, job.backbone, job.method, job.seed, job.train.validation_samples, trainer.device
        )
        self.journal = JsonLines(storage.folder / JOURNAL, (record.__dict__ for record in trainer.records))
        self.timings = open_timings(trainer, self.samples, storage.folder / TIMINGS)
        self._published_at = clock()

    def validate(self, trainer: Trainer) -> float:
        """Paint the validation cases, keep the averaged weights if they are the best, and return their mean loss."""
        with self.timings.excluded("validation"), trainer.averaged():
            trainer.painter.eval()
            trainer.losses.eval()
            with frozen_parts_beside(trainer.painter):
                picture = self.cases.paint(trainer.painter)
            loss = trainer.validation_loss(self.samples)
            self.best.offer(trainer.step, loss, trainer.records, trainer.update.averaged_weights())
            trainer.losses.train()
        path = self.storage.folder / PICTURE.format(step=trainer.step)
        with atomic_file(path) as part:
            cv2.imwrite(str(part), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.storage.publish(path)
        return loss

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Write a step's record, and publish the journal every few seconds."""
        self.journal.append(record.__dict__)
        self.timings.on_step(record.step)
        if self.storage.bucket and self.clock() - self._published_at >= _PUBLISH_PERIOD_S:
            self._publish()

    def save_checkpoint(self, trainer: Trainer) -> None:
        """Save a checkpoint and publish the journal up to it."""
        with self.timings.excluded("checkpoint"):
            self.storage.save(trainer.step, trainer.state(), trainer.train.keep_checkpoints)
        self._publish()

    def close(self) -> None:
        """Close journal and timings."""
        self.journal.close()
        self.timings.close()

    def _publish(self) -> None:
        for name in (JOURNAL, TIMINGS):
            self.storage.publish(self.storage.folder / name)
        self._published_at = self.clock()
