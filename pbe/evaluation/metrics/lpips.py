"""LPIPS: a distance of pictures in the features of a network, calibrated on people's judgements.

    d(y, x) = sum over layers l of the mean over positions of  w_l . (f_l(y) - f_l(x))^2,   f_l of unit norm in channels

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1, with
AlexNet (the authors' choice for measuring) or VGG16. Weights are read from a local folder, as their authors publish
them; nothing is downloaded:

    alexnet-owt-7be5be79.pth or vgg16-397923af.pth    the network, from torchvision
    alex.pth or vgg.pth                               the weights w_l, from the package lpips (lpips/weights/v0.1)

Here the map of distances is averaged over a region, such as the ring around a mask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pbe.errors import UserError, one_line
from pbe.evaluation.encoders.precision import digest_weights, exact_convolutions
from pbe.method.weight_files import read_weights
from pbe.types import Image

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1..1
_TINY = 1e-10
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Backbone:
    """A network of torchvision up to its last layer that LPIPS reads; layers are numbered as in its `features`."""

    name: str
    weights: str  # how the name of its file begins
    head: str  # the file of w_l
    convolutions: Mapping[int, tuple[int, ...]]  # layer: channels in and out, kernel, stride, padding
    poolings: tuple[int, ...]
    pooling_px: int
    read_after: tuple[int, ...]  # ReLUs


_ALEXNET = _Backbone(
    "AlexNet",
    "alexnet",
    "alex.pth",
    {
        0: (3, 64, 11, 4, 2),
        3: (64, 192, 5, 1, 2),
        6: (192, 384, 3, 1, 1),
        8: (384, 256, 3, 1, 1),
        10: (256, 256, 3, 1, 1),
    },
    poolings=(2, 5),
    pooling_px=3,
    read_after=(1, 4, 7, 9, 11),
)
_VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_VGG16 = _Backbone(
    "VGG16",
    "vgg16",
    "vgg.pth",
    {layer: (*_VGG16_CHANNELS[n : n + 2], 3, 1, 1) for n, layer in enumerate(_VGG16_LAYERS)},
    poolings=(4, 9, 16, 23),
    pooling_px=2,
    read_after=(3, 8, 15, 22, 29),
)


class Lpips:
    """LPIPS with the weights in a folder; `name` is what reports call it."""

    def __init__(self, folder: Path, device: torch.device = _CPU) -> None:
        """Load the weights. Raises UserError naming what is missing in the folder, or cannot be read."""
        backbone, weights = _find(folder)
        self._backbone, self._device = backbone, device
        self._layers = _build(backbone, weights, read_weights(weights)).to(device)
        self._heads = [head.to(device) for head in _read_heads(folder / backbone.head, backbone)]
        self.name = f"LPIPS 0.1, {backbone.name}"
        self.digest = digest_weights(self._layers, [head.cpu().tolist() for head in self._heads])

    @torch.inference_mode()
    def map(self, first: Image, second: Image) -> NDArray[np.float32]:
        """Return the map (H, W) of distances of two pictures (H, W, 3): layers enlarged bilinearly and added.

        Its mean is the distance when the layers' sizes divide the picture's, otherwise nearly so.
        """
        with exact_convolutions():
            maps = self._layer_maps(np.stack([first, second]))
        enlarged = [F.interpolate(each, first.shape[:2], mode="bilinear", align_corners=False) for each in maps]
        return np.asarray(torch.stack(enlarged).sum(0)[0, 0].cpu().numpy(), np.float32)

    @torch.inference_mode()
    def distance(self, first: Image, second: Image) -> float:
        """Return the distance of two pictures (H, W, 3), 0 for equal ones."""
        with exact_convolutions():
            return float(sum(each.mean() for each in self._layer_maps(np.stack([first, second]))))

    def _layer_maps(self, pair: NDArray[np.uint8]) -> list[Tensor]:
        """Return the distances (1, 1, h, w) of a pair (2, H, W, 3), layer by layer."""
        pixels = torch.from_numpy(pair).to(self._device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        shift, scale = (torch.tensor(values, device=self._device).view(3, 1, 1) for values in (_SHIFT, _SCALE))
        x = (pixels - shift) / scale
        maps: list[Tensor] = []
        for layer, module in enumerate(self._layers):
            x = module(x)
            if layer in self._backbone.read_after:
                units = x / (x.square().sum(1, keepdim=True).sqrt() + _TINY)
                squares = (units[:1] - units[1:]).square()
                maps.append((squares * self._heads[len(maps)]).sum(1, keepdim=True))
        return maps


def lpips_in(lpips: Lpips, result: Image, source: Image, where: NDArray[np.bool_]) -> float:
    """Return the mean over the region `where` (H, W) of the map of distances; NaN when it is empty."""
    if not where.any():
        return float("nan")
    return 0.0 if np.array_equal(result, source) else float(lpips.map(result, source)[where].mean(dtype=np.float64))


def _find(folder: Path) -> tuple[_Backbone, Path]:
    for backbone in (_ALEXNET, _VGG16):
        files = sorted(folder.glob(f"{backbone.weights}*.pth"))
        if files and (folder / backbone.head).is_file():
            return backbone, files[0]
    pairs = " or ".join(f"{each.weights}*.pth and {each.head}" for each in (_ALEXNET, _VGG16))
    raise UserError(f"{folder}: evaluate.lpips is a folder with {pairs} (see pbe/evaluation/metrics/lpips.py)")


def _build(backbone: _Backbone, path: Path, tensors: Mapping[str, Tensor]) -> nn.Sequential:
    layers = nn.Sequential()
    for layer in range(max(backbone.read_after) + 1):
        if layer in backbone.convolutions:
            width_in, width_out, kernel, stride, padding = backbone.convolutions[layer]
            layers.append(nn.Conv2d(width_in, width_out, kernel, stride, padding))
        else:
            pooling = nn.MaxPool2d(backbone.pooling_px, 2)
            layers.append(pooling if layer in backbone.poolings else nn.ReLU())
    names = layers.state_dict()
    try:
        layers.load_state_dict({name: tensors[f"features.{name}"] for name in names})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not torchvision's {backbone.name}: {one_line(error)}") from None
    return layers.eval().requires_grad_(False)


def _read_heads(path: Path, backbone: _Backbone) -> list[Tensor]:
    tensors = read_weights(path)
    widths = [backbone.convolutions[layer - 1][1] for layer in backbone.read_after]
    names = [f"lin{n}.model.1.weight" for n in range(len(widths))]
    shapes = [tuple(tensors[name].shape) if name in tensors else None for name in names]
    if shapes != [(1, width, 1, 1) for width in widths]:
        raise UserError(f"{path}: not LPIPS's weights for {backbone.name}")
    return [tensors[name].float() for name in names]
