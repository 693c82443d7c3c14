"""The features that FID, QS and the CLIP score are computed on, by protocol.

whole image     official: CLIP's preprocessing, the short side resized and the centre square cut
                corrected: the same; an encoder that sees tiles gets tiles
exemplar        both: stretched to a square, bicubic
repainted box   official: without the mask's last row and column; normalised, then resized bilinearly without
                antialiasing and not rounded
                corrected: the mask's bounding box, bicubic with antialiasing

With CLIP both protocols share the features of whole images and of exemplars. The authors run the encoder in fp16 on a
GPU and one crop at a time; here it runs in its own precision and in batches, which moves a CLIP score by less than
1e-4 in fp32.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.evaluation.encoders.encode import encode_batch, encode_whole
from pbe.evaluation.encoders.protocol import FeatureEncoder, Features, PixelEncoder
from pbe.evaluation.encoders.resizing import clip_input
from pbe.method.windows import mask_box
from pbe.types import Box, Image, Mask


class ProtocolFeatures(Protocol):
    """How a protocol encodes the images of a case; all features are (B, D) float32."""

    @property
    def encoder(self) -> FeatureEncoder: ...

    def whole(self, images: Sequence[Image]) -> Features:
        """Return the features of results and of real images."""

    def exemplars(self, exemplars: Sequence[Image]) -> Features: ...

    def boxes(self, results: Sequence[Image], masks: Sequence[Mask]) -> Features:
        """Return the features of the repainted boxes."""


class CorrectedFeatures:
    """The protocol `corrected`."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self.encoder = encoder

    def whole(self, images: Sequence[Image]) -> Features:
        return encode_whole(self.encoder, images)

    def exemplars(self, exemplars: Sequence[Image]) -> Features:
        return encode_batch(self.encoder, exemplars)

    def boxes(self, results: Sequence[Image], masks: Sequence[Mask]) -> Features:
        corners = [mask_box(mask) for mask in masks]
        crops = [result[y0:y1, x0:x1] for result, (x0, y0, x1, y1) in zip(results, corners, strict=True)]
        return encode_batch(self.encoder, crops)


class OfficialFeatures:
    """The protocol `official`, bit by bit up to the encoder."""

    def __init__(self, encoder: PixelEncoder) -> None:
        self.encoder = encoder

    def whole(self, images: Sequence[Image]) -> Features:
        return self.encoder(np.stack([clip_input(image, self.encoder.input_px) for image in images]))

    def exemplars(self, exemplars: Sequence[Image]) -> Features:
        return encode_batch(self.encoder, exemplars)

    def boxes(self, results: Sequence[Image], masks: Sequence[Mask]) -> Features:
        """Return the features of the boxes; NaN where `official_box` is None, on which the authors' tool fails."""
        corners = [official_box(mask) for mask in masks]
        pixels = [self._crop(result, box) for result, box in zip(results, corners, strict=True) if box is not None]
        found = np.array([box is not None for box in corners])
        encoded = self.encoder.encode_pixels(torch.cat(pixels)) if pixels else np.empty((0, 1), np.float32)
        features = np.full((len(masks), encoded.shape[1]), np.nan, np.float32)
        features[found] = encoded
        return features

    def _crop(self, result: Image, box: Box) -> Tensor:
        x0, y0, x1, y1 = box
        side = self.encoder.input_px
        pixels = self.encoder.to_pixels(np.ascontiguousarray(result[None, y0:y1, x0:x1]))
        return F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=False)


def official_box(mask: Mask) -> Box | None:
    """Return the box that the authors' CLIP score crops, without the mask's last row and column.

    Its corners are the first and the last masked pixel in reading order, which are those of the bounding box only where
    the mask is a box. None where the crop is empty, or the mask is.
    """
    masked = np.flatnonzero(mask)
    if len(masked) == 0:
        return None
    (y0, x0), (y1, x1) = (divmod(int(index), mask.shape[1]) for index in (masked[0], masked[-1]))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
