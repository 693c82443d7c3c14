"""The training loop of one worker; Ray Train runs it once on every worker.

A step is a function of the state before it: order, noise and drops come from seed and step, so that a killed run goes
on from its last checkpoint and ends with the same bits.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pbe import settings
from pbe.method.painter import Painter
from pbe.training.batches import BatchSource, PreparedAhead
from pbe.training.checkpoints import load_newest, save_checkpoint
from pbe.training.journal import JOURNAL, Journal, StepRecord
from pbe.training.model import ExponentialMovingAverage, PaintingLoss, prepare_unet
from pbe.training.optimiser import build_optimiser

CONV_IN = "unet.conv_in.weight"


def learning_rate(step: int, train: settings.Train) -> float:
    """The rate of a step counted from 0: linear warm-up, then constant or a half cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.decay == "constant":
        return train.lr * warm
    return train.lr * warm * (0.5 + 0.5 * float(np.cos(np.pi * step / train.steps)))


class Trainer:
    """Model, optimiser, average and step of one worker."""

    def __init__(self, painter: Painter, source: BatchSource, train: settings.Train, rank: int, device: str) -> None:
        self.painter, self.source, self.train, self.rank, self.device = painter, source, train, rank, device
        self.ahead: BatchSource | PreparedAhead = PreparedAhead(source) if device.startswith("cuda") else source
        self.losses = PaintingLoss(painter).to(device).train()
        prepare_unet(self.losses.unet, train, device)
        self.wrapped: nn.Module = self.losses
        if dist.is_initialized() and dist.get_world_size() > 1:
            self.wrapped = DistributedDataParallel(self.losses, gradient_as_bucket_view=True, broadcast_buffers=False)
        trained = self.losses.trained()
        groups = [
            {"params": [p for name, p in trained.items() if name != CONV_IN], "factor": 1.0},
            {"params": [trained[CONV_IN]], "factor": train.conv_in_lr_factor},
        ]
        self.optimiser = build_optimiser(groups, train, device)
        self.average = ExponentialMovingAverage(trained, train.ema_decay, train.average, train.average_every)
        self.step = 0
        self.records: list[StepRecord] = []

    def run_step(self) -> StepRecord:
        """One optimiser step over the global batch; raises FloatingPointError naming the samples of a NaN loss."""
        rate = learning_rate(self.step, self.train)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        losses, timesteps = self._backward()
        trained = self.losses.trained()
        norm = nn.utils.clip_grad_norm_(list(trained.values()), self.train.max_grad_norm)
        self.optimiser.step()
        self.average.update(trained, self.step)
        record = self._record(losses, timesteps, rate, float(norm))
        self.step += 1
        self.records.append(record)
        return record

    def _backward(self) -> tuple[Tensor, Tensor]:
        batches = self.ahead.batches(self.step, self.rank)
        losses = []
        for i, batch in enumerate(batches):
            local = batch.to(self.device)
            with self._sync(last=i == len(batches) - 1), self._precision():
                loss = self.wrapped(local)
                (loss.mean() / len(batches)).backward()
            losses.append(loss.detach())
        return torch.cat(losses), torch.cat([b.timesteps for b in batches]).to(self.device)

    def _sync(self, last: bool) -> Any:
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def _precision(self) -> Any:
        kind = "cuda" if self.device.startswith("cuda") else "cpu"
        return torch.autocast(kind, torch.bfloat16) if self.train.precision == "bf16" else nullcontext()

    def _record(self, losses: Tensor, timesteps: Tensor, rate: float, norm: float) -> StepRecord:
        early = timesteps < 500
        sums = torch.stack([losses[early].sum(), early.sum(), losses[~early].sum(), (~early).sum()]).double()
        if dist.is_initialized():
            dist.all_reduce(sums)
        early_sum, num_early, late_sum, num_late = sums.tolist()
        loss = (early_sum + late_sum) / (num_early + num_late)
        if not np.isfinite(loss):
            raise FloatingPointError(f"loss is {loss} at step {self.step}, samples {self.source.indices(self.step)[0]}")
        return StepRecord(self.step, loss, early_sum / max(num_early, 1), late_sum / max(num_late, 1), rate, norm)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": {k: p.detach() for k, p in self.losses.trained().items()},
            "average": self.average.weights,
            "optimiser": self.optimiser.state_dict(),
            "records": [list(r.__dict__.values()) for r in self.records],
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        for name, parameter in self.losses.trained().items():
            parameter.copy_(state["model"][name])
            self.average.weights[name].copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
        self.records = [StepRecord(int(r[0]), *r[1:]) for r in state["records"]]


def train_to_end(
    trainer: Trainer,
    folder: Path,
    after_step: Callable[[Trainer, StepRecord], None],
    on_picture: Callable[[Trainer], None],
) -> None:
    """Run from the newest checkpoint in `folder` to the last step, checkpointing on the way and at the end."""
    state = load_newest(folder)
    if state is not None:
        trainer.load_state(state)
    journal = Journal(folder / JOURNAL, trainer.records) if trainer.rank == 0 else None
    train = trainer.train
    while trainer.step < train.steps:
        record = trainer.run_step()
        if journal:
            journal.append(record)
        finished = trainer.step == train.steps
        if trainer.rank == 0 and (finished or trainer.step % train.validate_every == 0):
            on_picture(trainer)
        if trainer.rank == 0 and (finished or trainer.step % train.checkpoint_every == 0):
            save_checkpoint(folder, trainer.step, trainer.state(), train.keep_checkpoints)
        after_step(trainer, record)


def limit_threads(num_threads: int) -> None:
    """Fix the thread count: it decides the order of sums, hence the bits."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
