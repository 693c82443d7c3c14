"""Pseudo linear multistep sampling, PLMS (Liu et al., 2022, arXiv 2202.09778), the paper's sampler.

    eps' = (55 eps_i - 59 eps_(i-1) + 37 eps_(i-2) - 9 eps_(i-3)) / 24
    y'   = sqrt(a') (y - sqrt(1 - a) eps') / sqrt(a) + sqrt(1 - a') eps'

The noise predictions of the last four steps are combined by Adams-Bashforth weights, and a DDIM step (Song et al.,
2021) follows with the combined prediction. The first step is Heun's. Below 25 steps only the last two predictions are
combined: over such long strides the higher orders overshoot under strong guidance.

A schedule whose last timestep has no signal (Lin et al., 2024) is sampled from that timestep on. Its first step is
DDIM's: there sqrt(a) is next to 0, and the second prediction of Heun's step would be divided by it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pbe.method.guidance import Denoise

_ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}

_FEW_STEPS = 25  # from here on all four predictions are combined

_NO_SIGNAL = 1e-6  # alpha_bar below it: noise alone; Stable Diffusion's schedule ends with 0.0047

Constrain = Callable[[Tensor, Tensor], Tensor]  # (latents, alpha_bar of their level) => latents


def sampling_timesteps(num_steps: int, num_timesteps: int = 1000, *, from_last: bool = False) -> list[int]:
    """Return evenly spaced timesteps, the noisiest first, offset by one as in Stable Diffusion.

    With `from_last` the first is the last of the schedule ("trailing" spacing, Lin et al., 2024, table 2). Raises
    ValueError unless 1 <= num_steps <= num_timesteps.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"number of steps {num_steps} is not within 1 to {num_timesteps}")
    if from_last:
        return [round(num_timesteps * i / num_steps) - 1 for i in range(num_steps, 0, -1)]
    stride = num_timesteps // num_steps
    return [min(i * stride + 1, num_timesteps - 1) for i in reversed(range(num_steps))]


def ddim_step(latents: Tensor, noise: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> Tensor:
    """Take one DDIM step: estimate y_0 = (y - sqrt(1 - a) eps) / sqrt(a), and add `noise` at the next level again."""
    clean = (latents - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    return alpha_bar_next.sqrt() * clean + (1 - alpha_bar_next).sqrt() * noise


@torch.inference_mode()
def sample_plms(
    denoise: Denoise,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    on_step: Callable[[int, int], None] | None = None,
    constrain: Constrain | None = None,
) -> Tensor:
    """Return latents (B, C, h, w), sampled from `noise` of the same shape with num_steps + 1 calls of the denoiser.

    A schedule that ends without signal takes num_steps calls. `constrain` replaces the known part of the latents before
    every call of the denoiser. `on_step` is called with (steps done, num_steps) after each step. Raises ValueError
    unless 1 <= num_steps <= len(alphas_cumprod).
    """
    ends_without_signal = bool(alphas_cumprod[-1] < _NO_SIGNAL)
    timesteps = sampling_timesteps(num_steps, len(alphas_cumprod), from_last=ends_without_signal)
    levels = [alphas_cumprod[t] for t in timesteps] + [alphas_cumprod[0]]
    order = 4 if num_steps >= _FEW_STEPS else 2
    latents = noise
    history: list[Tensor] = []  # of noise predictions, the newest first
    for i, t in enumerate(timesteps):
        if constrain:
            latents = constrain(latents, levels[i])
        predicted = denoise(latents, torch.full((len(latents),), t, device=latents.device))
        if i == 0 and ends_without_signal:
            combined = predicted
        elif i == 0:
            trial = ddim_step(latents, predicted, levels[0], levels[1])
            if constrain:
                trial = constrain(trial, levels[1])
            following = timesteps[1] if num_steps > 1 else 0
            second = denoise(trial, torch.full((len(latents),), following, device=latents.device))
            combined = (predicted + second) / 2
        else:
            weights = _ADAMS_BASHFORTH[min(i + 1, order)]
            combined = sum(
                (w * e for w, e in zip(weights, [predicted, *history], strict=False)), torch.zeros_like(noise)
            )
        history = [predicted, *history][:3]
        latents = ddim_step(latents, combined, levels[i], levels[i + 1])
        if on_step:
            on_step(i + 1, num_steps)
    return latents
