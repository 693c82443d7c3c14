"""UniPC, a predictor and corrector of second order with B(h) = exp(h) - 1 (Zhao et al., 2023, arXiv 2302.04867).

    y^p = DPM-Solver++(2M)'s step
    y^c = (sigma' / sigma) y - sqrt(a') (exp(-h) - 1) (y_0 + w_1 D_1 + w_2 (y_0' - y_0)),   D_1 = (y_0,(i-1) - y_0) / r

The predictor, UniP-2, is DPM-Solver++(2M). The prediction y_0' at its end, which the next step needs as well, corrects
the step without another call of the denoiser. r = -h_(i-1) / h_i, and the weights w solve

    w_1 + w_2 = p_1,   r w_1 + w_2 = p_2,   p_1 = phi / B,   p_2 = 2 (phi / -h - 1 / 2) / B,   phi = B / -h - 1

with B = exp(-h) - 1. The correction of the first step, which has no y_0,(i-1), is half of y_0' - y_0. The last step is
not corrected: no prediction follows it.
"""

import torch
from torch import Tensor

from pbe.method.sampling.dpm_solver import multistep
from pbe.method.sampling.flow import Flow, clean_step, estimate_clean


def sample_unipc(flow: Flow, noise: Tensor) -> Tensor:
    """Sample latents with num_steps calls of the denoiser."""
    latents = noise
    estimates: list[Tensor] = []  # of y_0, the newest first
    start = noise  # of the step before, with its known part replaced
    for i in range(flow.num_steps):
        latents, predicted = flow.predict(latents, i)
        clean = estimate_clean(latents, predicted, flow.levels[i])
        if i > 0:
            latents = _corrected(flow, i - 1, start, clean, estimates)
        start = latents
        latents = multistep(flow, i, latents, clean, estimates[0] if estimates else None)
        estimates = [clean, *estimates][:2]
        flow.finish_step(i)
    return latents


def _corrected(flow: Flow, i: int, latents: Tensor, clean_next: Tensor, estimates: list[Tensor]) -> Tensor:
    """Take step i again, with the estimate of y_0 at its end and those at its start and the start before."""
    clean = estimates[0]
    change = clean_next - clean
    if len(estimates) == 1:
        correction = change / 2
    else:
        h, h_before = flow.log_snr_step(i), flow.log_snr_step(i - 1)
        weight, weight_next = _weights(h, -h_before / h)
        slope = (estimates[1] - clean) * (-h / h_before).to(clean.dtype)
        correction = weight.to(clean.dtype) * slope + weight_next.to(clean.dtype) * change
    return clean_step(latents, clean + correction, flow.levels[i], flow.levels[i + 1])


def _weights(h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return w_1 and w_2."""
    scale = torch.expm1(-h)
    phi = scale / -h - 1
    first, second = phi / scale, 2 * (phi / -h - 0.5) / scale
    weight = (first - second) / (1 - r)
    return weight, first - weight
