"""PLMS against an exact denoiser: for Gaussian data the best noise prediction is known in closed form."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from pbe.method.diffusion import alphas_cumprod, noise_of_velocity, rescale_zero_terminal_snr
from pbe.method.sampling import sample, sampling_timesteps
from pbe.method.sampling.flow import ddim_step

ALPHAS = alphas_cumprod()
ZERO_SNR = rescale_zero_terminal_snr(ALPHAS)
MEAN, STD = 0.7, 0.3


def exact_denoiser(latents: Tensor, timesteps: Tensor) -> Tensor:
    """E[eps | y_t] when y_0 ~ N(MEAN, STD^2)."""
    a = ALPHAS[timesteps].view(-1, 1, 1, 1)
    variance = a * STD**2 + 1 - a
    return (1 - a).sqrt() * (latents - a.sqrt() * MEAN) / variance


def exact_velocity(latents: Tensor, timesteps: Tensor) -> Tensor:
    """E[v | y_t] with zero terminal SNR, as the noise that it means."""
    a = ZERO_SNR[timesteps].view(-1, 1, 1, 1)
    centred = (latents - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
    noise, clean = (1 - a).sqrt() * centred, MEAN + a.sqrt() * STD**2 * centred
    return noise_of_velocity(a.sqrt() * noise - (1 - a).sqrt() * clean, latents, timesteps, ZERO_SNR)


def noise(n: int = 2000) -> Tensor:
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_samples_follow_the_data_distribution() -> None:
    samples = sample(exact_denoiser, noise(), ALPHAS, 50)
    assert abs(samples.mean() - MEAN) < 0.02
    assert abs(samples.std() - STD) < 0.02


def test_more_steps_are_closer_to_the_exact_flow() -> None:
    y = noise(64)
    a = ALPHAS[991]  # the first of 100 timesteps
    start, end = (a * STD**2 + 1 - a).sqrt(), (ALPHAS[0] * STD**2 + 1 - ALPHAS[0]).sqrt()
    exact = ALPHAS[0].sqrt() * MEAN + (y - a.sqrt() * MEAN) / start * end
    errors = [(sample(exact_denoiser, y, ALPHAS, n) - exact).abs().mean().item() for n in (10, 25, 100)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_a_perfect_noise_prediction_recovers_the_latents_in_one_ddim_step() -> None:
    clean, eps = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    noisy = ALPHAS[500].sqrt() * clean + (1 - ALPHAS[500]).sqrt() * eps
    torch.testing.assert_close(ddim_step(noisy, eps, ALPHAS[500], torch.tensor(1.0)), clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_the_denoiser_is_called_once_more_than_there_are_steps(num_steps: int) -> None:
    calls, seen = [], []
    sample(lambda y, t: calls.append(1) or y * 0, noise(1), ALPHAS, num_steps, on_step=lambda i, n: seen.append((i, n)))
    assert len(calls) == num_steps + 1
    assert seen == [(i + 1, num_steps) for i in range(num_steps)]


def test_known_latents_are_replaced_at_their_noise_level_before_every_call() -> None:
    known, seen = noise(1) * 3, []

    def constrain(y: Tensor, level: Tensor) -> Tensor:
        y = y.clone()
        y[..., 0] = level.sqrt() * known[..., 0]
        return y

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        seen.append((y[..., 0] / known[..., 0]).mean().square().item())
        return torch.ones_like(y)

    constrained = sample(denoise, noise(1), ALPHAS, 5, constrain=constrain)
    assert constrained.shape == (1, 1, 2, 2)
    steps = sampling_timesteps(5)
    expected = [ALPHAS[t].item() for t in (steps[0], steps[1], *steps[1:])]  # Heun's step looks ahead
    assert seen == pytest.approx(expected, rel=1e-4)


def test_strong_guidance_does_not_overshoot_in_few_steps() -> None:
    def guided(y: Tensor, t: Tensor) -> Tensor:  # pulled five times as hard to MEAN as the data are
        uncond = exact_denoiser(y + 0.2 * ALPHAS[t].sqrt().view(-1, 1, 1, 1), t)
        return uncond + 5 * (exact_denoiser(y, t) - uncond)

    many = sample(guided, noise(200), ALPHAS, 200)
    few = sample(guided, noise(200), ALPHAS, 14)
    assert (few - many).abs().mean() < 0.1


def record_steps(num_steps: int, alphas: Tensor, predictions: list[float]) -> tuple[Tensor, list[tuple[float, int]]]:
    """Sample one latent from 1 with the given predictions; return it, and latent and timestep of every call."""
    calls: list[tuple[float, int]] = []

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        calls.append((y.item(), int(t)))
        return torch.full_like(y, predictions[len(calls) - 1])

    return sample(denoise, torch.ones(1, 1, 1, 1, dtype=torch.float64), alphas, num_steps), calls


@pytest.mark.parametrize("num_steps", [3, 6, 24, 25])
def test_latents_follow_heun_then_adams_bashforth(num_steps: int) -> None:
    """Write out the arithmetic of the paper's equations for a scalar."""
    alphas = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)
    eps = [0.3 * (i % 5) - 0.5 for i in range(num_steps + 1)]
    stride = 100 // num_steps
    times = [i * stride + 1 for i in reversed(range(num_steps))]
    levels = [alphas[t].item() for t in times] + [alphas[0].item()]

    def step(y: float, e: float, i: int) -> float:
        return (
            levels[i + 1] ** 0.5 * (y - (1 - levels[i]) ** 0.5 * e) / levels[i] ** 0.5 + (1 - levels[i + 1]) ** 0.5 * e
        )

    y, seen = 1.0, [(1.0, times[0]), (step(1.0, eps[0], 0), times[1])]
    y = step(y, (eps[0] + eps[1]) / 2, 0)
    predicted = [eps[0], *eps[2:]]  # by step
    for i in range(1, num_steps):
        seen.append((y, times[i]))
        e = predicted[i::-1]
        if i == 1 or num_steps < 25:
            combined = (3 * e[0] - e[1]) / 2
        elif i == 2:
            combined = (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12
        else:
            combined = (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3]) / 24
        y = step(y, combined, i)
    sampled, calls = record_steps(num_steps, alphas, eps)
    assert sampled.item() == pytest.approx(y, rel=1e-9)
    assert [t for _, t in calls] == [t for _, t in seen]
    assert [latent for latent, _ in calls] == pytest.approx([latent for latent, _ in seen], rel=1e-9)


