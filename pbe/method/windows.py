"""The square window of an image that the model sees. It holds the box wherever a square can.

The official code distorts images whose box is longer than their short side. Here the window then lies inside the box's
extent and the box is clipped to it: nothing is ever stretched.
"""

from typing import NamedTuple

import numpy as np

from pbe.method.exemplars import resize, resize_fast
from pbe.types import Box, Image, Mask


class Window(NamedTuple):
    """A square of an image, in its pixels."""

    left: int
    top: int
    side: int


def square_window(height: int, width: int, box_xyxy: Box, rng: np.random.Generator, side: int | None = None) -> Window:
    """Draw a window of `side` pixels (default: the image's short side), uniformly among those that hold the box."""
    side = side or min(height, width)
    x0, y0, x1, y1 = box_xyxy
    return Window(_place(x0, x1, side, width, rng), _place(y0, y1, side, height, rng), side)


def _place(low: int, high: int, side: int, length: int, rng: np.random.Generator) -> int:
    """Draw the start of a span of `side` in 0..length that covers [low, high), or as much of it as fits."""
    first, last = max(0, high - side), min(low, length - side)
    if first > last:  # the box is longer than the window
        first, last = max(0, low), min(high - side, length - side)
    return int(rng.integers(first, last + 1))


def cut_window(image: Image, window: tuple[int, int, int], size_px: int, fast: bool = False) -> Image:
    """Cut the window (left, top, side) and resize it to (size_px, size_px, 3), by `resize_fast` if `fast`."""
    left, top, side = window
    return (resize_fast if fast else resize)(image[top : top + side, left : left + side], size_px, size_px)


def box_in_window(box_xyxy: Box, window: tuple[int, int, int], size_px: int) -> Box:
    """Return the box in the resized window's pixels, clipped to it and at least one pixel long on each side."""
    left, top, side = window
    scale = size_px / side
    x0, y0, x1, y1 = box_xyxy
    lows = [min(max(0, int(np.floor((v - o) * scale + 1e-6))), size_px - 1) for v, o in ((x0, left), (y0, top))]
    highs = [min(size_px, int(np.ceil((v - o) * scale - 1e-6))) for v, o in ((x1, left), (y1, top))]
    return lows[0], lows[1], max(highs[0], lows[0] + 1), max(highs[1], lows[1] + 1)


def box_mask(box_xyxy: Box, size_px: int) -> Mask:
    """Return the mask (size_px, size_px) of a box."""
    mask = np.zeros((size_px, size_px), np.uint8)
    x0, y0, x1, y1 = box_xyxy
    mask[y0:y1, x0:x1] = 1
    return mask


def mask_box(mask: Mask) -> Box:
    """Return the smallest box that holds every pixel to repaint.

    The official tools leave out the last row and column. Raises ValueError for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(rows) == 0:
        raise ValueError("the mask is empty: nothing to repaint")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
