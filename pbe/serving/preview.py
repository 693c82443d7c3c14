"""A preview of an edit: the pixels to repaint, the specks that are not painted, and the window of each region."""

import cv2
import numpy as np

from pbe.method.regions import find_regions
from pbe.types import Image, Mask

REPAINTED, DROPPED, WINDOW = (230, 30, 30), (250, 200, 0), (30, 120, 255)
TINT = 0.55


def preview(source: Image, mask: Mask, image_px: int, max_magnification: float) -> Image:
    """Return the source (H, W, 3) with repainted pixels in red, specks in yellow and windows as numbered squares."""
    regions = find_regions(mask, image_px, max_magnification)
    drawn = source.astype(np.float32)
    for pixels, colour in ((regions.mask == 1, REPAINTED), ((mask == 1) & (regions.mask == 0), DROPPED)):
        drawn[pixels] = (1 - TINT) * drawn[pixels] + TINT * np.array(colour, np.float32)
    result = drawn.round().astype(np.uint8)
    width = max(1, min(mask.shape) // 300)
    for number, (left, top, side) in enumerate(regions.windows, start=1):
        cv2.rectangle(result, (left, top), (left + side - 1, top + side - 1), WINDOW, width)
        corner = (max(0, left) + 2 * width, max(0, top) + 14 * width)
        cv2.putText(result, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, width / 2, WINDOW, width)
    return result
