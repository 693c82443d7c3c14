"""The averaged weights of the lowest validation loss so far, kept beside a run whichever weights it delivers.

A run can therefore deliver its last or its best weights without training again.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pbe import settings
from pbe.runtime.files import write_json
from pbe.training.checkpoints import list_checkpoints, load_checkpoint
from pbe.training.job import DELIVERED
from pbe.training.journal import StepRecord
from pbe.training.storage import Bucket, RunStorage

logger = logging.getLogger(__name__)

FOLDER = "best"  # in the run's folder and in its bucket
_KEEP = 2  # the one before as well: a killed run resumes before the newest, and on a GPU need not find it again


@dataclass(frozen=True)
class Delivered:
    """The step whose averaged weights a run delivered, counted from 1, and their validation loss."""

    step: int
    validation_loss: float | None

    def write(self, storage: RunStorage) -> None:
        """Write it as delivered.json into the run's folder, and publish it."""
        path = storage.folder / DELIVERED
        write_json(path, asdict(self))
        storage.publish(path)


class BestWeights:
    """The best weights of one run, in the same storage; only the first worker uses it."""

    def __init__(self, run: RunStorage) -> None:
        bucket = Bucket(f"{run.bucket.address}/{FOLDER}") if run.bucket else None
        self.storage = RunStorage(run.folder / FOLDER, bucket)

    def offer(self, step: int, loss: float, records: list[StepRecord], weights: dict[str, Tensor]) -> None:
        """Keep the averaged weights after `step` steps if their loss is lower than all validation losses before."""
        if all(loss < earlier for earlier, at in validations(records) if at < step) and math.isfinite(loss):
            self.storage.save(step, weights, _KEEP)

    def choose(self, which: settings.Deliver, records: list[StepRecord]) -> Delivered:
        """Return which weights to deliver: those after the last step, or the best of those that are kept."""
        losses = sorted(validations(records))
        last = Delivered(len(records), next((loss for loss, step in losses if step == len(records)), None))
        if which == "last" or not losses:
            return last
        kept = self._kept()
        for loss, step in losses:
            if _name(step) in kept:
                return Delivered(step, loss)
        logger.warning("%s: the best weights are missing; the last ones are delivered", self.storage.folder)
        return last

    @torch.no_grad()
    def copy_to(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Overwrite weights by those kept of a step."""
        for name, tensor in load_checkpoint(self.storage.fetch(_name(step))).items():
            weights[name].copy_(tensor)

    def _kept(self) -> list[str]:
        if self.storage.bucket:
            return self.storage.bucket.checkpoints()
        return [path.name for path in list_checkpoints(self.storage.folder)]


def validations(records: list[StepRecord]) -> list[tuple[float, int]]:
    """Return the finite validation losses and after how many steps they were measured."""
    measured = [(record.validation_loss, record.step + 1) for record in records]
    return [(loss, step) for loss, step in measured if loss is not None and math.isfinite(loss)]


def _name(step: int) -> str:
    return f"step-{step:08d}"
