"""Random encodings of samples, the input of training at the tiny size."""

import torch
from torch import Tensor


def fetch(indices: list[int], epochs: list[int]) -> dict[str, Tensor]:
    """Return random encodings that follow from the samples' numbers."""
    draws = [torch.Generator().manual_seed(i) for i in indices]
    return {
        "source_latents": torch.stack([torch.randn(4, 16, 16, generator=g) for g in draws]) * 0.2 + 0.5,
        "masked_latents": torch.stack([torch.randn(4, 16, 16, generator=g) for g in draws]),
        "mask": torch.ones(len(indices), 1, 16, 16),
        "class_tokens": torch.stack([torch.randn(2, 1, 16, generator=g) for g in draws]),
    }
