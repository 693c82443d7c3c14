"""Images resized as CLIP and the authors' tools resize them, by Pillow, to the bit.

Pillow averages over all pixels that a smaller pixel covers, so that a shrunk image shows no aliases.
"""

import numpy as np
from PIL import Image as PillowImage
from PIL.Image import Resampling

from pbe.types import Image


def clip_input(image: Image, side_px: int) -> Image:
    """Return CLIP's own preprocessing of a whole image: its short side made `side_px`, then the centre square.

    (H, W, 3) => (side_px, side_px, 3), bicubic.
    """
    return _short_side_and_centre(image, side_px, Resampling.BICUBIC)


def centre_square(image: Image, side_px: int) -> Image:
    """Return a real image as the authors prepare those of FID: as `clip_input`, but bilinear.

    Their `create_square_gt_for_fid.py` does so for `side_px` 512, the size of COCOEE.
    """
    return _short_side_and_centre(image, side_px, Resampling.BILINEAR)


def stretch(image: Image, side_px: int) -> Image:
    """Return the whole image as a square, (H, W, 3) => (side_px, side_px, 3), bicubic: how exemplars are encoded."""
    return _resize(image, side_px, side_px, Resampling.BICUBIC)


def _short_side_and_centre(image: Image, side_px: int, resampling: Resampling) -> Image:
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(side_px * long / short)  # cut off, not rounded
    rows, columns = (side_px, longer) if height <= width else (longer, side_px)
    top, left = round((rows - side_px) / 2), round((columns - side_px) / 2)  # halves to the even side
    resized = _resize(image, rows, columns, resampling)
    return np.ascontiguousarray(resized[top : top + side_px, left : left + side_px])


def _resize(image: Image, height: int, width: int, resampling: Resampling) -> Image:
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return np.asarray(PillowImage.fromarray(image).resize((width, height), resampling), np.uint8)
