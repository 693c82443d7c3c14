"""The optimizer: AdamW as one fused kernel, or with its two moments in eight bits, a quarter of their memory."""

import importlib
import importlib.util
from typing import Any

import torch

from pbe import settings
from pbe.errors import UserError


def build_optimizer(groups: list[dict[str, Any]], train: settings.Train, device: str) -> torch.optim.Optimizer:
    """Return the optimizer of parameter groups.

    Raises UserError when 8-bit moments are asked for without a GPU or without bitsandbytes (Dettmers et al., 2022).
    """
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    if not device.startswith("cuda"):
        raise UserError(f"train.optimizer: {train.optimizer!r} needs a GPU; set train.use_gpu, or choose adamw")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"train.optimizer: {train.optimizer!r} needs bitsandbytes, which is not installed; "
            "run pip install 'paint-by-example[8bit]', or choose adamw"
        )
    library = importlib.import_module("bitsandbytes")
    optimizer: torch.optim.Optimizer = library.optim.AdamW8bit(groups, lr=train.lr, weight_decay=train.weight_decay)
    return optimizer
