"""All samplers against exact denoisers: their order, their identities, and diffusers' schedulers."""

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from pbe.demo.weights.prior import SCHEDULE
from pbe.method.diffusion import alphas_cumprod, noise_of_velocity, rescale_zero_terminal_snr
from pbe.method.sampling import SAMPLERS, num_evaluations, sample, sampling_timesteps
from pbe.method.sampling.dpm_solver import multistep
from pbe.method.sampling.flow import Flow, clean_step, ddim_step, estimate_clean

ALPHAS = alphas_cumprod()
ZERO_SNR = rescale_zero_terminal_snr(ALPHAS)
MEAN, STD = 0.7, 0.3
FINE = torch.sigmoid(torch.linspace(4, -4, 2**14, dtype=torch.float64))  # lambda from 2 to -2, evenly


def gaussian(alphas: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return E[eps | y_t] when y_0 ~ N(MEAN, STD^2)."""

    def denoise(latents: Tensor, timesteps: Tensor) -> Tensor:
        a = alphas[timesteps].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (latents - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)

    return denoise


def exact_flow(start: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return where the flow takes latents from one level to another: it keeps (y - mean) / std."""
    scale = ((after * STD**2 + 1 - after) / (before * STD**2 + 1 - before)).sqrt()
    return after.sqrt() * MEAN + (start - before.sqrt() * MEAN) * scale


def nonlinear(latents: Tensor, timesteps: Tensor) -> Tensor:
    mixed = torch.tanh(latents).roll(1, dims=1) - latents.roll(1, dims=-1) / 3
    return mixed * (1 + timesteps.view(-1, 1, 1, 1) / 1000)


def noise(n: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


def error(sampler: str, num_steps: int) -> float:
    """Return a sampler's mean error on the exact Gaussian denoiser."""
    first = sampling_timesteps(num_steps, len(FINE), from_last=sampler != "plms")[0]
    start = noise(16, torch.float64)
    found = sample(gaussian(FINE), start, FINE, num_steps, sampler)
    return float((found - exact_flow(start, FINE[first], FINE[0])).abs().mean())


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++2m", 2), ("unipc", 2), ("plms", 2)])
def test_half_the_step_divides_the_error_by_two_to_the_order(sampler: str, order: int) -> None:
    coarse, fine = error(sampler, 128), error(sampler, 256)
    assert coarse / fine == pytest.approx(2**order, rel=0.1)
    assert fine < (1e-3 if order == 1 else 1e-5)


def test_the_second_order_needs_far_fewer_steps() -> None:
    assert error("unipc", 16) < error("dpm++2m", 16) < error("ddim", 16) / 5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 12, 50])
def test_the_denoiser_is_called_as_often_as_said(sampler: str, num_steps: int) -> None:
    calls, seen = [], []
    sample(lambda y, t: calls.append(1) or y * 0, noise(), ALPHAS, num_steps, sampler, lambda i, n: seen.append((i, n)))
    assert len(calls) == num_evaluations(sampler, num_steps)
    assert seen == [(i + 1, num_steps) for i in range(num_steps)]


def test_an_unknown_sampler_is_named() -> None:
    with pytest.raises(ValueError, match=r"euler.*unipc"):
        sample(nonlinear, noise(), ALPHAS, 4, "euler")
    with pytest.raises(ValueError, match="euler"):
        num_evaluations("euler", 4)


def test_an_exact_noise_prediction_leaves_nothing_to_correct() -> None:
    """The flow of one sample is y = sqrt(a) y_0 + sqrt(1 - a) eps: every sampler follows it without error."""
    clean, eps = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sampler in SAMPLERS:
        for num_steps in (1, 2, 7, 30):
            first = sampling_timesteps(num_steps, from_last=sampler != "plms")[0]
            alphas = ALPHAS.double()
            start = alphas[first].sqrt() * clean + (1 - alphas[first]).sqrt() * eps
            found = sample(lambda y, t: eps, start, alphas, num_steps, sampler)
            torch.testing.assert_close(found, alphas[0].sqrt() * clean + (1 - alphas[0]).sqrt() * eps)


