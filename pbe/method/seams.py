"""The seam: a painted background that is a shade off shows as a rectangle, so it is brought to the shade around it.

    y' = y + w(|f - y|) * spread(f - y on the mask's rim),   w(d) = exp(-(d / 32)^2) in grey levels

f is the source with its hole filled from the rim. Where the painting meets the rim with background (|f - y| small), the
difference is known; it is spread over the mask and given to what looks like background, so that the object keeps its
colours. Poisson blending (Perez et al., 2003) would bleed the surroundings into an object that touches the rim.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND_TOLERANCE = 32.0  # grey levels
RIM_TOLERANCE = 16.0

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


def match_rim(painted: Images, filled: Images, mask: Images) -> Images:
    """Correct the background of `painted` (H, W, 3) inside `mask` (H, W; 1 = painted) to that of `filled` (H, W, 3).

    Returns (H, W, 3) uint8; what it holds where the mask is 0 has no meaning. `filled`: see `painter.fill_holes`.
    """
    mask = np.ascontiguousarray(mask, np.uint8)
    difference = filled.astype(np.float32) - painted
    size = np.abs(difference).max(-1)
    # The picture's own edge is no rim: the source says nothing of what lies beyond it.
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    certainty = np.where(mask > inside, np.exp(-((size / RIM_TOLERANCE) ** 2)), 0).astype(np.float32)
    background = np.exp(-((size / BACKGROUND_TOLERANCE) ** 2))
    corrected = painted + background[..., None] * spread(difference, certainty)
    return np.asarray(corrected.round().clip(0, 255), np.uint8)


def spread(values: Floats, weights: Floats) -> Floats:
    """Fill `values` (H, W, C) in where `weights` (H, W), 0 to 1, are small: pull-push (Gortler et al., 1996).

    Halved again and again, the weighted mean of what is known fills what is not; without any weight the result is 0.
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
    """Resize (H, W, C) to `size` (width, height), which OpenCV returns without C where C is 1."""
    resized = cv2.resize(values, size, interpolation=interpolation)
    return np.asarray(resized, np.float32).reshape(size[1], size[0], values.shape[2])
