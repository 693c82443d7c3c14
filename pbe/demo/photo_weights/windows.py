"""Windows of photographs, as the painter sees them: the whole short side, or a close-up of a box."""

import numpy as np

from pbe.demo.photo_weights.photos import Photo
from pbe.demo.photo_weights.recipe import IMAGE_PX
from pbe.method.close_up import draw_side
from pbe.method.windows import cut_window, square_window
from pbe.types import Image


def draw_window_of(image: Image, photo: Photo, close_up_probability: float, rng: np.random.Generator) -> Image:
    """Draw a window that holds the photograph's box, (128, 128, 3); half of them are mirrored."""
    height, width = image.shape[:2]
    is_close_up = rng.random() < close_up_probability
    side = draw_side(height, width, photo.box, IMAGE_PX, rng) if is_close_up else min(height, width)
    window = cut_window(image, square_window(height, width, photo.box, rng, side), IMAGE_PX, fast=True)
    return window if rng.random() < 0.5 else np.ascontiguousarray(window[:, ::-1])