def test_a_single_step_looks_ahead_to_the_clean_end() -> None:
    alphas = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)
    _, calls = record_steps(1, alphas, [0.2, 0.4])
    assert [t for _, t in calls] == [1, 0]


def test_timesteps_of_other_schedules() -> None:
    assert sampling_timesteps(3, 10) == [7, 4, 1]
    assert sampling_timesteps(10, 10) == [9, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert sampling_timesteps(1, 1) == [0]
    assert len(sampling_timesteps(1000)) == 1000


def test_timesteps_are_stable_diffusions() -> None:
    assert sampling_timesteps(50)[:2] == [981, 961]
    assert sampling_timesteps(50)[-1] == 1


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_an_impossible_number_of_steps_is_named(num_steps: int) -> None:
    with pytest.raises(ValueError, match=str(num_steps)):
        sampling_timesteps(num_steps)


@pytest.mark.parametrize("num_steps", [24, 25, 50, 100])
def test_samples_from_zero_signal_follow_the_data_distribution(num_steps: int) -> None:
    samples = sample(exact_velocity, noise(), ZERO_SNR, num_steps)
    assert abs(samples.mean() - MEAN) < 0.02
    assert abs(samples.std() - STD) < 0.03


@pytest.mark.parametrize("num_steps", [1, 2, 12, 50, 1000])
def test_a_schedule_that_ends_without_signal_is_sampled_from_its_last_timestep(num_steps: int) -> None:
    calls: list[int] = []

    def denoise(y: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        return exact_velocity(y, t)

    assert torch.isfinite(sample(denoise, noise(8), ZERO_SNR, num_steps)).all()
    stock = DDIMScheduler(timestep_spacing="trailing")
    stock.set_timesteps(num_steps)
    assert calls == stock.timesteps.tolist()
