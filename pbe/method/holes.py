"""Sources whose hole is filled from its rim, for encoders whose receptive field reaches into it (see `painter`)."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask


def fill_holes(sources: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the sources (B, H, W, 3) with the masked pixels (B, H, W) filled from their rim, without reading them."""
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(_fill, sources, masks.astype(np.uint8))))


def _fill(source: Image, mask: Mask) -> Image:
    visible = source[mask == 0]
    mean = visible.mean(0).round() if len(visible) else np.full(3, 127)
    # At the edge of the picture Telea reads masked pixels: they must not be the source's.
    blank = np.where(mask[..., None] == 1, mean, source).astype(np.uint8)
    return np.asarray(cv2.inpaint(blank, np.ascontiguousarray(mask), 3, cv2.INPAINT_TELEA), np.uint8)
