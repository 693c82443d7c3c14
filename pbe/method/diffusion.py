"""The diffusion process and its loss (equation 2).

y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps
L   = E || eps_theta(y_t, (1 - m) * x_s, m, c, t) - eps ||^2
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def alphas_cumprod(num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """Stable Diffusion's schedule: betas whose square roots are evenly spaced; alpha_bar, (num_timesteps,)."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """q(y_t | y_0) at one timestep a sample: (B, C, h, w), (B,) => (B, C, h, w)."""
    alpha_bar = alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def denoising_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, one value a sample, (B,)."""
    return F.mse_loss(predicted.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))
