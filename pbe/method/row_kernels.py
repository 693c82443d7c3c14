"""Layers whose rows do not depend on each other: a sample has the same bits alone and in any batch.

PyTorch chooses the algorithm of an fp32 convolution on a CPU by the size of the whole batch: below 20,480 values a
single sample takes another one than two samples do. Products of a matrix with few rows depend on how many there are,
too. Without gradients, these layers take one algorithm for all sizes. In bf16, measured over the layers of both bundled
painters, rows never depend on the batch; with gradients and on a GPU the layers are PyTorch's.
"""

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """PyTorch's convolution; in fp32 on a CPU, without gradients, always computed by oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        if not depends_on_batch(x) or not torch.backends.mkldnn.is_available():
            return super().forward(x)
        assert not isinstance(self.padding, str)
        return torch.as_tensor(
            torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
        )


def by_row(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a layer of few rows, x (B, ...): in fp32 on a CPU, without gradients, one row at a time."""
    if len(x) == 1 or not depends_on_batch(x):
        return torch.as_tensor(layer(x))
    return torch.cat([layer(row) for row in x.split(1)])


def depends_on_batch(x: Tensor) -> bool:
    """Return whether PyTorch's layers would give a row of x other bits in another batch."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_grad_enabled()
