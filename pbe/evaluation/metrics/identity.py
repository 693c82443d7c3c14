"""Identity: whether the repainted box shows the exemplar's object, by an encoder that the painter has never seen.

    100 * cosine(features of the result's crop at the mask's box, features of the exemplar)

It is the CLIP score with another encoder. Later work on exemplar-based editing uses DINO ViT-S/16 or DINOv2, whose
features tell instances of a class apart (Ruiz et al., "DreamBooth", 2023, section 4.2). Values of different encoders
are not comparable. Foreground-masked identity hides all but the object in both pictures, so that the exemplar's
background does not count.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.types import Box, Image, Mask

HIDDEN = 127  # the grey level of hidden pixels, the mean of EfficientNet's input

Features = NDArray[np.float32]


def identity_scores(result_crops: Features, exemplars: Features) -> NDArray[np.float64]:
    """Return 100 * cosine of each pair of features, (N, D) and (N, D) => (N,)."""
    return clip_scores(result_crops, exemplars)


def crop(image: Image, box: Box) -> Image:
    """Return the pixels of a box (x0, y0, x1, y1), its last row and column included."""
    x0, y0, x1, y1 = box
    return image[y0:y1, x0:x1]


def show_object(image: Image, mask: Mask) -> Image:
    """Return the image (H, W, 3) with mid-grey pixels where the mask is 0; a mask of another size is resized."""
    if mask.shape != image.shape[:2]:
        mask = np.asarray(cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.where(mask[..., None] == 1, image, np.uint8(HIDDEN))
