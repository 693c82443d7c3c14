"""Classifier-free guidance with a learnable unconditional vector (section 3.2, similarity control).

    eps~ = eps(y_t, v) + s (eps(y_t, c) - eps(y_t, v))

In training v replaces a share of the conditions. The draw is per sample; the official code draws once per batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy latents, timesteps) => predicted noise
# (noisy latents, timesteps, context) => predicted noise; R times as many contexts ask for R predictions of each sample
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def drop_context(context: Tensor, uncond_context: Tensor, dropped: Tensor) -> Tensor:
    """Return the context (B, T, D) with v (1, 1, D) in place of the samples where `dropped` (B,) is true."""
    return torch.where(dropped[:, None, None], uncond_context.to(context.dtype), context)


def guided(predict: Predict, context: Tensor, uncond_context: Tensor, guidance_scale: float) -> Denoise:
    """Return the guided denoiser of a batch with context (B, T, D).

    It calls `predict` once, with the 2 B contexts [v, c]; at scale 1, the conditional prediction, with c alone.
    """
    if guidance_scale == 1.0:
        return lambda noisy, timesteps: predict(noisy, timesteps, context)
    both = torch.cat([uncond_context.expand_as(context), context])

    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        uncond, cond = predict(noisy, timesteps, both).chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    return denoise
