"""The noise schedule and the loss of equation 2."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from pbe.method.diffusion import add_noise, alphas_cumprod, denoising_loss


def test_the_schedule_is_stable_diffusions() -> None:
    stock = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(), stock, rtol=1e-4, atol=1e-6)


def test_the_schedule_takes_other_lengths_and_ends() -> None:
    stock = DDPMScheduler(20, 0.01, 0.09, "scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(20, 0.01, 0.09), stock)


def test_noise_keeps_the_variance_at_every_timestep() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 64, 4, 32, 32, generator=generator)
    noisy = add_noise(latents, noise, torch.linspace(0, 999, 64).long(), alphas_cumprod())
    torch.testing.assert_close(noisy.flatten(1).std(1), torch.ones(64), atol=0.06, rtol=0)


def test_latents_and_noise_are_weighted_by_the_timestep_of_their_sample() -> None:
    latents, noise = torch.ones(2, 4, 2, 2), torch.full((2, 4, 2, 2), 10.0)
    noisy = add_noise(latents, noise, torch.tensor([1, 0]), torch.tensor([0.64, 0.36]))
    torch.testing.assert_close(noisy[0], torch.full((4, 2, 2), 0.6 + 8.0))
    torch.testing.assert_close(noisy[1], torch.full((4, 2, 2), 0.8 + 6.0))


def test_the_first_timestep_hardly_changes_latents_and_the_last_is_nearly_noise() -> None:
    latents, noise = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    assert add_noise(latents, noise, torch.tensor([0]), alphas_cumprod()).mean() > 0.999
    assert add_noise(latents, noise, torch.tensor([999]), alphas_cumprod()).mean() < 0.07


def test_the_loss_is_equation_2_for_each_sample() -> None:
    latents, masked, mask = torch.ones(3, 4, 2, 2), torch.full((3, 4, 2, 2), 7.0), torch.ones(3, 1, 2, 2)
    noise = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1).expand(3, 4, 2, 2)
    context, v = torch.full((3, 1, 5), 3.0), torch.full((1, 1, 5), -4.0)
    dropped = torch.tensor([False, True, False])
    timesteps = torch.tensor([0, 1, 1])
    alphas = torch.tensor([0.64, 0.36])
    calls = []

    def predict(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return arguments[3].view(3, 1, 1, 1).expand(3, 4, 2, 2)  # the context

    loss = denoising_loss(
        lambda y, hole, m, c, t: predict(y, hole, m, c[..., :1], t),
        latents, masked, mask, context, v, dropped, noise, timesteps, alphas,
    )  # fmt: skip
    torch.testing.assert_close(loss, torch.tensor([9.0, 25.0, 1.0]))
    [(noisy, seen_masked, seen_mask, _, seen_timesteps)] = calls
    torch.testing.assert_close(noisy[:, 0, 0, 0], torch.tensor([0.8, 0.6 + 0.8, 0.6 + 1.6]))
    assert seen_masked is masked
    assert seen_mask is mask
    assert seen_timesteps is timesteps


def test_the_loss_of_half_precision_predictions_is_computed_in_fp32() -> None:
    noise = torch.full((1, 4, 8, 8), 0.1, dtype=torch.bfloat16)
    zeros, scalars = torch.zeros_like(noise), torch.zeros(1)
    loss = denoising_loss(
        lambda *_: zeros, zeros, zeros, zeros[:, :1], zeros[..., 0], zeros[..., 0], scalars.bool(), noise,
        scalars.long(), torch.tensor([0.5]),
    )  # fmt: skip
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, noise[0, 0, 0, :1].float().square())
