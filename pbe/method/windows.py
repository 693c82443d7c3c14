"""The square window of an image that a sample sees: it holds the box wherever one can.

The official code distorts images whose box is longer than their short side; here the window is then placed inside the
box's extent and the box is clipped to it, so that nothing is ever stretched.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pbe.method.exemplars import Image, resize, resize_fast


class Window(NamedTuple):
    """A square of an image, in its pixels."""

    left: int
    top: int
    side: int


def square_window(
    height: int, width: int, box_xyxy: tuple[int, int, int, int], rng: np.random.Generator, side: int | None = None
) -> Window:
    """Draw the place of a window of `side`, or of the image's short side, uniformly among those that hold the box."""
    side = side or min(height, width)
    x0, y0, x1, y1 = box_xyxy
    return Window(_place(x0, x1, side, width, rng), _place(y0, y1, side, height, rng), side)


def _place(low: int, high: int, side: int, length: int, rng: np.random.Generator) -> int:
    """Start of a span of `side` in 0..length that covers [low, high), or as much of it as fits."""
    first, last = max(0, high - side), min(low, length - side)
    if first > last:  # the box is longer than the window
        first, last = max(0, low), min(high - side, length - side)
    return int(rng.integers(first, last + 1))


def cut_window(image: Image, window: tuple[int, int, int], size_px: int, fast: bool = False) -> Image:
    """Cut the window and resize it, (size_px, size_px, 3); `fast`: by `resize_fast`."""
    left, top, side = window
    return (resize_fast if fast else resize)(image[top : top + side, left : left + side], size_px, size_px)


def box_in_window(
    box_xyxy: tuple[int, int, int, int], window: tuple[int, int, int], size_px: int
) -> tuple[int, int, int, int]:
    """The box in the resized window's pixels, clipped to it and at least one pixel on each side."""
    left, top, side = window
    scale = size_px / side
    x0, y0, x1, y1 = box_xyxy
    lows = [min(max(0, int(np.floor((v - o) * scale + 1e-6))), size_px - 1) for v, o in ((x0, left), (y0, top))]
    highs = [min(size_px, int(np.ceil((v - o) * scale - 1e-6))) for v, o in ((x1, left), (y1, top))]
    return lows[0], lows[1], max(highs[0], lows[0] + 1), max(highs[1], lows[1] + 1)


def box_mask(box_xyxy: tuple[int, int, int, int], size_px: int) -> NDArray[np.uint8]:
    """1 inside the box, (size_px, size_px)."""
    mask = np.zeros((size_px, size_px), np.uint8)
    x0, y0, x1, y1 = box_xyxy
    mask[y0:y1, x0:x1] = 1
    return mask


def mask_box(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """The smallest xyxy box that holds every pixel to repaint, x1 and y1 exclusive.

    The official tools' crop leaves out the last row and column. Raises ValueError for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(rows) == 0:
        raise ValueError("the mask is empty: nothing to repaint")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
