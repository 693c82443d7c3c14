"""The widened UNet, its input and its frozen parameters."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from pbe.method.denoiser import (
    PAPER_ORDER,
    denoiser_input,
    freeze_unused,
    mask_latents,
    reorder_input,
    widen_input,
)
from tests.support.tiny_models import WIDTH, tiny_unet


def inputs(num_tokens: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noisy, masked = torch.randn(2, 3, 4, 16, 16, generator=generator)
    mask = (torch.rand(3, 1, 16, 16, generator=generator) > 0.5).float()
    return noisy, masked, mask, torch.tensor([3, 500, 999]), torch.randn(3, num_tokens, WIDTH, generator=generator)


def test_the_widened_unet_starts_as_the_text_to_image_model() -> None:
    noisy, masked, mask, steps, context = inputs(5)
    unet = tiny_unet()
    before = unet(noisy, steps, context)
    widened = widen_input(unet)
    torch.testing.assert_close(widened(denoiser_input(noisy, masked, mask), steps, context), before)
    assert widened.config["in_channels"] == 9


def test_the_new_channels_learn() -> None:
    noisy, masked, mask, steps, context = inputs()
    unet = widen_input(tiny_unet())
    unet(denoiser_input(noisy, masked, mask), steps, context).square().mean().backward()
    assert unet.conv_in.weight.grad[:, 4:].abs().sum() > 0


def test_an_inpainting_unet_is_refused() -> None:
    with pytest.raises(ValueError, match="9 input channels, not 4"):
        widen_input(tiny_unet(9))


def test_the_frozen_parameters_have_no_gradient_in_diffusers_unet() -> None:
    noisy, _, _, steps, context = inputs()
    frozen = {n for n, p in freeze_unused(tiny_unet()).named_parameters() if not p.requires_grad}
    stock = UNet2DConditionModel.from_config(tiny_unet().config)
    stock(noisy, steps, context).sample.square().mean().backward()
    assert frozen
    for name, parameter in stock.named_parameters():
        if name in frozen:
            assert parameter.grad is None or parameter.grad.abs().max() < 1e-7, name


def test_channel_order_is_noisy_masked_mask() -> None:
    noisy, masked, mask, *_ = inputs()
    x = denoiser_input(noisy, masked, mask)
    assert torch.equal(x[:, :4], noisy)
    assert torch.equal(x[:, 4:8], masked)
    assert torch.equal(x[:, 8:], mask)


def test_an_inpainting_unet_predicts_the_same_in_the_papers_order() -> None:
    noisy, masked, mask, steps, context = inputs()
    unet = tiny_unet(9).eval()
    theirs = unet(torch.cat([noisy, mask, masked], 1), steps, context)
    reorder_input(unet, PAPER_ORDER)
    ours = unet(denoiser_input(noisy, masked, mask), steps, context)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_denoiser_that_takes_the_kept_part_gets_the_inverted_mask() -> None:
    noisy, masked, mask, *_ = inputs()
    assert torch.equal(denoiser_input(noisy, masked, mask, "keep"), denoiser_input(noisy, masked, 1 - mask))


def test_mask_is_brought_to_the_latents_by_nearest_neighbour() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:, :] = 1
    assert torch.equal(mask_latents(mask, 2, 2), torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]]]))
