"""Seam visibility: the gradient across the mask's edge against the gradients beside it, inside and outside.

    (mean |I(p) - I(q)| across the edge + 1) / (the same mean over pairs beside the edge + 1)

The pairs (p, q) are horizontal and vertical neighbours at a distance of `lag` pixels. A pair across the edge has one
pixel in the mask and one outside. The pairs beside the edge lie on one side of it, at most `BAND` lags away; both sides
have the same weight. One grey level in both terms keeps the ratio finite in flat regions, where a smaller step is not
seen. 1 = no visible seam; the untouched source gives the floor, which is above 1 where masks follow objects.

Source: the ratio of block boundaries to their neighbourhood that measures blocking in coded pictures (Wu and Yuen,
"A Generalized Block-Edge Impairment Metric for Video Coding", 1997), for the edge of a mask.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask

BAND = 4  # how far the neighbourhood reaches, in lags
_PX_PER_LAG = 128  # of the picture's short side: a picture and its enlargement have about the same seam visibility
_LEAST_STEP = 1.0  # grey levels

Steps = NDArray[np.float64]


def seam_visibility(result: Image, mask: Mask) -> float:
    """Return how visible the mask's edge (H, W) is in the result (H, W, 3): 1 = not at all, higher = more.

    The mask's edge is where masked and unmasked pixels meet; the edge of the picture is none. NaN when there is no such
    edge, or no pair of pixels beside it.
    """
    lag = max(1, round(min(mask.shape) / _PX_PER_LAG))
    patch = _around_edge(mask, (BAND + 1) * lag)
    if patch is None:
        return float("nan")
    image, inside = result[patch].astype(np.float32), mask[patch] == 1
    band = _near_edge(inside, BAND * lag)
    pairs = [
        _pairs(image, inside, band, lag),
        _pairs(image.swapaxes(0, 1), inside.T, band.T, lag),
    ]
    across, masked, unmasked = (np.concatenate(steps) for steps in zip(*pairs, strict=True))
    beside = [float(steps.mean()) for steps in (masked, unmasked) if steps.size]
    if not across.size or not beside:
        return float("nan")
    return (float(across.mean()) + _LEAST_STEP) / (sum(beside) / len(beside) + _LEAST_STEP)


def _around_edge(mask: Mask, reach: int) -> tuple[slice, slice] | None:
    """Return the rectangle of the mask with `reach` pixels around it; None when all pixels are masked, or none."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys) or mask.all():
        return None
    return slice(max(0, ys[0] - reach), ys[-1] + 1 + reach), slice(max(0, xs[0] - reach), xs[-1] + 1 + reach)


def _near_edge(inside: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return the pixels (H, W) with a pixel of the other side at most `reach` away, horizontally or vertically."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    pixels = inside.astype(np.uint8)
    return np.asarray(cv2.dilate(pixels, kernel) > cv2.erode(pixels, kernel))


def _pairs(
    image: NDArray[np.float32], inside: NDArray[np.bool_], band: NDArray[np.bool_], lag: int
) -> tuple[Steps, Steps, Steps]:
    """Return the mean steps over the channels of horizontal pairs: across the edge, inside near it, outside near it."""
    left, right = inside[:, :-lag], inside[:, lag:]
    steps = np.abs(image[:, lag:] - image[:, :-lag]).mean(-1, dtype=np.float64)
    near = band[:, :-lag] & band[:, lag:]
    return steps[left != right], steps[near & left & right], steps[near & ~left & ~right]
