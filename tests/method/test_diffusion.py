import torch
from diffusers import DDPMScheduler

from pbe.method.diffusion import add_noise, alphas_cumprod, denoising_loss


def test_schedule_is_stable_diffusions():
    stock = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(), stock, rtol=1e-4, atol=1e-6)


def test_noise_keeps_the_variance_at_every_timestep():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 64, 4, 32, 32, generator=generator)
    noisy = add_noise(latents, noise, torch.linspace(0, 999, 64).long(), alphas_cumprod())
    torch.testing.assert_close(noisy.flatten(1).std(1), torch.ones(64), atol=0.06, rtol=0)


def test_first_timestep_hardly_changes_and_last_is_nearly_noise():
    latents, noise = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    assert add_noise(latents, noise, torch.tensor([0]), alphas_cumprod()).mean() > 0.999
    assert add_noise(latents, noise, torch.tensor([999]), alphas_cumprod()).mean() < 0.07


def test_loss_is_one_value_a_sample():
    predicted = torch.zeros(3, 4, 2, 2)
    noise = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1).expand(3, 4, 2, 2)
    torch.testing.assert_close(denoising_loss(predicted, noise), torch.tensor([0.0, 1.0, 4.0]))
