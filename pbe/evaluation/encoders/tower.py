"""The painter's own CLIP tower as an encoder."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pbe.evaluation.encoders.clip import vit_name
from pbe.evaluation.encoders.precision import digest_weights, exact_convolutions
from pbe.evaluation.encoders.protocol import Features
from pbe.method.conditioner import Conditioner, to_pixels
from pbe.runtime.devices import precision_name

_CPU = torch.device("cpu")


class TowerEncoder:
    """The painter's own CLIP tower; its features are class tokens of unit norm.

    Its input has the size of exemplars, which are smaller than the painted images. An image shrunk to that size hardly
    shows the edge of a repainted box, so whole images are encoded in tiles.
    """

    sees_tiles = True

    def __init__(
        self, conditioner: Conditioner, device: torch.device = _CPU, dtype: torch.dtype = torch.float32
    ) -> None:
        self.input_px = conditioner.exemplar_px
        self.digest = digest_weights(conditioner.model, "unit norm", self.input_px, precision_name(dtype))
        self._conditioner = conditioner.to(device, dtype)
        patch_px = conditioner.config.patch_size
        assert isinstance(patch_px, int)
        vit = vit_name(conditioner.config.hidden_size, conditioner.config.num_hidden_layers, patch_px)
        exact = "" if dtype == torch.float32 else f" in {precision_name(dtype)}"
        self.name = (
            f"the painter's own CLIP tower, {vit} at {self.input_px} px{exact}"
            " (class token, unit norm; of whole images the mean over tiles)"
        )

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        return self.encode_pixels(self.to_pixels(images))

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return pixels in -1..1; see `PixelEncoder`."""
        return to_pixels(images, device=self._conditioner.uncond_vector.device)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Features:
        """Return class tokens of unit norm; see `PixelEncoder`."""
        with exact_convolutions():
            tokens = self._conditioner.class_token(pixels)
        return np.asarray(F.normalize(tokens, dim=-1).cpu().numpy(), np.float32)
