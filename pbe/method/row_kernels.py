"""Layers for inference on a CPU: a sample has the same bits alone and in any batch, and wide layers are faster.

PyTorch chooses the algorithm of an fp32 convolution on a CPU by the size of the whole batch: below 20,480 values a
single sample takes another one than two samples do. Products of a matrix with few rows depend on how many there are,
too. Without gradients, these layers take one algorithm for all sizes. In bf16, measured over the layers of both bundled
painters, rows of the UNet never depend on the batch; with gradients and on a GPU the layers are PyTorch's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Packing(nn.Module):
    """A layer that can keep its weight in oneDNN's blocked layout, too, for calls without gradients on a CPU.

    Without it, oneDNN copies the weight of a convolution into that layout at every call. A call of Stable Diffusion's
    UNet at 256 px takes two thirds of the time with it (docs/speed.md). The packed copy takes as much memory as the
    weight, and is made anew when the weight has changed.
    """

    weight: Tensor
    packs = False
    _packed: tuple[tuple[int, int], Tensor] | None = None

    def packed(self, pack: Callable[[], Tensor]) -> Tensor:
        """Return the packed weight; `pack` computes it."""
        version = 0 if self.weight.is_inference() else self.weight._version
        key = (id(self.weight), version)
        if self._packed is None or self._packed[0] != key:
            self._packed = key, pack()
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the packed weight, which can be neither copied nor pickled."""
        return self.__dict__ | {"_packed": None}


class Conv2d(Packing, nn.Conv2d):
    """PyTorch's convolution; in fp32 on a CPU, without gradients, always computed by oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        if not is_inference_on_cpu(x):
            return super().forward(x)
        if self.packs:
            convolve, geometry = torch.ops.mkldnn, self._geometry
            weight = self.packed(lambda: convolve._reorder_convolution_weight(self.weight, *geometry, list(x.shape)))
            return torch.as_tensor(convolve._convolution_pointwise(x, weight, self.bias, *geometry, *_ALONE))
        if not depends_on_batch(x):
            return super().forward(x)
        return torch.as_tensor(torch.mkldnn_convolution(x, self.weight, self.bias, *self._geometry))

    @property
    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        assert not isinstance(self.padding, str)
        return list(self.padding), list(self.stride), list(self.dilation), self.groups


class Linear(Packing, nn.Linear):
    """PyTorch's linear layer, for many rows; where it packs its weight, computed by oneDNN.

    In fp32, PyTorch calls MKL, which reaches 70 GFLOP/s on a core of an AMD EPYC where oneDNN reaches 100.
    """

    def forward(self, x: Tensor) -> Tensor:
        return at_each_position(self, x)


def at_each_position(layer: Linear | Conv2d, x: Tensor) -> Tensor:
    """Return x W + b, x (..., C), with the weight of a linear layer or of a 1 x 1 convolution."""
    weight = layer.weight.flatten(1)
    if min(weight.shape) < NARROW_CHANNELS and depends_on_batch(x):
        return torch.cat([F.linear(sample, weight, layer.bias) for sample in x.split(1)])
    if not layer.packs or not is_inference_on_cpu(x):
        return F.linear(x, weight, layer.bias)
    rows = x.numel() // x.shape[-1]
    packed = layer.packed(lambda: torch.ops.mkldnn._reorder_linear_weight(weight, rows))
    return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, *_ALONE))


NARROW_CHANNELS = 64  # in or out: MKL's products of narrower matrices depend on the number of rows
PACKED_CHANNELS = 256  # in and out: narrower layers are faster as PyTorch computes them
_ALONE: tuple[str, list[Any], str] = ("none", [], "")  # no function after the product


def pack_weights(module: nn.Module) -> None:
    """Make the wide layers of a module pack their weights at their first call."""
    for layer in module.modules():
        if isinstance(layer, Packing):
            layer.packs = min(layer.weight.shape[:2]) >= PACKED_CHANNELS


def is_inference_on_cpu(x: Tensor) -> bool:
    """Return whether oneDNN computes a layer of x, and nobody asks for gradients."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and torch.backends.mkldnn.is_available()


def by_row(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a layer of few rows, x (B, ...): in fp32 on a CPU, without gradients, one row at a time."""
    if len(x) == 1 or not depends_on_batch(x):
        return torch.as_tensor(layer(x))
    return torch.cat([layer(row) for row in x.split(1)])


def depends_on_batch(x: Tensor) -> bool:
    """Return whether PyTorch's layers would give a row of x other bits in another batch."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_grad_enabled()
