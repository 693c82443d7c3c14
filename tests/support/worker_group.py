"""Processes that train together over gloo, without Ray: python -m tests.support.worker_group BACKBONE FOLDER

Each case runs in a folder of its name, which gets `records.json` and `weights.pt`, the delivered weights. The workers
of a group are forked from a process that has imported everything, and train their cases one after the other.
"""

import faulthandler
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer imports it in its first step: here once for all workers
import torch.distributed as dist
import torch.multiprocessing as mp

from pbe.method.initialization import build_painter
from pbe.training.batches import BatchSource
from pbe.training.checkpoints import load_checkpoint, save_checkpoint
from pbe.training.journal import StepRecord
from pbe.training.loop import Trainer, train_to_end
from pbe.training.painting_loss import PaintingLoss
from pbe.training.parallel import average_gradients
from tests.support import parameters
from tests.support.random_encodings import fetch

STEPS, SAVED_AT, GLOBAL_BATCH = 4, 2, 4
TIMEOUT_S = 200
FSDP = {"strategy": "fsdp"}
BF16 = {"precision": "bf16"}


@dataclass
class Case:
    """A run of a number of workers; it may resume from another case's checkpoint, or be killed after a step."""

    workers: int
    changes: dict[str, Any] = field(default_factory=dict)
    resumes: str | None = None
    killed_after: int | None = None


CASES = {
    "one": Case(1),
    "one-bf16": Case(1, BF16),
    "ddp": Case(2, {"accumulate": 2}),
    "ddp-bf16": Case(2, BF16 | {"accumulate": 2}),
    "fsdp": Case(2, FSDP | {"accumulate": 2, "gradient_checkpointing": True}),
    "fsdp-bf16": Case(2, FSDP | BF16 | {"average": "cpu"}),
    "fsdp-killed": Case(2, FSDP | {"accumulate": 2, "gradient_checkpointing": True}, killed_after=3),
    "fsdp-resumed": Case(2, FSDP | {"accumulate": 2, "gradient_checkpointing": True}, resumes="fsdp-killed"),
    "ddp-4": Case(4),
    "ddp-4-resumed": Case(4, resumes="ddp-4"),
    "fsdp-4-from-ddp": Case(4, FSDP, resumes="ddp"),
    "one-from-fsdp": Case(1, resumes="fsdp"),
}
GROUPS = [
    ["one", "one-bf16"],
    ["fsdp-killed"],
    ["ddp", "ddp-bf16", "fsdp", "fsdp-bf16", "fsdp-resumed"],
    ["ddp-4", "ddp-4-resumed", "fsdp-4-from-ddp"],
    ["one-from-fsdp"],
]


class Recorder:
    """The first worker's callbacks: the validation loss, checkpoints in a folder, and death after a step."""

    def __init__(self, folder: Path, killed_after: int | None) -> None:
        self.folder, self.killed_after = folder, killed_after
        alone = parameters.train(num_workers=1, batch_size=GLOBAL_BATCH, accumulate=1)
        self.samples = BatchSource(40, fetch, alone, 1).batches(0, 0)[0]

    def validate(self, trainer: Trainer) -> float:
        with trainer.averaged():
            assert trainer.update.averaged_weights()  # needs no other worker here
            return trainer.validation_loss(self.samples)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if trainer.step == self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def save_checkpoint(self, trainer: Trainer) -> None:
        save_checkpoint(self.folder, trainer.step, trainer.state(), keep=9)


def train_case(name: str, case: Case, rank: int, backbone: Path, root: Path) -> None:
    """Train one case as one of its workers."""
    accumulate = case.changes.get("accumulate", 1)
    train = parameters.train(
        num_workers=case.workers, batch_size=GLOBAL_BATCH // case.workers // accumulate, steps=STEPS, lr=2e-3,
        conv_in_lr_factor=1.0, warmup_steps=0, decay="constant", checkpoint_every=SAVED_AT, validate_every=STEPS,
        **case.changes,
    )  # fmt: skip
    trainer = Trainer(build_painter(backbone, 64, 0), BatchSource(40, fetch, train, 0), train, rank, "cpu")
    if case.resumes:
        trainer.load_state(load_checkpoint(root / case.resumes / f"step-{SAVED_AT:08d}"))
    folder = root / name
    train_to_end(trainer, Recorder(folder, case.killed_after) if rank == 0 else None)
    trainer.update.copy_average_to_model()
    if rank == 0:
        (folder / "records.json").write_text(json.dumps([r.__dict__ for r in trainer.records]))
        torch.save({n: p.detach() for n, p in trainer.losses.trained().items()}, folder / "weights.pt")


def measure_overlap(dtype: torch.dtype, rank: int, backbone: Path, root: Path) -> None:
    """Write what DDP measures in backward passes with small buckets: times in nanoseconds and sizes in bytes."""
    losses = PaintingLoss(build_painter(backbone, 64, 0)).to(dtype).train()
    module = average_gradients(losses, bucket_mib=0.02)
    source = BatchSource(40, fetch, parameters.train(num_workers=2, batch_size=8, accumulate=1), 0)
    for step in range(3):
        module(source.batches(step, rank)[0]).mean().backward()
    measured = module._get_ddp_logging_data()
    if rank == 0:
        (root / f"{dtype}.json").write_text(json.dumps({name: str(value) for name, value in measured.items()}))


def train_group(rank: int, names: list[str], backbone: Path, root: Path) -> None:
    """Train the cases of a group as one of its workers."""
    faulthandler.dump_traceback_later(TIMEOUT_S, exit=True)
    torch.set_num_threads(1)
    workers = CASES[names[0]].workers
    if workers > 1:
        dist.init_process_group("gloo", f"file://{root / names[0]}.store", rank=rank, world_size=workers)
    for name in names:
        train_case(name, CASES[name], rank, backbone, root)
    if "ddp" in names:
        for dtype in (torch.float32, torch.bfloat16):
            measure_overlap(dtype, rank, backbone, root)
    if workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    """Train all groups, one after the other."""
    backbone, root = Path(sys.argv[1]), Path(sys.argv[2])
    for names in GROUPS:
        case = CASES[names[0]]
        try:
            mp.start_processes(train_group, (names, backbone, root), case.workers, start_method="fork")
        except mp.ProcessExitedException:
            if case.killed_after is None:
                raise


if __name__ == "__main__":
    main()
