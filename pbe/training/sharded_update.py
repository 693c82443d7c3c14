"""Fully sharded training: each worker keeps its share of weights, moments and average (ZeRO, Rajbhandari et al., 2020).

A block's weights are gathered before it computes and freed after it, and its gradients are reduced to shards while the
backward pass continues: PyTorch's FSDP2 (Zhao et al., 2023), over the residual blocks and transformers of the UNet.
With bf16, workers exchange weights and gradients in bf16; the shards that the optimizer updates stay fp32.

Validation and delivery use a whole model with the averaged weights, on the first worker alone. Whatever collects whole
tensors exchanges messages, so that every worker must call it in the same step.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pbe import settings
from pbe.method.painter import Painter
from pbe.method.unet import UNet
from pbe.training.optimizer import BETA1, BETA2, EPSILON, MOMENTS, average_share, rate_factor
from pbe.training.painting_loss import PaintingLoss


class ShardedUpdate:
    """AdamW with clipping and an average of the weights, over the shards of a model.

    `module` is the sharded copy of the painter's trained parts, to train. `whole`, which has the painter's own parts,
    stays on the CPU, without gradients; the first worker validates and delivers with it.
    """

    can_be_captured = False

    def __init__(self, painter: Painter, train: settings.Train, device: torch.device, dtype: torch.dtype) -> None:
        self.painter, self.train, self.device = painter, train, device
        self.whole = PaintingLoss(painter, train.min_snr_gamma)
        self.module = copy.deepcopy(self.whole).train()
        prepare_blocks(self.module.unet, train, device)
        shard(self.module, device, dtype)
        self._sharded = self.module.trained()
        self._shards = {name: nn.Parameter(local(p)) for name, p in self._sharded.items()}  # the same memory
        by_factor: dict[float, list[nn.Parameter]] = {}
        for name, p in self._shards.items():
            by_factor.setdefault(rate_factor(name, train), []).append(p)
        groups = [{"params": params, "factor": factor} for factor, params in by_factor.items()]
        self._optimizer = torch.optim.AdamW(
            groups, lr=train.lr, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=train.weight_decay, fused=True
        )
        self._steps_taken = 0
        for p in self._shards.values():
            zeros = {moment: torch.zeros_like(p) for moment in MOMENTS}
            self._optimizer.state[p] = {"step": torch.zeros((), device=device), **zeros}
        self._average: dict[str, Tensor] = {}
        if train.average != "none":
            kept_on = torch.device("cpu") if train.average == "cpu" else device
            self._average = {name: p.detach().to(kept_on, copy=True) for name, p in self._shards.items()}
        self._is_swapped = False

    def zero_grad(self) -> None:
        """Clear the gradients before the first micro-batch of a step."""
        self.module.zero_grad(set_to_none=True)

    def add_gradients(self) -> None:
        """Do nothing: each backward pass reduces its gradients and adds them to fp32 shards."""

    def step(self, step: int, rate: float) -> Tensor:
        """Clip the gradients, update weights and average; return the gradient norm before clipping, a 0-d tensor."""
        self.prepare(step, rate)
        norm = self.compute()
        self.finish(step)
        return norm

    def prepare(self, step: int, rate: float) -> None:
        """Set the rates of a step, counted from 0: the part of `step` before `compute`."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        if step != self._steps_taken:  # after a resume
            for state in self._optimizer.state.values():
                state["step"].fill_(step)
        self._steps_taken = step + 1

    def compute(self) -> Tensor:
        """Clip and update on the device, with the rates of `prepare`; return the norm."""
        for name, p in self._sharded.items():
            assert p.grad is not None, name
            self._shards[name].grad = local(p.grad)
        norm = self._norm()
        nn.utils.clip_grads_with_norm_(self._shards.values(), self.train.max_grad_norm, norm)
        self._optimizer.step()
        return norm

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """Return the norm of the gradients of all workers' shards."""
        squared = nn.utils.get_total_norm([p.grad for p in self._shards.values() if p.grad is not None]).square()
        dist.all_reduce(squared)
        return squared.sqrt()

    @torch.no_grad()
    def finish(self, step: int) -> None:
        """Update the average: the part of `step` after `compute`."""
        share = average_share(step, self.train)
        if self._average and share:
            averages = list(self._average.values())
            torch._foreach_lerp_(averages, [p.detach().to(averages[0].device) for p in self._shards.values()], share)

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, in fp32; only on the first worker, and while they are swapped in."""
        assert self._is_swapped, "collecting them would need all workers"
        return {name: p.detach() for name, p in self.whole.trained().items()}

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """On the first worker, have the painter on the device with the averaged weights for the block."""
        self.copy_average_to_model()
        if dist.get_rank() != 0:
            yield
            return
        self._move_whole(self.device)
        self._is_swapped = True
        try:
            yield
        finally:
            self._is_swapped = False
            self._move_whole(torch.device("cpu"))

    def _move_whole(self, device: torch.device) -> None:
        for module in (self.whole, self.painter):
            module.to(device)

    @torch.no_grad()
    def copy_average_to_model(self) -> None:
        """On the first worker, give the painter the averaged weights."""
        for name, tensor in self._whole(self._average or self._shards):
            self.whole.get_parameter(name).copy_(tensor)

    def state(self) -> dict[str, Any]:
        """Return weights, average and moments by name, whole, on the first worker, and empty on the others.

        It equals the state of a worker that has all weights, so that a run may continue with another number of workers.
        """
        return {part: dict(self._whole(shards)) for part, shards in self._parts().items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; each worker keeps its shards of it."""
        self._steps_taken = -1  # `prepare` knows the step
        for part, shards in self._parts().items():
            for name, shard in shards.items():
                like = self._sharded[name]
                assert isinstance(like, DTensor)
                whole = state[part][name].to(self.device)
                mine = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
                shard.copy_(local(mine))

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        """Return this worker's shards of all that a checkpoint holds."""
        state = self._optimizer.state
        moments = {moment: {name: state[p][moment] for name, p in self._shards.items()} for moment in MOMENTS}
        return {"model": self._shards, **({"average": self._average} if self._average else {}), **moments}

    def _whole(self, shards: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Collect tensors one at a time; yield them in CPU memory on the first worker, nothing on the others.

        Every worker must exhaust the iterator.
        """
        workers = dist.get_world_size()
        for name, shard in shards.items():
            rows, *rest = self._sharded[name].shape
            padded = torch.zeros(-(-rows // workers), *rest, device=self.device)
            padded[: len(shard)] = shard.detach()
            parts = [torch.empty_like(padded) for _ in range(workers)] if dist.get_rank() == 0 else None
            dist.gather(padded, parts)
            if parts:
                yield name, torch.cat(parts)[:rows].to("cpu")


def prepare_blocks(unet: UNet, train: settings.Train, device: torch.device) -> None:
    """Set up a UNet that will be sharded as `train` says.

    Shards must be contiguous, so that weights are not channels_last, but activations are. What is compiled is the
    inside of a block, without the hooks that gather its weights.
    """
    if train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.allow_tf32 = True
        unet.conv_in.register_forward_pre_hook(lambda _, x: x[0].contiguous(memory_format=torch.channels_last))
    if train.compile is True or (train.compile == "auto" and device.type == "cuda"):
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for block in unet_blocks(unet):
            block.forward = torch.compile(block.forward, dynamic=False)


def unet_blocks(unet: UNet) -> list[nn.Module]:
    """Return the residual blocks and transformers, in which nearly all weights are."""
    levels = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [block for level in levels for block in [*level.resnets, *level.attentions]]


def shard(losses: PaintingLoss, device: torch.device, dtype: torch.dtype) -> None:
    """Divide the weights of a module among all workers; it computes and communicates in `dtype`."""
    policy = MixedPrecisionPolicy() if dtype == torch.float32 else MixedPrecisionPolicy(dtype, dtype)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in unet_blocks(losses.unet):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    whole = fully_shard(losses, mesh=mesh, mp_policy=policy)
    if device.type == "cpu":  # gloo's average exists in new versions only
        whole.set_force_sum_reduction_for_comms(True)


def local(parameter: Tensor) -> Tensor:
    """Return this worker's shard as a plain tensor that shares its memory."""
    assert isinstance(parameter, DTensor)
    return torch.as_tensor(parameter.to_local()).detach()
