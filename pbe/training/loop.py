"""The training loop of one worker.

A step is a function of the state before it: sample order, noise and dropped conditions come from seed and step. A
killed run that resumes from its last checkpoint therefore ends with the same bits.
"""

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pbe import settings
from pbe.method.painter import Painter
from pbe.training.batches import BatchSource, PrefetchedBatches
from pbe.training.journal import NUM_BANDS, StepRecord
from pbe.training.optimizer import build_optimizer
from pbe.training.painting_loss import Batch, ExponentialMovingAverage, PaintingLoss, prepare_unet

CONV_IN = "unet.conv_in.weight"


def learning_rate(step: int, train: settings.Train) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then constant or a half cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.decay == "constant":
        return train.lr * warm
    return train.lr * warm * (0.5 + 0.5 * float(np.cos(np.pi * step / train.steps)))


class NotFiniteError(FloatingPointError):
    """The loss or the gradient norm is NaN or infinite; every worker of the run raises it in the same step.

    `samples` are the step's global batch, `bad` are those whose own loss is not finite (none, if only the norm is not).
    """

    def __init__(self, what: str, step: int, samples: list[int], bad: list[int]) -> None:
        super().__init__(f"{what} at step {step}, samples {bad or samples}")
        self.what, self.step, self.samples, self.bad = what, step, samples, bad


class Trainer:
    """The model, optimizer, averaged weights and step of one worker."""

    def __init__(self, painter: Painter, source: BatchSource, train: settings.Train, rank: int, device: str) -> None:
        self.painter, self.source, self.train, self.rank, self.device = painter, source, train, rank, device
        self._batches: BatchSource | PrefetchedBatches = (
            PrefetchedBatches(source) if device.startswith("cuda") else source
        )
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
        self.optimizer = build_optimizer(groups, train, device)
        self.average = ExponentialMovingAverage(trained, train.ema_decay, train.average, train.average_every)
        self.step = 0
        self.records: list[StepRecord] = []

    def run_step(self) -> StepRecord:
        """Take one optimizer step over the global batch; raises NotFiniteError with the samples of a NaN."""
        rate = learning_rate(self.step, self.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        losses, timesteps = self._backward()
        trained = self.losses.trained()
        norm = nn.utils.clip_grad_norm_(list(trained.values()), self.train.max_grad_norm)
        self.optimizer.step()
        self.average.update(trained, self.step)
        record = self._record(losses, timesteps, rate, float(norm))
        self.step += 1
        self.records.append(record)
        return record

    def _backward(self) -> tuple[Tensor, Tensor]:
        batches = self._batches.batches(self.step, self.rank)
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
        in_band = nn.functional.one_hot(timesteps * NUM_BANDS // 1000, NUM_BANDS).double()  # (B, bands)
        sums = torch.stack([losses.double() @ in_band, in_band.sum(0)])
        if dist.is_initialized():
            dist.all_reduce(sums)
        totals, counts = sums.tolist()
        loss = sum(totals) / sum(counts)
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not np.isfinite(value):
                raise self._not_finite(f"{what} is {value}", losses)
        bands = [total / count if count else None for total, count in zip(totals, counts, strict=True)]
        t000, t250, t500, t750 = bands
        return StepRecord(self.step, loss, t000, t250, t500, t750, rate, norm)

    def _not_finite(self, what: str, losses: Tensor) -> NotFiniteError:
        parts = [losses]
        if dist.is_initialized():
            parts = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, losses)
        samples = self.source.indices(self.step)[0]
        bad = [samples[int(i)] for i in (~torch.isfinite(torch.cat(parts))).nonzero()]
        return NotFiniteError(what, self.step, samples, bad)

    @torch.no_grad()
    def validation_loss(self, samples: Batch) -> float:
        """Return the mean loss over samples with the current weights."""
        parts = []
        for part in samples.split(self.train.batch_size):
            with self._precision():
                parts.append(self.losses(part.to(self.device)).double())
        return float(torch.cat(parts).mean())

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, for a checkpoint."""
        return {
            "step": self.step,
            "model": {k: p.detach() for k, p in self.losses.trained().items()},
            "average": self.average.weights,
            "optimizer": self.optimizer.state_dict(),
            "records": [list(r.__dict__.values()) for r in self.records],
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        for name, parameter in self.losses.trained().items():
            parameter.copy_(state["model"][name])
            self.average.weights[name].copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        self.records = [StepRecord(*r) for r in state["records"]]


class Callbacks(Protocol):
    """The loop's calls to the code around it, on the first worker only."""

    def validate(self, trainer: Trainer) -> float:
        """Return the validation loss; called every `validate_every` steps and after the last one."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Take the record of a step; called after every step."""

    def save_checkpoint(self, trainer: Trainer) -> None:
        """Save the trainer's state; called every `checkpoint_every` steps and after the last one."""


def train_to_end(trainer: Trainer, callbacks: Callbacks | None) -> None:
    """Train from the trainer's step to the last one. Only the first worker has callbacks."""
    train = trainer.train
    while trainer.step < train.steps:
        record = trainer.run_step()
        if callbacks is None:
            continue
        finished = trainer.step == train.steps
        if finished or trainer.step % train.validate_every == 0:
            record = trainer.records[-1] = replace(record, validation_loss=callbacks.validate(trainer))
        callbacks.on_step(trainer, record)
        if finished or trainer.step % train.checkpoint_every == 0:
            callbacks.save_checkpoint(trainer)


def limit_threads(num_threads: int) -> None:
    """Fix the number of torch's threads, which decides the order of sums and hence the bits."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
