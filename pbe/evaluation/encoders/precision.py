"""Convolutions in fp32 on every device."""

from contextlib import AbstractContextManager

import torch


def exact_convolutions() -> AbstractContextManager[None]:
    """Return a context in which a GPU computes convolutions in fp32; by default torch rounds their inputs to TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
