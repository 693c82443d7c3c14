"""Several workers: which strategies there are, and the gradients averaged among workers that have all weights."""

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pbe import settings
from pbe.errors import UserError

BUCKET_MIB = 25  # gradients that are reduced together; PyTorch's default, as nothing else has been measured


def is_alone() -> bool:
    """Return whether this is the only worker."""
    return not (dist.is_initialized() and dist.get_world_size() > 1)


def check_strategy(train: settings.Train) -> None:
    """Raise UserError for settings that fsdp cannot combine."""
    if train.strategy != "fsdp":
        return
    if train.optimizer != "adamw":
        raise UserError(f"train.strategy: 'fsdp' needs train.optimizer adamw, not {train.optimizer!r}; or choose ddp")
    if train.lora_rank:
        raise UserError("train.strategy: 'fsdp' divides whole weights; train adapters (train.lora_rank) with ddp")


def average_gradients(module: nn.Module, bucket_mib: float = BUCKET_MIB) -> DistributedDataParallel:
    """Return the module such that a backward pass leaves the average of all workers' gradients, in their own dtype.

    Gradients are reduced in buckets while the backward pass continues (Li et al., 2020, PyTorch Distributed).
    """
    return DistributedDataParallel(
        module, gradient_as_bucket_view=True, broadcast_buffers=False, bucket_cap_mb=bucket_mib
    )


def settle_buckets(module: DistributedDataParallel, batch: Any) -> None:
    """Run a backward pass whose gradients are to be discarded, before the first step of a process.

    In its second pass DDP arranges its buckets in the order in which gradients become ready. Which workers' gradients
    are added first depends on the bucket, so that without this a resumed run of more than two workers has other bits.
    """
    module(batch).mean().backward()
