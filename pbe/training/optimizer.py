"""One update of AdamW, moving average and low-precision weights; or AdamW with its moments in eight bits.

With gradient g, clipped to a norm of max_grad_norm, weights w, moments m and v, learning rate r and step t from 1:

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
    w <- (1 - r decay) w - r / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)      (Loshchilov & Hutter, 2019)
    average <- average + share (w - average)

The share of the average falls with the step, so that the start is soon forgotten.
"""

import importlib
import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pbe import settings
from pbe.errors import UserError

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")  # m and v in checkpoints, by torch's names
CONV_IN = "unet.conv_in.weight"


class Rates(NamedTuple):
    """What an update depends on besides tensors of the weights' size; on a GPU all are 0-d tensors."""

    t: float | Tensor  # from 1
    rate: float | Tensor  # r
    decay: float | Tensor
    size: float | Tensor  # r / (1 - b1^t)
    scale: float | Tensor  # 1 / sqrt(1 - b2^t)
    share: float | Tensor  # of the new weights in the average


class Parts(NamedTuple):
    """The same range of 1-D buffers; all are fp32 except the gradients and `low`, which may have any dtype."""

    gradients: Tensor
    weights: Tensor
    first: Tensor  # m
    second: Tensor  # v
    average: Tensor | None
    low: Tensor | None  # a copy of the weights in lower precision


def adamw_rates(step: int, rate: float, train: settings.Train) -> Rates:
    """Return the rates of a step, counted from 0, with learning rate `rate`."""
    t = step + 1
    return Rates(
        t,
        rate,
        train.weight_decay,
        rate / (1 - BETA1**t),
        (1 - BETA2**t) ** -0.5,
        average_share(step, train),
    )


def rate_factor(name: str, train: settings.Train) -> float:
    """Return what multiplies the learning rate for a parameter: `conv_in_lr_factor` for the UNet's first layer."""
    return train.conv_in_lr_factor if name == CONV_IN else 1.0


def average_share(step: int, train: settings.Train) -> float:
    """Return the share of the weights after `step` in the average: 1 - min(ema_decay, (1 + step) / (10 + step)).

    With `average_every` above 1 it is 0 in the other steps, and takes the decay of all of them.
    """
    if (step + 1) % train.average_every:
        return 0.0
    return 1 - min(train.ema_decay, (1 + step) / (10 + step)) ** train.average_every


def update_(parts: Parts, clip: Tensor, rates: Rates) -> None:
    """Update weights, moments, average and low-precision copy in place; the gradients are multiplied by `clip`, 0-d.

    All operations are elementwise, so that a compiler makes one kernel of them for a GPU.
    """
    gradients, weights, first, second, average, low = parts
    clipped = gradients.float() * clip
    first.lerp_(clipped, 1 - BETA1)
    second.mul_(BETA2).addcmul_(clipped, clipped, value=1 - BETA2)
    denominator = second.sqrt().mul_(rates.scale).add_(EPSILON)
    weights.mul_(1 - rates.rate * rates.decay).sub_(first.div(denominator).mul_(rates.size))
    follow_(weights, average, low, rates.share)


def update_on_cpu_(parts: Parts, clip: Tensor, rates: Rates) -> None:
    """Do what `update_` does, by torch's fused AdamW, in one pass over the memory; the gradients become the clipped."""
    adamw(
        [parts.weights],
        [parts.gradients.float()],
        [parts.first],
        [parts.second],
        [],
        [torch.as_tensor(rates.t - 1, dtype=torch.float32)],
        fused=True,
        grad_scale=1 / clip,
        amsgrad=False,
        beta1=BETA1,
        beta2=BETA2,
        lr=rates.rate,
        weight_decay=float(rates.decay),
        eps=EPSILON,
        maximize=False,
    )
    follow_(parts.weights, parts.average, parts.low, rates.share)


def follow_(weights: Tensor, average: Tensor | None, low: Tensor | None, share: float | Tensor) -> None:
    """Move the average towards the weights, and copy them into lower precision, in place."""
    if average is not None:
        average.lerp_(weights, share)
    if low is not None:
        low.copy_(weights)


def build_adamw8bit(
    groups: list[tuple[list[nn.Parameter], float]], train: settings.Train, device: torch.device
) -> torch.optim.Optimizer:
    """Return AdamW with 8-bit moments over groups of parameters with the factors of their learning rates.

    Raises UserError without a GPU or without bitsandbytes (Dettmers et al., 2022).
    """
    if device.type != "cuda":
        raise UserError(f"train.optimizer: {train.optimizer!r} needs a GPU; set train.use_gpu, or choose adamw")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"train.optimizer: {train.optimizer!r} needs bitsandbytes, which is not installed; "
            "run pip install 'paint-by-example[8bit]', or choose adamw"
        )
    library = importlib.import_module("bitsandbytes")
    described = [{"params": params, "factor": factor} for params, factor in groups]
    optimizer: torch.optim.Optimizer = library.optim.AdamW8bit(described, lr=train.lr, weight_decay=train.weight_decay)
    return optimizer
