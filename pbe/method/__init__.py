"""The paper's method: training triplets, conditioner, denoiser, diffusion, guidance, sampler and painter."""
