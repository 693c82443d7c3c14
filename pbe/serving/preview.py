"""A preview of an edit: the pixels to repaint, the specks that are not painted, and the window of each region."""

from collections.abc import Sequence

import cv2
import numpy as np

from pbe.method.regions import find_regions, join_regions
from pbe.types import Image, Mask

REPAINTED, DROPPED, WINDOW = (230, 30, 30), (250, 200, 0), (30, 120, 255)
TINT = 0.55


def preview(
    source: Image, masks: Sequence[Mask], image_px: int, max_magnification: float, context_px: int | None = None
) -> Image:
    """Return the source (H, W, 3) with repainted pixels in red, specks in yellow and windows as numbered squares.

    The masks (H, W) are those of an edit's regions.
    """
    regions = join_regions([find_regions(mask, image_px, max_magnification, context_px) for mask in masks])
    mask = np.maximum.reduce(list(masks))
    result = source.copy()
    levels = np.arange(256, dtype=np.float32)
    for pixels, colour in ((regions.mask == 1, REPAINTED), ((mask == 1) & (regions.mask == 0), DROPPED)):
        for channel, value in enumerate(colour):
            tinted = ((1 - TINT) * levels + TINT * np.float32(value)).round().astype(np.uint8)
            np.copyto(result[..., channel], tinted[source[..., channel]], where=pixels)
    width = max(1, min(mask.shape) // 300)
    for number, (left, top, side) in enumerate(regions.windows, start=1):
        cv2.rectangle(result, (left, top), (left + side - 1, top + side - 1), WINDOW, width)
        corner = (max(0, left) + 2 * width, max(0, top) + 14 * width)
        cv2.putText(result, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, width / 2, WINDOW, width)
    return result
