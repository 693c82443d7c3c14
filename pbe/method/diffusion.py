"""The diffusion process and the loss of training (equation 2).

    y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps
    L   = E || eps_theta(y_t, (1 - m) * x_s, m, c, t) - eps ||^2

For classifier-free guidance, c is replaced by the learnable vector v in a share of the samples.

Three departures from the paper, each off unless a parameter asks for it, are here as well: Min-SNR weighting, offset
noise, and a schedule that ends with zero signal, which needs a network that predicts the velocity.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.method.guidance import drop_context

# (noisy latents, masked latents, mask, context, timesteps) => predicted noise: eps_theta(y_t, (1 - m) * x_s, m, c, t)
Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

ZERO_TERMINAL_SNR = 2.0**-24  # alpha_bar of the last timestep: next to 0, so that nothing divides by 0, as in diffusers


def alphas_cumprod(num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """Return alpha_bar, (num_timesteps,), of Stable Diffusion's schedule: square roots of beta evenly spaced."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Return alpha_bar, (T,), rescaled so that the last timestep has no signal (Lin et al., 2024, algorithm 1).

        sqrt(a'_t) = (sqrt(a_t) - sqrt(a_T)) sqrt(a_1) / (sqrt(a_1) - sqrt(a_T))

    Source: "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891.
    """
    signal = alphas_cumprod.double().sqrt()
    rescaled = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return rescaled.square().clamp(min=ZERO_TERMINAL_SNR).float()


def draw_training_noise(seed: int, shape: tuple[int, ...], offset: float) -> Tensor:
    """Return the noise of one sample, (C, h, w), with offset noise of a strength: eps + offset * delta.

    eps is standard normal at every latent and delta at every channel, drawn after eps from the same generator: with
    offset 0 the noise is eps, to the bit. Source: Guttenberg, "Diffusion with Offset Noise" (2023).
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator)
    if offset == 0:
        return noise
    return noise + offset * torch.randn((shape[0], *[1] * (len(shape) - 1)), generator=generator)


def velocity(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return v = sqrt(a_t) eps - sqrt(1 - a_t) y_0, (B, C, h, w) (Salimans and Ho, 2022, arXiv 2202.00512)."""
    alpha_bar = _levels(alphas_cumprod, timesteps, latents)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents


def noise_of_velocity(velocity: Tensor, noisy: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return the noise that a predicted velocity means: eps = sqrt(a_t) v + sqrt(1 - a_t) y_t, (B, C, h, w)."""
    alpha_bar = _levels(alphas_cumprod, timesteps, noisy)
    return alpha_bar.sqrt() * velocity + (1 - alpha_bar).sqrt() * noisy


def min_snr_weights(timesteps: Tensor, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Return the weights of the noise's squared errors at timesteps (B,): min(SNR_t, gamma) / SNR_t, (B,).

    SNR_t = a_t / (1 - a_t). Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023),
    arXiv 2303.09556, equation 8 in terms of the noise.
    """
    alpha_bar = alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / snr


def _levels(alphas_cumprod: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return alphas_cumprod.to(like.device)[timesteps].view(-1, 1, 1, 1)


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Sample q(y_t | y_0) at one timestep for each sample: (B, C, h, w), (B,) => (B, C, h, w)."""
    alpha_bar = _levels(alphas_cumprod, timesteps, latents)
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
    *,
    predicts_velocity: bool = False,
) -> Tensor:
    """Return equation 2's squared error for each sample, averaged over its latents: (B,).

    `latents` of the source, `masked_latents` of the masked source and `noise` are (B, 4, h, w), `mask` is (B, 1, h, w)
    with 1 = repaint, `context` (B, T, D), `uncond_context` (1, 1, D) is v and replaces the context where `dropped` (B,)
    is true, `timesteps` are (B,). With `predicts_velocity` the error is that of v instead of eps.
    """
    context = drop_context(context, uncond_context, dropped)
    noisy = add_noise(latents, noise, timesteps, alphas_cumprod)
    predicted = predict(noisy, masked_latents, mask, context, timesteps)
    target = velocity(latents, noise, timesteps, alphas_cumprod) if predicts_velocity else noise
    return F.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
