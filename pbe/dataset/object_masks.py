"""The shapes of objects that own data with masks bring: kept as small pictures, used as the region to repaint.

An object's mask is stored as the 1-bit PNG of what its box holds. It is told relative to the box, so it stays right
when acquire stores the image smaller.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError

Mask = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def pack_mask(inside_box: NDArray[np.generic]) -> bytes:
    """The (h, w) of a mask inside its box, not zero where the object is, as a 1-bit PNG."""
    pixels = (inside_box != 0).astype(np.uint8) * 255
    done, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert done
    return bytes(png)


def unpack_mask(png: bytes) -> Mask:
    """The (h, w) uint8 mask of 0 and 1 that `pack_mask` packed; raises UserError when it is none."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if png else None
    if pixels is None:
        raise UserError(f"an object mask of {len(png)} bytes is no PNG")
    return (pixels > 127).astype(np.uint8)


def object_in_window(png: bytes, box_xyxy: Box, window: tuple[int, int, int], size_px: int) -> Mask | None:
    """A box's packed mask in a window resized to `size_px`: (size_px, size_px) of 0 and 1, None when none of it shows.

    Every pixel that holds some of the object is 1: nothing of what is to be repainted may stay in the masked source.
    """
    left, top, side = window
    scale = size_px / side
    x0, x1 = (round((x - left) * scale) for x in (box_xyxy[0], box_xyxy[2]))
    y0, y1 = (round((y - top) * scale) for y in (box_xyxy[1], box_xyxy[3]))
    size = max(1, x1 - x0), max(1, y1 - y0)
    inside = cv2.resize(unpack_mask(png) * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 0
    shown = np.zeros((size_px, size_px), np.uint8)
    ys, xs = np.nonzero(inside)
    ys, xs = ys + y0, xs + x0
    seen = (xs >= 0) & (xs < size_px) & (ys >= 0) & (ys < size_px)
    shown[ys[seen], xs[seen]] = 1
    return shown if seen.any() else None
