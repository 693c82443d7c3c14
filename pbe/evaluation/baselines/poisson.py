"""Poisson blending of the exemplar into the source (Perez et al., "Poisson Image Editing", 2003, equation 4).

    minimise  integral over the mask  |grad f - grad x_r|^2,   f = x_s on the mask's rim

The exemplar, stretched to the mask's bounding box, keeps its gradients and takes the surroundings' colours. OpenCV
solves it, and holds the source fixed around the mask's bounding box, 2 px outside it, whatever the shape of the mask.
Its `seamlessClone` raises for a region that touches the edge of the picture, shifts one that does not lie around the
given centre, and erodes the mask by 3 px, so that a thin mask changes nothing. Here the picture is padded, the centre
is that of the mask's bounding box, and the mask is grown by the 3 px that are eroded: no mask needs a fallback.
"""

import cv2
import numpy as np

from pbe.method.exemplars import resize
from pbe.method.windows import mask_box
from pbe.types import Image, Mask

_ERODED_PX = 3  # by cv2.seamlessClone
_PAD_PX = 8  # the grown mask with the rim that OpenCV reads lies inside the padded picture


def poisson(source: Image, mask: Mask, exemplar: Image, rng: np.random.Generator) -> Image:
    """Return the source with the exemplar blended in where mask == 1; other pixels do not change."""
    x0, y0, x1, y1 = mask_box(mask)
    stretched = _padded(resize(exemplar, y1 - y0, x1 - x0), _ERODED_PX + 1)
    background = _padded(source, _PAD_PX)
    pasted = background.copy()
    top, left = _PAD_PX + y0 - _ERODED_PX - 1, _PAD_PX + x0 - _ERODED_PX - 1
    pasted[top : top + stretched.shape[0], left : left + stretched.shape[1]] = stretched
    grown = np.zeros(background.shape[:2], np.uint8)
    grown[_PAD_PX:-_PAD_PX, _PAD_PX:-_PAD_PX] = mask * np.uint8(255)
    grown = np.asarray(cv2.dilate(grown, np.ones((2 * _ERODED_PX + 1,) * 2, np.uint8)), np.uint8)
    blended = cv2.seamlessClone(pasted, background, grown, _centre(grown), cv2.NORMAL_CLONE)
    return np.where(mask[..., None] == 1, blended[_PAD_PX:-_PAD_PX, _PAD_PX:-_PAD_PX], source)


def _padded(image: Image, pad: int) -> Image:
    return np.asarray(cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE), np.uint8)


def _centre(mask: Mask) -> tuple[int, int]:
    """Return the centre of the mask's bounding box as OpenCV computes it: the region then stays where it is."""
    left, top, width, height = cv2.boundingRect(mask)
    return left + width // 2, top + height // 2
