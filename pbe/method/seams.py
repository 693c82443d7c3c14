"""The seam: a painted background of a slightly wrong shade shows as a rectangle, so its shade is corrected.

    y' = y + w(|f - y|) * spread(f - y on the mask's rim),   w(d) = exp(-(d / 32)^2) in grey levels

f is the source with its hole filled from the rim. Where the painting shows background on the rim of the mask (|f - y|
small), the difference f - y is known there; it is spread over the mask and added to the pixels that look like
background, so that the object keeps its colours. Poisson blending (Perez et al., 2003) would bleed the surroundings
into an object that touches the rim. The official code does not correct the seam.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask

BACKGROUND_TOLERANCE = 32.0  # grey levels
RIM_TOLERANCE = 16.0  # grey levels

Floats = NDArray[np.float32]


def match_rim(painted: Image, filled: Image, mask: Mask) -> Image:
    """Return `painted` (H, W, 3) with its background shade corrected to that of `filled` (H, W, 3) on the mask's rim.

    `filled` comes from `painter.fill_holes`. The result (H, W, 3) has no meaning where the mask (H, W) is 0.
    """
    mask = np.ascontiguousarray(mask, np.uint8)
    difference = filled.astype(np.float32) - painted
    size = np.abs(difference).max(-1)
    # The edge of the picture is not a rim: the source does not show what lies beyond it.
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    certainty = np.where(mask > inside, np.exp(-((size / RIM_TOLERANCE) ** 2)), 0).astype(np.float32)
    background = np.exp(-((size / BACKGROUND_TOLERANCE) ** 2))
    corrected = painted + background[..., None] * spread(difference, certainty)
    return np.asarray(corrected.round().clip(0, 255), np.uint8)


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
