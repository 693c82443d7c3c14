"""Denoising diffusion implicit models, DDIM without added noise (Song et al., 2021, arXiv 2010.02502).

    y' = sqrt(a') (y - sqrt(1 - a) eps) / sqrt(a) + sqrt(1 - a') eps

The first-order solver of the probability flow, which all other samplers here refine.
"""

from torch import Tensor

from pbe.method.sampling.flow import Flow, ddim_step


def sample_ddim(flow: Flow, noise: Tensor) -> Tensor:
    """Sample latents with num_steps calls of the denoiser."""
    latents = noise
    for i in range(flow.num_steps):
        latents, predicted = flow.predict(latents, i)
        latents = ddim_step(latents, predicted, flow.levels[i], flow.levels[i + 1])
        flow.finish_step(i)
    return latents
