"""What every image encoder offers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Features = NDArray[np.float32]


class FeatureEncoder(Protocol):
    """Images (B, input_px, input_px, 3) uint8 RGB => features (B, D) float32."""

    @property
    def name(self) -> str:
        """What reports call the encoder."""

    @property
    def digest(self) -> str:
        """A digest of its weights and of all else that decides its features."""

    @property
    def input_px(self) -> int:
        """The side of its square input."""

    @property
    def sees_tiles(self) -> bool:
        """Whether the features of a whole image are the mean over its tiles of input_px at full resolution."""

    def __call__(self, images: NDArray[np.uint8]) -> Features: ...


class PixelEncoder(FeatureEncoder, Protocol):
    """An encoder whose input can be made and resized apart: `encode_pixels(to_pixels(images))` equals a call."""

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the normalised pixels (B, 3, H, W) float32 of images (B, H, W, 3) of any size."""

    def encode_pixels(self, pixels: Tensor) -> Features:
        """Return the features (B, D) of normalised pixels (B, 3, input_px, input_px)."""
