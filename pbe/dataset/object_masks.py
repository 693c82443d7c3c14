"""Masks of objects, from own data with segmentations: stored as small PNGs and used as the region to repaint.

An object's mask is the 1-bit PNG of the part inside its box. Its place is relative to the box, so it stays correct when
acquire stores the image at a smaller size.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Box, Mask


def pack_mask(inside_box: NDArray[np.generic]) -> bytes:
    """Encode the (h, w) mask inside a box, nonzero where the object is, as a 1-bit PNG."""
    pixels = (inside_box != 0).astype(np.uint8) * 255
    done, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert done
    return bytes(png)


def unpack_mask(png: bytes) -> Mask:
    """Decode a PNG of `pack_mask` to (h, w) uint8, 1 where the object is; raises ValueError when it is not a PNG."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if png else None
    if pixels is None:
        raise ValueError(f"an object mask of {len(png)} bytes is not a PNG")
    return (pixels > 127).astype(np.uint8)


def object_in_window(png: bytes, box_xyxy: Box, window: tuple[int, int, int], size_px: int) -> Mask | None:
    """Place a box's packed mask in `window` (left, top, side) resized to `size_px`.

    Returns (size_px, size_px) uint8, 1 where the object is, or None when no part of it is inside the window. Every
    pixel that contains any of the object is 1: the masked source must not show the object that is repainted.
    """
    left, top, side = window
    scale = size_px / side
    x0, x1 = (round((x - left) * scale) for x in (box_xyxy[0], box_xyxy[2]))
    y0, y1 = (round((y - top) * scale) for y in (box_xyxy[1], box_xyxy[3]))
    size = max(1, x1 - x0), max(1, y1 - y0)
    inside = cv2.resize(unpack_mask(png) * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 0
    placed = np.zeros((size_px, size_px), np.uint8)
    ys, xs = np.nonzero(inside)
    ys, xs = ys + y0, xs + x0
    visible = (xs >= 0) & (xs < size_px) & (ys >= 0) & (ys < size_px)
    placed[ys[visible], xs[visible]] = 1
    return placed if visible.any() else None
