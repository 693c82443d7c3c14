"""What every image encoder offers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]


class FeatureEncoder(Protocol):
    """Images (B, input_px, input_px, 3) uint8 RGB => features (B, D) float32."""

    @property
    def name(self) -> str:
        """What reports call the encoder."""

    @property
    def input_px(self) -> int:
        """The side of its square input."""

    @property
    def sees_tiles(self) -> bool:
        """Whether the features of a whole image are the mean over its tiles of input_px at full resolution."""

    def __call__(self, images: NDArray[np.uint8]) -> Features: ...
