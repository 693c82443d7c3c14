"""Pseudo linear multistep sampling, PLMS (Liu et al., 2022, arXiv 2202.09778), the paper's sampler.

    eps' = (55 eps_i - 59 eps_(i-1) + 37 eps_(i-2) - 9 eps_(i-3)) / 24
    y'   = sqrt(a') (y - sqrt(1 - a) eps') / sqrt(a) + sqrt(1 - a') eps'

The noise predictions of the last four steps are combined by Adams-Bashforth weights, and a DDIM step (Song et al.,
2021) follows with the combined prediction. The first step is Heun's. Below 25 steps only the last two predictions are
combined: over such long strides the higher orders overshoot under strong guidance.

A schedule whose last timestep has no signal (Lin et al., 2024) is sampled from that timestep on. Its first step is
DDIM's: there sqrt(a) is next to 0, and the second prediction of Heun's step would be divided by it.
"""

import torch
from torch import Tensor

from pbe.method.sampling.flow import Flow, ddim_step

_ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}

_FEW_STEPS = 25  # from here on all four predictions are combined


def sample_plms(flow: Flow, noise: Tensor) -> Tensor:
    """Sample latents with num_steps + 1 calls of the denoiser; num_steps where the first level has no signal."""
    order = 4 if flow.num_steps >= _FEW_STEPS else 2
    latents = noise
    history: list[Tensor] = []  # of noise predictions, the newest first
    for i in range(flow.num_steps):
        latents, predicted = flow.predict(latents, i)
        if i == 0:
            combined = predicted if flow.starts_without_signal else _heun(flow, latents, predicted)
        else:
            weights = _ADAMS_BASHFORTH[min(i + 1, order)]
            combined = sum(
                (w * e for w, e in zip(weights, [predicted, *history], strict=False)), torch.zeros_like(noise)
            )
        history = [predicted, *history][:3]
        latents = ddim_step(latents, combined, flow.levels[i], flow.levels[i + 1])
        flow.finish_step(i)
    return latents


def _heun(flow: Flow, latents: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean of the first prediction and that at the end of the first step."""
    _, second = flow.predict(ddim_step(latents, predicted, flow.levels[0], flow.levels[1]), 1)
    return (predicted + second) / 2
