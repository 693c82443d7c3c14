"""The training triplet, drawn from one box of one image (section 3.1).

    {((1 - m) * x_s, A(x_r), m), x_s}

x_s is a square window of the image that holds the box, m an arbitrary mask drawn around the box, and A(x_r) the
augmented crop of the box. The exemplar is the whole crop even where the object's shape is known: the exemplars that
users give have a background too, and the model has to learn to ignore it. Every draw takes its generator.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbe import settings
from pbe.method.close_up import draw_side
from pbe.method.exemplars import augment_exemplar, crop_exemplar
from pbe.method.masks import draw_mask
from pbe.method.windows import Window, box_in_window, cut_window, square_window
from pbe.types import Box, Image, Mask


@dataclass(frozen=True)
class TrainingTriplet:
    """The source before it is masked, which is also the target, its mask, and E draws of the augmented exemplar."""

    source: Image  # (S, S, 3)
    mask: Mask  # (S, S), 1 = repaint
    exemplars: NDArray[np.uint8]  # (E, e, e, 3)


def draw_window(height: int, width: int, box_xyxy: Box, method: settings.Method, rng: np.random.Generator) -> Window:
    """Draw the window of a (height, width) image: as long as its short side, or a close-up of the box.

    `method.close_up_probability` is the share of close-ups.
    """
    probability = method.close_up_probability
    is_close_up = probability > 0 and rng.random() < probability  # 0 takes no draw: the paper's samples keep their bits
    side = draw_side(height, width, box_xyxy, method.image_px, rng) if is_close_up else None
    return square_window(height, width, box_xyxy, rng, side)


def decoding_reduction(window_px: int, box_xyxy: Box, image_px: int, exemplar_px: int) -> int:
    """Return the largest of 1, 2, 4 and 8 by which the image can be shrunk without enlarging window or exemplar."""
    x0, y0, x1, y1 = box_xyxy
    spare = min(window_px // image_px, (x1 - x0) // exemplar_px, (y1 - y0) // exemplar_px)
    return max(r for r in (1, 2, 4, 8) if r <= max(1, spare))


def draw_triplet(
    image: Image,
    window: Window,
    box_xyxy: Box,
    method: settings.Method,
    exemplar_px: int,
    num_exemplars: int,
    rng: np.random.Generator,
    *,
    object_mask: Mask | None = None,
    reduction: int = 1,
) -> TrainingTriplet:
    """Draw mask and exemplars for a window, and cut the source out of the image.

    `window` and `box_xyxy` are in pixels of the full image; `image` (H, W, 3) may be smaller by `reduction` (see
    `decoding_reduction`). `object_mask` (S, S) is the object's shape in the resized window, if it is known. S is
    `method.image_px`.
    """
    size = method.image_px
    left, top, side = (v // reduction for v in window)
    x0, y0, x1, y1 = (v // reduction for v in box_xyxy)
    source = cut_window(image, (left, top, side), size, fast=True)
    mask = draw_mask(box_in_window(box_xyxy, window, size), size, method.mask, rng, object_mask)
    crop = crop_exemplar(image, (x0, y0, x1, y1), method.exemplar.pad_frac, exemplar_px, fast=True)
    exemplars = [augment_exemplar(crop, method.exemplar, rng) for _ in range(num_exemplars)]
    return TrainingTriplet(source, mask, np.stack(exemplars))
