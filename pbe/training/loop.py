"""The training loop of one worker.

A step is a function of the state before it: sample order, noise and dropped conditions come from seed and step. A
killed run that resumes from its last checkpoint therefore ends with the same bits.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pbe import settings
from pbe.method.painter import Painter
from pbe.method.unet import UNet
from pbe.runtime.devices import choose_precision
from pbe.training.batches import BatchSource, PrefetchedBatches
from pbe.training.captured_step import CapturedStep
from pbe.training.flat_update import FlatUpdate
from pbe.training.journal import NUM_BANDS, StepRecord
from pbe.training.painting_loss import Batch, PaintingLoss
from pbe.training.parallel import average_gradients, check_strategy, is_alone, settle_buckets
from pbe.training.sharded_update import ShardedUpdate


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
    """The model, the update of its weights and the step of one worker.

    With bf16, weights and activations are bf16, beside fp32 weights that the update changes; noise schedule, timesteps
    and losses stay fp32. On one GPU the whole step is a CUDA graph.
    """

    def __init__(self, painter: Painter, source: BatchSource, train: settings.Train, rank: int, device: str) -> None:
        self.painter, self.source, self.train, self.rank, self.device = painter, source, train, rank, device
        place = torch.device(device)
        self.dtype = choose_precision(train.precision, place, "train.precision")
        self._batches: BatchSource | PrefetchedBatches = (
            PrefetchedBatches(source, device) if place.type == "cuda" else source
        )
        check_strategy(train)
        self.is_sharded = train.strategy == "fsdp" and not is_alone()
        self.update: FlatUpdate | ShardedUpdate
        self.wrapped: nn.Module
        if self.is_sharded:
            self.update = ShardedUpdate(painter, train, place, self.dtype)
            self.losses, self.wrapped, self._compiled = self.update.whole, self.update.module, False
        else:
            self.losses = PaintingLoss(painter, train.min_snr_gamma).to(device).train()
            self._compiled = prepare_unet(self.losses.unet, train, place)
            root = nn.ModuleList([painter, self.losses])
            self.update = FlatUpdate(self.losses, root, train, self.dtype, owns_gradients=is_alone())
            self.wrapped = self.losses if is_alone() else average_gradients(self.losses)
        self._is_settled = False
        captures = place.type == "cuda" and self.update.can_be_captured and not train.gradient_checkpointing
        self._captured = CapturedStep(self._compute, place) if captures else None
        self.step = 0
        self.records: list[StepRecord] = []

    def run_step(self) -> StepRecord:
        """Take one optimizer step over the global batch; raises NotFiniteError with the samples of a NaN."""
        rate = learning_rate(self.step, self.train)
        batches = self._batches.batches(self.step, self.rank)
        if isinstance(self.wrapped, DistributedDataParallel) and not self._is_settled:
            settle_buckets(self.wrapped, batches[0].to(self.device))
            self._is_settled = True
        self.update.prepare(self.step, rate)
        losses, norm = (self._captured or self._compute)(batches)
        self.update.finish(self.step)
        timesteps = torch.cat([b.timesteps for b in batches]).to(self.device)
        record = self._record(losses, timesteps, rate, float(norm))
        self.step += 1
        self.records.append(record)
        return record

    def _compute(self, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Return the losses of the samples and the norm of the gradients, which have updated the weights."""
        self.update.zero_grad()
        losses = []
        for i, batch in enumerate(batches):
            local = batch.to(self.device)
            with self._sync(last=i == len(batches) - 1):
                loss = self.wrapped(local)
                (loss.mean() / len(batches)).backward()
            self.update.add_gradients()
            losses.append(loss.detach())
        return torch.cat(losses), self.update.compute()

    def _sync(self, last: bool) -> AbstractContextManager[None]:
        """Leave gradients to be exchanged with the last micro-batch, except in bf16, where each is exchanged."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last and self.dtype == torch.float32:
            return cast(AbstractContextManager[None], self.wrapped.no_sync())
        return nullcontext()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averaged weights in painter and loss for the block, in fp32 and without compiling for them."""
        as_written = torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()
        with as_written, self.update.swapped_in():
            yield

    def join_validation(self) -> None:
        """Take part in the first worker's `averaged`: sharded weights are with all workers."""
        if self.is_sharded:
            with self.update.swapped_in():
                pass

    def join_checkpoint(self) -> None:
        """Take part in the first worker's `state`."""
        if self.is_sharded:
            self.update.state()

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
        parts = [self.losses(part.to(self.device)).double() for part in samples.split(self.train.batch_size)]
        return float(torch.cat(parts).mean())

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, for a checkpoint."""
        records = [list(r.__dict__.values()) for r in self.records]
        return {"step": self.step, "records": records, "update": self.update.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.update.load_state(state["update"])
        self.step = int(state["step"])
        self.records = [StepRecord(*r) for r in state["records"]]


def prepare_unet(unet: UNet, train: settings.Train, device: torch.device) -> bool:
    """Set up a UNet to train fast on the device, or in little memory, as `train` says; return whether it compiles."""
    if device.type == "cuda":
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this one
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.allow_tf32 = True
    if train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    compiles = train.compile is True or (train.compile == "auto" and device.type == "cuda")
    if compiles:
        unet.compile_blocks()
    return compiles


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
        finished = trainer.step == train.steps
        validates = finished or trainer.step % train.validate_every == 0
        saves = finished or trainer.step % train.checkpoint_every == 0
        if callbacks is None:
            _join(trainer, validates, saves)
            continue
        if validates:
            record = trainer.records[-1] = replace(record, validation_loss=callbacks.validate(trainer))
        callbacks.on_step(trainer, record)
        if saves:
            callbacks.save_checkpoint(trainer)


def _join(trainer: Trainer, validates: bool, saves: bool) -> None:
    if validates:
        trainer.join_validation()
    if saves:
        trainer.join_checkpoint()


def limit_threads(num_threads: int) -> None:
    """Fix the number of torch's threads, which decides the order of sums and hence the bits."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
