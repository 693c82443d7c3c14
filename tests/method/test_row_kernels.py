"""Layers whose rows do not depend on the batch, and that are PyTorch's where gradients are needed."""

import copy

import pytest
import torch
from torch import nn

from pbe.method.row_kernels import Conv2d, Linear, by_row, pack_weights
from tests.support.random_painter import build_painter


@pytest.mark.parametrize(("channels", "side", "kernel", "stride"), [(9, 32, 3, 1), (64, 16, 3, 2), (96, 8, 1, 1)])
def test_a_sample_of_a_convolution_is_the_same_alone_and_in_a_batch(
    channels: int, side: int, kernel: int, stride: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, channels, side, side, generator=generator)
    layer = Conv2d(channels, 32, kernel, stride, padding=kernel // 2)
    with torch.inference_mode():
        whole = layer(x)
        for size in (1, 2, 5):
            assert torch.equal(torch.cat([layer(each) for each in x.split(size)]), whole)


def test_a_row_of_a_linear_layer_is_the_same_alone_and_in_a_batch() -> None:
    x = torch.randn(16, 1, 160, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(160, 128)
    with torch.inference_mode():
        assert torch.equal(by_row(layer, x)[3:4], by_row(layer, x[3:4]))
        assert torch.allclose(by_row(layer, x), layer(x), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_sample_of_a_narrow_unet_is_the_same_alone_and_in_a_batch(seed: int) -> None:
    painter = build_painter(seed)
    generator = torch.Generator().manual_seed(seed)
    for size in (2, 3, 4, 6, 8):
        latents = torch.randn(size, 9, 8, 8, generator=generator)
        contexts = torch.randn(size, 1, 16, generator=generator)
        timestep = torch.randint(1000, (1,), generator=generator)
        with torch.inference_mode():
            whole = painter.unet(latents, timestep, contexts)
            alone = [painter.unet(x, timestep, c) for x, c in zip(latents.split(1), contexts.split(1), strict=True)]
        assert torch.equal(torch.cat(alone), whole)


def test_with_gradients_the_layers_are_pytorchs() -> None:
    x = torch.randn(1, 9, 8, 8)
    layer, peer = Conv2d(9, 4, 3, padding=1), nn.Conv2d(9, 4, 3, padding=1)
    peer.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), peer(x))
    layer(x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [Conv2d(256, 320, 3, padding=1), Linear(256, 320)])
def test_a_sample_of_a_layer_that_packs_is_the_same_alone_and_in_a_batch(
    layer: Conv2d | Linear, dtype: torch.dtype
) -> None:
    shape = (4, 256, 8, 8) if isinstance(layer, Conv2d) else (4, 64, 256)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = copy.deepcopy(layer).to(dtype)
    packing = copy.deepcopy(plain)
    pack_weights(packing)
    with torch.inference_mode():
        whole = packing(x)
        assert packing._packed is not None
        for size in (1, 2, 3):
            assert torch.equal(torch.cat([packing(each) for each in x.split(size)]), whole)
        torch.testing.assert_close(whole, plain(x))
    with torch.no_grad():
        packing.weight.mul_(2)  # as an optimizer changes it, in place
        assert torch.equal(packing(x), copy.deepcopy(packing)(x))


def test_a_layer_that_packs_is_copied_and_saved_as_any_other() -> None:
    layer = Conv2d(256, 256, 1)
    pack_weights(layer)
    with torch.inference_mode():
        layer(torch.zeros(1, 256, 8, 8))
        copied = copy.deepcopy(layer)
    assert copied.packs
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_narrow_layers_do_not_pack() -> None:
    narrow = nn.Sequential(Conv2d(9, 320, 3), Linear(320, 128))
    pack_weights(narrow)
    assert not any(layer.packs for layer in narrow.children())