def test_one_step_of_each_new_sampler_is_ddims() -> None:
    one_step = [sample(nonlinear, noise(), ALPHAS, 1, sampler) for sampler in ("ddim", "dpm++2m", "unipc")]
    torch.testing.assert_close(one_step[1], one_step[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(one_step[2], one_step[1])


def test_two_steps_of_dpm_solver_are_ddims_because_the_last_step_is_not_extrapolated() -> None:
    ddim, dpm = (sample(nonlinear, noise(), ALPHAS, 2, sampler) for sampler in ("ddim", "dpm++2m"))
    torch.testing.assert_close(dpm, ddim, atol=1e-4, rtol=1e-4)


def test_the_predictor_of_unipc_is_dpm_solver() -> None:
    """Where the correction changes nothing, both are the same: y_0 is predicted as a constant."""
    alphas = ALPHAS.double()

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        a = alphas[t].view(-1, 1, 1, 1)
        return (y - a.sqrt() * MEAN) / (1 - a).sqrt()

    dpm, unipc = (sample(denoise, noise(4, torch.float64), alphas, 9, sampler) for sampler in ("dpm++2m", "unipc"))
    torch.testing.assert_close(unipc, dpm)


def test_a_step_by_y0_is_a_step_by_noise() -> None:
    latents, eps = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before, after = ALPHAS[700].double(), ALPHAS[300].double()
    expected = ddim_step(latents, eps, before, after)
    torch.testing.assert_close(clean_step(latents, estimate_clean(latents, eps, before), before, after), expected)


def test_dpm_solver_extrapolates_linearly_in_log_snr() -> None:
    """With y_0 linear in lambda the extrapolated estimate is the one in the middle of the step."""
    flow = Flow.along(nonlinear, ALPHAS.double(), [900, 600, 350])
    lambdas = [float(torch.logit(level) / 2) for level in flow.levels]
    y0_before, y0 = (torch.full((1, 1, 1, 1), lam, dtype=torch.float64) for lam in lambdas[:2])
    latents = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    middle = torch.full((1, 1, 1, 1), (lambdas[1] + lambdas[2]) / 2, dtype=torch.float64)
    expected = clean_step(latents, middle, flow.levels[1], flow.levels[2])
    torch.testing.assert_close(multistep(flow, 1, latents, y0, y0_before), expected)


STOCK = {
    "ddim": lambda: DDIMScheduler(**SCHEDULE, timestep_spacing="trailing", set_alpha_to_one=False, clip_sample=False),
    "dpm++2m": lambda: DPMSolverMultistepScheduler(
        **SCHEDULE, timestep_spacing="trailing", final_sigmas_type="sigma_min", euler_at_final=True
    ),
    "unipc": lambda: UniPCMultistepScheduler(**SCHEDULE, timestep_spacing="trailing", final_sigmas_type="sigma_min"),
}


@pytest.mark.parametrize("sampler", STOCK)
@pytest.mark.parametrize("num_steps", [1, 2, 8, 20, 50])
def test_latents_are_those_of_diffusers_schedulers(sampler: str, num_steps: int) -> None:
    scheduler = STOCK[sampler]()
    scheduler.set_timesteps(num_steps)
    latents, timesteps = noise(), []
    for t in scheduler.timesteps:
        latents = scheduler.step(nonlinear(latents, t.expand(len(latents))), t, latents).prev_sample

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        timesteps.append(int(t[0]))
        return nonlinear(y, t)

    found = sample(denoise, noise(), ALPHAS, num_steps, sampler)
    assert timesteps == scheduler.timesteps.tolist()
    assert float((found - latents).abs().max()) < 2e-6 * float(latents.abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_latents_are_replaced_before_every_call_and_disturb_no_other(sampler: str) -> None:
    """Known latents lie on the flow that they are on alone; those beside them are sampled as without them."""
    known, start = noise(1) * 3, noise(1).roll(1)

    def constrain(y: Tensor, level: Tensor) -> Tensor:
        y = y.clone()
        y[..., 0] = level.sqrt() * known[..., 0]
        return y

    seen = []

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        a = ALPHAS[t].view(-1, 1, 1, 1)
        seen.append(torch.equal(y[..., 0], a.sqrt()[..., 0] * known[..., 0]))
        return torch.tanh(y)

    found = sample(denoise, start, ALPHAS, 6, sampler, constrain=constrain)
    assert seen == [True] * num_evaluations(sampler, 6)
    alone = sample(lambda y, t: torch.tanh(y), start, ALPHAS, 6, sampler)
    torch.testing.assert_close(found[..., 1], alone[..., 1])


def exact_velocity(latents: Tensor, timesteps: Tensor) -> Tensor:
    """E[v | y_t] with zero terminal SNR, as the noise that it means."""
    a = ZERO_SNR[timesteps].view(-1, 1, 1, 1)
    centred = (latents - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
    eps, clean = (1 - a).sqrt() * centred, MEAN + a.sqrt() * STD**2 * centred
    return noise_of_velocity(a.sqrt() * eps - (1 - a).sqrt() * clean, latents, timesteps, ZERO_SNR)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [25, 50])
def test_samples_from_zero_signal_follow_the_data_distribution(sampler: str, num_steps: int) -> None:
    samples = sample(exact_velocity, noise(2000), ZERO_SNR, num_steps, sampler)
    assert abs(samples.mean() - MEAN) < 0.02
    assert abs(samples.std() - STD) < 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 1000])
def test_a_schedule_without_signal_is_sampled_from_its_last_timestep(sampler: str, num_steps: int) -> None:
    calls: list[int] = []

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        return exact_velocity(y, t)

    assert torch.isfinite(sample(denoise, noise(), ZERO_SNR, num_steps, sampler)).all()
    assert calls[0] == 999
    assert len(calls) == num_steps
