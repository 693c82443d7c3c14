"""The seam: a painted background of a slightly wrong shade shows as a rectangle, so its shade is corrected.

    y' = y + w(|f - y - c|) c,   w(d) = exp(-(d / 32)^2) in grey levels
    c  = spread of w / (w + e) (f - y) with weight w + e, where w = w(|f - y|), e = 0.02, on the mask's rim

f is the source with its hole filled from the rim. Where the painting shows background on the rim of the mask (|f - y|
small), the difference f - y is known there; it is spread over the mask and added to the pixels that then look like
background, so that the object keeps its colours. e draws the correction to zero where the painting shows an object on
the rim. Poisson blending (Perez et al., 2003) would bleed the surroundings into such an object. The official code does
not correct the seam.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask

TOLERANCE = 32.0  # grey levels
NO_CORRECTION = 0.02  # e, the weight of a correction by zero

Floats = NDArray[np.float32]


def match_rim(painted: Image, filled: Image, mask: Mask) -> Image:
    """Return `painted` (H, W, 3) with its background shade corrected to that of `filled` (H, W, 3) on the mask's rim.

    `filled` comes from `holes.fill_holes`. The result (H, W, 3) has no meaning where the mask (H, W) is 0.
    """
    mask = np.ascontiguousarray(mask, np.uint8)
    difference = filled.astype(np.float32) - painted
    # The edge of the picture is not a rim: the source does not show what lies beyond it.
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    certainty = _likely_background(difference)
    known = difference * (certainty / (certainty + NO_CORRECTION))[..., None]
    weights = np.where(mask > inside, (certainty + NO_CORRECTION) / (1 + NO_CORRECTION), 0).astype(np.float32)
    correction = spread(known, weights)
    corrected = painted + _likely_background(difference - correction)[..., None] * correction
    return np.asarray(corrected.round().clip(0, 255), np.uint8)


def _likely_background(difference: Floats) -> Floats:
    """Return w of differences (H, W, C) from the surroundings, the largest of the channels: (H, W), 0 to 1."""
    return np.asarray(np.exp(-np.square(np.abs(difference).max(-1) / TOLERANCE)), np.float32)


def spread(values: Floats, weights: Floats) -> Floats:
    """Interpolate `values` (H, W, C) where `weights` (H, W), 0 to 1, are small: pull-push (Gortler et al., 1996).

    Unknown values are filled with the weighted means of ever coarser grids. Without any weight the result is 0.
    """
    height, width = weights.shape
    small = (max(1, width // 2), max(1, height // 2))
    sums = _resize(values * weights[..., None], small, cv2.INTER_AREA)
    totals = _resize(weights[..., None], small, cv2.INTER_AREA)
    means = np.asarray(sums / np.maximum(totals, np.finfo(np.float32).tiny), np.float32)
    if height == width == 1:
        return means
    coarse = _resize(spread(means, np.minimum(4 * totals[..., 0], 1)), (width, height), cv2.INTER_LINEAR)
    return np.asarray(coarse + weights[..., None] * (values - coarse), np.float32)


def _resize(values: Floats, size: tuple[int, int], interpolation: int) -> Floats:
    """Resize (H, W, C) to `size` (width, height); OpenCV alone would drop C where it is 1."""
    resized = cv2.resize(values, size, interpolation=interpolation)
    return np.asarray(resized, np.float32).reshape(size[1], size[0], values.shape[2])
