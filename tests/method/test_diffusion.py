"""The noise schedule and the loss of equation 2."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from pbe.method.diffusion import (
    add_noise,
    alphas_cumprod,
    denoising_loss,
    draw_training_noise,
    min_snr_weights,
    noise_of_velocity,
    rescale_zero_terminal_snr,
    velocity,
)


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


def test_min_snr_weights_are_computed_by_hand() -> None:
    alphas = torch.tensor([0.9, 0.8, 0.5])  # SNR 9, 4 and 1
    weights = min_snr_weights(torch.tensor([0, 1, 2, 0]), alphas, 5.0)
    torch.testing.assert_close(weights, torch.tensor([5 / 9, 1.0, 1.0, 5 / 9]))


def test_min_snr_weights_are_1_where_noise_prevails_and_fall_towards_clean_latents() -> None:
    weights = min_snr_weights(torch.arange(1000), alphas_cumprod(), 5.0)
    assert (weights.diff() >= 0).all()
    assert weights[-1] == 1
    assert weights[0] < 0.01


def test_zero_terminal_snr_is_diffusers_up_to_the_last_timestep() -> None:
    stock = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", rescale_betas_zero_snr=True).alphas_cumprod
    rescaled = rescale_zero_terminal_snr(alphas_cumprod())
    torch.testing.assert_close(rescaled[:-1], stock[:-1], rtol=2e-3, atol=1e-7)
    assert rescaled[0] == alphas_cumprod()[0]
    assert rescaled[-1] == 2.0**-24


def test_velocity_is_stock_diffusers_and_gives_the_noise_back() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=generator)
    alphas, timesteps = rescale_zero_terminal_snr(alphas_cumprod()), torch.tensor([0, 300, 800, 999])
    stock = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear")
    stock.alphas_cumprod = alphas
    found = velocity(latents, noise, timesteps, alphas)
    torch.testing.assert_close(found, stock.get_velocity(latents, noise, timesteps))
    noisy = add_noise(latents, noise, timesteps, alphas)
    torch.testing.assert_close(noise_of_velocity(found, noisy, timesteps, alphas), noise, rtol=0, atol=1e-5)


def test_the_loss_of_a_velocity_is_zero_for_the_true_one() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 2, 2, generator=generator)
    alphas, timesteps = torch.tensor([0.64, 0.36]), torch.tensor([0, 1])
    weights = torch.tensor([[0.8, 0.6], [0.6, 0.8]]).view(2, 2, 1, 1, 1)  # sqrt(a), sqrt(1 - a)
    true = weights[:, 0] * noise - weights[:, 1] * latents
    rest = (latents, latents[:, :1], latents[..., 0], latents[..., 0], torch.zeros(2).bool(), noise, timesteps, alphas)
    assert denoising_loss(lambda *_: true, latents, *rest, predicts_velocity=True).max() < 1e-12
    torch.testing.assert_close(
        denoising_loss(lambda *_: true + 2, latents, *rest, predicts_velocity=True), torch.full((2,), 4.0)
    )


def test_offset_noise_adds_one_constant_to_each_channel() -> None:
    plain, offset = (draw_training_noise(7, (4, 8, 8), strength) for strength in (0.0, 0.1))
    assert torch.equal(plain, torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(7)))
    constants = (offset - plain) / 0.1
    torch.testing.assert_close(constants, constants[:, :1, :1].expand(4, 8, 8), rtol=0, atol=1e-5)
    assert len({round(c, 3) for c in constants[:, 0, 0].tolist()}) == 4
    assert torch.equal(offset, draw_training_noise(7, (4, 8, 8), 0.1))


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_offset_noise_has_its_strength(strength: float) -> None:
    means = torch.stack([draw_training_noise(seed, (4, 16, 16), strength).mean((1, 2)) for seed in range(500)])
    assert means.std().item() == pytest.approx((strength**2 + 1 / 256) ** 0.5, rel=0.1)
