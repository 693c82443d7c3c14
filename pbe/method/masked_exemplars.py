"""Exemplars as the painter takes them: squares, cut from pictures of any size, with or without the object's mask."""

import numpy as np

from pbe.method.exemplars import resize
from pbe.method.windows import mask_box
from pbe.types import Image, Mask


def cut_exemplar(image: Image, mask: Mask | None, size_px: int) -> Image:
    """Resize an exemplar (H, W, 3) to (size_px, size_px, 3), as the official code does, without its proportions.

    With a mask (H, W), 1 = the object, the object's box is cut out first, and everything else becomes white: no other
    pixel is read.
    """
    if mask is None:
        return resize(image, size_px, size_px)
    x0, y0, x1, y1 = mask_box(mask)
    inside = mask[y0:y1, x0:x1, None] == 1
    return resize(np.where(inside, image[y0:y1, x0:x1], np.uint8(255)), size_px, size_px)
