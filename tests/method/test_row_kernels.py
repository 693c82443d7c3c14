"""Layers whose rows do not depend on the batch, and that are PyTorch's where gradients are needed."""

import pytest
import torch
from torch import nn

from pbe.method.row_kernels import Conv2d, by_row


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


def test_with_gradients_the_layers_are_pytorchs() -> None:
    x = torch.randn(1, 9, 8, 8)
    layer, peer = Conv2d(9, 4, 3, padding=1), nn.Conv2d(9, 4, 3, padding=1)
    peer.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), peer(x))
    layer(x).sum().backward()
    assert layer.weight.grad is not None
