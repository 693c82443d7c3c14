"""The painter's own CLIP tower as an encoder."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.encoders.precision import exact_convolutions
from pbe.evaluation.encoders.protocol import Features


class Tower(Protocol):
    """The part of a `Conditioner` that `TowerEncoder` uses."""

    @property
    def exemplar_px(self) -> int: ...

    def embed(self, images: NDArray[np.uint8]) -> Features: ...


class TowerEncoder:
    """The painter's own CLIP tower; its features are class tokens of unit norm.

    Its input has the size of exemplars, which are smaller than the painted images. An image shrunk to that size hardly
    shows the edge of a repainted box, so whole images are encoded in tiles.
    """

    sees_tiles = True

    def __init__(self, tower: Tower, name: str) -> None:
        self._tower = tower
        self.input_px = tower.exemplar_px
        self.name = f"{name} at {self.input_px} px (class token, unit norm; of whole images the mean over tiles)"

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        with exact_convolutions():
            return np.asarray(self._tower.embed(images), np.float32)
