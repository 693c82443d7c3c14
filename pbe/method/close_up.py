"""Close-ups: the square of a picture that is painted, cut around the mask and magnified where the mask is small.

    y = (1 - m) * x_s + m * back(paint(cut(x_s), cut(m), x_r))

The official code shows the network the whole picture, however small the mask is; no object fits into a few latents (its
issue #33). Here a square around the mask, with a margin, is resized to the resolution that the network was trained at:
shrunk where the mask is large, magnified up to a limit where it is small. Only masked pixels are put back, so that
colours outside the mask do not drift (its issue #64). A share of the training samples can be close-ups, too.
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.method.exemplars import resize
from pbe.method.windows import Window, mask_box
from pbe.types import Box, Image, Mask

MARGIN = 1.5  # side of the square / longer side of the mask: the painter has to see the surroundings
MAX_MAGNIFICATION = 2.0


class CloseUp(NamedTuple):
    """A square of a picture, resized to the painter's resolution: source (S, S, 3), mask (S, S), and where it lies."""

    source: Image
    mask: Mask
    window: Window


def cut_close_up(source: Image, mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION) -> CloseUp:
    """Cut the square of `window_around` out of the source (H, W, 3) and the mask (H, W), resized to `image_px`."""
    return cut_at(source, mask, window_around(mask, image_px, max_magnification), image_px)


def cut_at(source: Image, mask: Mask, window: Window, image_px: int) -> CloseUp:
    """Cut a window out of the picture, reflected where it exceeds the edge, and resize it to `image_px`."""
    height, width = mask.shape
    rows, columns = slice(window.top, window.top + window.side), slice(window.left, window.left + window.side)
    patch: Any = (rows, columns)
    if min(window.top, window.left) < 0 or rows.stop > height or columns.stop > width:
        patch = np.ix_(_reflected(window.top, window.side, height), _reflected(window.left, window.side, width))
    return CloseUp(resize(source[patch], image_px, image_px), _resize_mask(mask[patch], image_px), window)


def put_back(source: Image, mask: Mask, painted: Image, window: Window) -> Image:
    """Return the source (H, W, 3) with the pixels of the painted square (S, S, 3) where the mask is 1."""
    result = source.copy()
    put_into(result, mask, 1, painted, window)
    return result


def put_into(picture: Image, labels: Mask, label: int, painted: Image, window: Window) -> None:
    """Copy the pixels of the painted square (S, S, 3) into the picture where the labels (H, W) have this value."""
    height, width = labels.shape
    painted = resize(painted, window.side, window.side)
    top, left = max(0, window.top), max(0, window.left)
    bottom, right = min(height, window.top + window.side), min(width, window.left + window.side)
    inside = painted[top - window.top : bottom - window.top, left - window.left : right - window.left]
    chosen = labels[top:bottom, left:right, None] == label
    np.copyto(picture[top:bottom, left:right], inside, where=chosen)


def window_around(
    mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION, context_px: int | None = None
) -> Window:
    """Return the square to paint: the mask's box with a margin, and at least `image_px` / `max_magnification` long.

    The margin is `context_px` on each side if given, else a quarter of the longer side of the box.

    It lies inside the image if the box is not longer than the image's short side. Otherwise it is as long as the box
    and exceeds the image by the same amount on both sides. Raises ValueError for an empty mask.
    """
    x0, y0, x1, y1 = mask_box(mask)
    height, width = mask.shape
    longest = max(x1 - x0, y1 - y0)
    side = max(longest, min(height, width, _closest_side(longest, image_px, max_magnification, context_px)))
    return Window(_place(x0, x1, side, width), _place(y0, y1, side, height), side)


def draw_side(height: int, width: int, box_xyxy: Box, image_px: int, rng: np.random.Generator) -> int:
    """Draw the side of a training close-up, uniform from the closest one of its box to the image's short side."""
    x0, y0, x1, y1 = box_xyxy
    short = min(height, width)
    closest = _closest_side(max(x1 - x0, y1 - y0), image_px, MAX_MAGNIFICATION)
    return int(rng.integers(min(closest, short), short + 1))


def _closest_side(longest: int, image_px: int, max_magnification: float, context_px: int | None = None) -> int:
    with_margin = math.ceil(MARGIN * longest) if context_px is None else longest + 2 * context_px
    return max(math.ceil(image_px / max_magnification), with_margin)


def _place(low: int, high: int, side: int, length: int) -> int:
    """Return the start of a span of `side` that is centred on [low, high) and shifted into 0..length if it fits."""
    if side > length:
        return (length - side) // 2
    return min(max((low + high - side) // 2, 0), length - side)


def _reflected(start: int, side: int, length: int) -> NDArray[np.intp]:
    """Return the indices start..start + side, those outside 0..length reflected at its ends, repeatedly if needed."""
    period = max(1, 2 * (length - 1))
    folded = np.abs(np.arange(start, start + side)) % period
    return np.asarray(np.minimum(folded, period - folded), np.intp)


def _resize_mask(mask: Mask, size_px: int) -> Mask:
    """Resize to (size_px, size_px); a pixel that covers any part of the mask belongs to it, so that all is painted."""
    shrinking = mask.shape[0] > size_px
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_NEAREST
    share = cv2.resize(mask.astype(np.float32), (size_px, size_px), interpolation=interpolation)
    return (share > 1e-6).astype(np.uint8)
