"""Classifier-free guidance with a learnable unconditional vector (section 3.2, similarity control).

    eps~ = eps(y_t, v) + s (eps(y_t, c) - eps(y_t, v))

In training v replaces a share of the conditions. The draw is per sample; the official code draws once per batch.

Guidance can be limited to an interval of noise levels (Kynkäänniemi et al., 2024, arXiv 2404.07724), whose level is the
ratio of noise and signal, sigma_t = sqrt((1 - a_t) / a_t). At other levels the conditional prediction is taken alone,
which is half the work.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy latents, timesteps) => predicted noise
# (noisy latents, timesteps, context) => predicted noise; R times as many contexts ask for R predictions of each sample
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def drop_context(context: Tensor, uncond_context: Tensor, dropped: Tensor) -> Tensor:
    """Return the context (B, T, D) with v (1, 1, D) in place of the samples where `dropped` (B,) is true."""
    return torch.where(dropped[:, None, None], uncond_context.to(context.dtype), context)


@dataclass(frozen=True)
class GuidanceInterval:
    """The noise levels with guidance, low < sigma_t <= high, on a schedule alpha_bar (T,)."""

    low: float
    high: float
    alphas_cumprod: Tensor

    def contains(self, timestep: int) -> bool:
        """Return whether the level of a timestep is within the interval."""
        alpha_bar = float(self.alphas_cumprod[timestep])
        return self.low < math.sqrt((1 - alpha_bar) / alpha_bar) <= self.high


def guided(
    predict: Predict,
    context: Tensor,
    uncond_context: Tensor,
    guidance_scale: float,
    interval: GuidanceInterval | None = None,
) -> Denoise:
    """Return the guided denoiser of a batch with context (B, T, D).

    It calls `predict` once, with the 2 B contexts [v, c]; at scale 1 or outside the interval, the conditional
    prediction, with c alone. With an interval, all timesteps of a call must be equal.
    """

    def conditional(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return predict(noisy, timesteps, context)

    if guidance_scale == 1.0:
        return conditional
    both = torch.cat([uncond_context.expand_as(context), context])

    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        if interval and not interval.contains(int(timesteps[0])):
            return conditional(noisy, timesteps)
        uncond, cond = predict(noisy, timesteps, both).chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    return denoise
