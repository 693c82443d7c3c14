"""The diffusion process and the loss of training (equation 2).

    y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps
    L   = E || eps_theta(y_t, (1 - m) * x_s, m, c, t) - eps ||^2

For classifier-free guidance, c is replaced by the learnable vector v in a share of the samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.method.guidance import drop_context

# (noisy latents, masked latents, mask, context, timesteps) => predicted noise: eps_theta(y_t, (1 - m) * x_s, m, c, t)
Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def alphas_cumprod(num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """Return alpha_bar, (num_timesteps,), of Stable Diffusion's schedule: square roots of beta evenly spaced."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Sample q(y_t | y_0) at one timestep for each sample: (B, C, h, w), (B,) => (B, C, h, w)."""
    alpha_bar = alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def denoising_loss(
    predict: Denoiser,
    latents: Tensor,
    masked_latents: Tensor,
    mask: Tensor,
    context: Tensor,
    uncond_context: Tensor,
    dropped: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
) -> Tensor:
    """Return equation 2's squared error for each sample, averaged over its latents: (B,).

    `latents` of the source, `masked_latents` of the masked source and `noise` are (B, 4, h, w), `mask` is (B, 1, h, w)
    with 1 = repaint, `context` (B, T, D), `uncond_context` (1, 1, D) is v and replaces the context where `dropped` (B,)
    is true, `timesteps` are (B,).
    """
    context = drop_context(context, uncond_context, dropped)
    noisy = add_noise(latents, noise, timesteps, alphas_cumprod)
    predicted = predict(noisy, masked_latents, mask, context, timesteps)
    return F.mse_loss(predicted.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))
