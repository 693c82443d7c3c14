"""Classifier-free guidance with a learnable unconditional vector (section 3.2, similarity control).

    eps~ = eps(y_t, v) + s (eps(y_t, c) - eps(y_t, v))

In training a share of the conditions is replaced by v, drawn for each sample (the official code draws once a batch).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy latents, timesteps) => predicted noise
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # (noisy latents, timesteps, context) => predicted noise


def drop_context(context: Tensor, uncond_context: Tensor, dropped: Tensor) -> Tensor:
    """Replace the context (B, L, D) by v (1, 1, D) where `dropped` (B,) is true."""
    return torch.where(dropped[:, None, None], uncond_context.to(context.dtype), context)


def guided(predict: Predict, context: Tensor, uncond_context: Tensor, guidance_scale: float) -> Denoise:
    """The guided denoiser of a batch; at scale 1 it is the conditional prediction and costs half."""
    if guidance_scale == 1.0:
        return lambda noisy, timesteps: predict(noisy, timesteps, context)
    both = torch.cat([uncond_context.expand_as(context), context])

    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        uncond, cond = predict(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), both).chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    return denoise
