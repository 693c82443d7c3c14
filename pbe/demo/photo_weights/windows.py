"""Windows of photographs, as the painter sees them: the whole short side, or a close-up of a box."""

import numpy as np

from pbe.demo.photo_weights.photos import Photo
from pbe.demo.photo_weights.recipe import IMAGE_PX
from pbe.method.close_up import draw_side
from pbe.method.windows import cut_window, square_window
from pbe.types import Image


def draw_window_of(image: Image, photo: Photo, rng: np.random.Generator, size_px: int = IMAGE_PX) -> Image:
    """Draw a window that holds the photograph's box, (size_px, size_px, 3); half of them are mirrored."""
    height, width = image.shape[:2]
    side = draw_side(height, width, photo.box, size_px, rng) if rng.random() < 0.6 else min(height, width)
    window = cut_window(image, square_window(height, width, photo.box, rng, side), size_px, fast=True)
    return window if rng.random() < 0.5 else np.ascontiguousarray(window[:, ::-1])
