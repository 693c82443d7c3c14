"""Samplers: from noise to latents by a denoiser, along the probability flow of the diffusion (Song et al., 2021).

All of them solve the same equation and so agree in the limit of many steps; they differ in how few steps they need.
`docs/sampling.md` compares them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pbe.method.guidance import Denoise
from pbe.method.sampling.ddim import sample_ddim
from pbe.method.sampling.dpm_solver import sample_dpm_solver
from pbe.method.sampling.flow import NO_SIGNAL, Constrain, Flow, OnStep, sampling_timesteps
from pbe.method.sampling.plms import sample_plms
from pbe.method.sampling.unipc import sample_unipc

SAMPLERS: dict[str, Callable[[Flow, Tensor], Tensor]] = {
    "plms": sample_plms,
    "ddim": sample_ddim,
    "dpm++2m": sample_dpm_solver,
    "unipc": sample_unipc,
}


def check_sampler(sampler: str) -> None:
    """Raise ValueError for a name that is not in SAMPLERS."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler} is not one of {', '.join(SAMPLERS)}")


def num_evaluations(sampler: str, num_steps: int) -> int:
    """Return how often a sampler calls the denoiser on a schedule that ends with signal, as Stable Diffusion's does.

    PLMS calls it once more than it takes steps; on a schedule that ends without signal, as often.
    """
    check_sampler(sampler)
    return num_steps + (sampler == "plms")


@torch.inference_mode()
def sample(
    denoise: Denoise,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    sampler: str = "plms",
    on_step: OnStep | None = None,
    constrain: Constrain | None = None,
) -> Tensor:
    """Return latents (B, C, h, w), sampled from `noise` of the same shape.

    The timesteps are evenly spaced. PLMS begins one stride before the end of the schedule, as in Stable Diffusion, and
    the others at its end; all do on a schedule that ends without signal. `constrain` replaces the known part of the
    latents before every call of the denoiser. `on_step` is called with (steps done, num_steps) after each step. Raises
    ValueError for an unknown sampler, or unless 1 <= num_steps <= len(alphas_cumprod).
    """
    check_sampler(sampler)
    from_last = sampler != "plms" or bool(alphas_cumprod[-1] < NO_SIGNAL)
    timesteps = sampling_timesteps(num_steps, len(alphas_cumprod), from_last=from_last)
    return SAMPLERS[sampler](Flow.along(denoise, alphas_cumprod, timesteps, constrain, on_step), noise)
