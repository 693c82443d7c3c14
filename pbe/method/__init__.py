"""The paper's method: masks, exemplars, conditioner, denoiser, diffusion, guidance, sampler."""
