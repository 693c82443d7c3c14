"""DPM-Solver++(2M), the multistep solver of second order (Lu et al., 2022, arXiv 2211.01095, algorithm 2).

    D  = y_0 + (h_i / (2 h_(i-1))) (y_0 - y_0,(i-1))
    y' = (sigma' / sigma) y - sqrt(a') (exp(-h_i) - 1) D

It solves the flow in lambda, where the linear part has an exact solution, and extrapolates the estimate of y_0 from the
last two steps. The first step has one estimate only and is DDIM's. So is the last: it is the longest in lambda, over
which an extrapolation from a shorter step would overshoot.
"""

from torch import Tensor

from pbe.method.sampling.flow import Flow, clean_step, estimate_clean


def sample_dpm_solver(flow: Flow, noise: Tensor) -> Tensor:
    """Sample latents with num_steps calls of the denoiser."""
    latents = noise
    before: Tensor | None = None
    for i in range(flow.num_steps):
        latents, predicted = flow.predict(latents, i)
        clean = estimate_clean(latents, predicted, flow.levels[i])
        latents = multistep(flow, i, latents, clean, before)
        before = clean
        flow.finish_step(i)
    return latents


def multistep(flow: Flow, i: int, latents: Tensor, clean: Tensor, before: Tensor | None) -> Tensor:
    """Take step i with the estimate of y_0 at its start and, unless the step is the first, that of the step before."""
    if before is not None and i < flow.num_steps - 1:
        reach = (flow.log_snr_step(i) / (2 * flow.log_snr_step(i - 1))).to(clean.dtype)
        clean = clean + reach * (clean - before)
    return clean_step(latents, clean, flow.levels[i], flow.levels[i + 1])
